"""MONAI's networks: geometry worked out by hand, features, weights, bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.backbones import MonaiBackbone

if TYPE_CHECKING:
    from pathlib import Path

# (stride, offset) of each level.
# ResNet: 7×7 padding 3, 3×3 padding 1, 1×1 padding 0 are all centred; only strides count.
RESNET = [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0)]
# DenseNet: a stem as ResNet's, of strides 2 and 4; each 2×2 mean between stages adds half of the stride before it.
DENSENET = [(2, 0), (4, 0), (8, 2), (16, 6), (32, 14)]
# EfficientNet-B0: "same" padding of sizes 224, 112, 56, 28, 14 before strided kernels 3, 3, 5, 3, 5 is 0, 0, 1, 0, 1 on
# the left, so that each adds (k - 1)/2 - p = 1 cell: 1, 2, 4, 8, 16 pixels.
EFFICIENTNET = [(2, 1), (4, 3), (8, 7), (16, 15), (32, 31)]


@pytest.mark.parametrize(
    ("name", "dims", "options", "channels", "grid"),
    [
        ("resnet18", 2, {}, [64, 64, 128, 256, 512], RESNET),
        ("resnet18", 3, {}, [64, 64, 128, 256, 512], RESNET),
        ("resnet50", 2, {"stem_stride": 2}, [64, 256, 512, 1024, 2048], [(2 * s, o) for s, o in RESNET]),
        ("densenet121", 2, {}, [64, 256, 512, 1024, 1024], DENSENET),
        ("efficientnet-b0", 2, {}, [16, 24, 40, 112, 320], EFFICIENTNET),
    ],
)
def test_levels_lie_where_arithmetic_says(
    name: str, dims: int, options: dict[str, Any], channels: list[int], grid: list[tuple[float, float]]
) -> None:
    backbone = MonaiBackbone(2, dims, name, **options).eval()
    assert [level.channels for level in backbone.levels] == channels
    assert [level.stride for level in backbone.levels] == [(float(stride),) * dims for stride, _ in grid]
    assert [level.offset for level in backbone.levels] == [(float(offset),) * dims for _, offset in grid]
    size = (64, 32, 32)[:dims]
    with torch.inference_mode():
        features = backbone(torch.randn(2, 2, *size))
    for feature, level in zip(features, backbone.levels, strict=True):
        cells = [int(n // s) for n, s in zip(size, level.stride, strict=True)]
        assert feature.shape == (2, level.channels, *cells)


@torch.no_grad()
def test_features_are_those_of_monais_own_stages() -> None:
    torch.manual_seed(0)
    backbone = MonaiBackbone(1, 2, "resnet10").eval()
    network, images = backbone.network, torch.randn(2, 1, 32, 32)
    x = network.act(network.bn1(network.conv1(images)))  # type: ignore[operator]
    expected = [x]
    x = network.maxpool(x)  # type: ignore[operator]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)  # type: ignore[operator]
        expected.append(x)
    for found, wanted in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["resnet10", "densenet121", "efficientnet-b0"])
def test_every_weight_is_trained(name: str) -> None:
    """What stands behind the last level is given up, so that no process waits for its gradient."""
    backbone = MonaiBackbone(1, 2, name)
    sum(feature.square().mean() for feature in backbone(torch.randn(2, 1, 64, 64))).backward()
    assert [name for name, weight in backbone.named_parameters() if weight.grad is None] == []


def test_weights_are_loaded_with_or_without_their_classifier(tmp_path: Path) -> None:
    from monai.networks.nets.resnet import resnet10

    path = str(tmp_path / "weights.pt")
    source = resnet10(spatial_dims=2, n_input_channels=1, num_classes=7)
    for state in (source.state_dict(), {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}):
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
        found = MonaiBackbone(1, 2, "resnet10", weights=path).network.state_dict()
        assert all(torch.equal(value, source.state_dict()[name]) for name, value in found.items())
    with pytest.raises(InputError, match=r"conv1.weight is \(64, 1, 7, 7\), but \(64, 3, 7, 7\) in the network"):
        MonaiBackbone(3, 2, "resnet10", weights=path)
    with pytest.raises(InputError, match=r"does not fit the network: it misses"):
        MonaiBackbone(1, 2, "resnet18", weights=path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dims": 2, "name": "resent18"}, "MONAI has no network 'resent18'; nearest are resnet18, "),
        ({"dims": 2, "name": "efficientnet_b0"}, "nearest are efficientnet-b0, "),
        ({"dims": 1}, "MonaiBackbone: dims is 1, but images have 2 or 3 axes"),
        ({"dims": 2, "stem_stride": 0}, "stem_stride is 0"),
        ({"dims": 2, "name": "densenet121", "stem_stride": 2}, "other networks leave it at 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        MonaiBackbone(1, **arguments)
