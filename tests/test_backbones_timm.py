"""timm's networks: geometry, weights of three channels for one, and a clear word where timm is missing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.backbones import TimmBackbone

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_timm_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm: pip install 'hrcam-lightning\[timm\]'"):
        TimmBackbone(1, 2, "resnet18")


def test_bad_arguments_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="timm has 2D networks only, but the images are 3D: use MonaiBackbone"):
        TimmBackbone(1, 3, "resnet18")
    with pytest.raises(InputError, match="give one of them"):
        TimmBackbone(1, 2, "resnet18", pretrained=True, weights="weights.pt")


@pytest.mark.parametrize(
    ("name", "channels", "grid"),
    [
        ("resnet18", [64, 64, 128, 256, 512], [(2, 0), (4, 0), (8, 0), (16, 0), (32, 0)]),
        # A shortcut through a 2×2 mean (half the stride before it) beside a centred convolution: a quarter on average.
        ("resnet26d", [64, 256, 512, 1024, 2048], [(2, 0), (4, 0), (8, 1), (16, 3), (32, 7)]),
        # Patches of 4×4, then of 2×2: cells centred in the pixels that they cover.
        ("convnext_atto", [40, 80, 160, 320], [(4, 1.5), (8, 3.5), (16, 7.5), (32, 15.5)]),
        ("efficientnet_b0", [16, 24, 40, 112, 320], [(2, 0), (4, 0), (8, 0), (16, 0), (32, 0)]),
        # TensorFlow's one-sided padding, for even sizes.
        ("tf_efficientnet_b0", [16, 24, 40, 112, 320], [(2, 1), (4, 3), (8, 7), (16, 15), (32, 31)]),
    ],
)
def test_levels_lie_where_arithmetic_says(name: str, channels: list[int], grid: list[tuple[float, float]]) -> None:
    pytest.importorskip("timm")
    backbone = TimmBackbone(1, 2, name)
    assert [level.channels for level in backbone.levels] == channels
    assert [(level.stride, level.offset) for level in backbone.levels] == [((s, s), (o, o)) for s, o in grid]
    for feature, level in zip(backbone(torch.randn(2, 1, 64, 96)), backbone.levels, strict=True):
        assert feature.shape == (2, level.channels, 64 // level.stride[0], 96 // level.stride[1])


@torch.no_grad()
def test_one_channel_sums_the_weights_of_three_and_two_share_them(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = str(tmp_path / "weights.pt")
    colour = timm.create_model("resnet18", num_classes=5).eval()
    torch.save(colour.state_dict(), path)
    grey = torch.randn(2, 1, 64, 64)
    expected = timm.create_model("resnet18", features_only=True)
    expected.load_state_dict({k: v for k, v in colour.state_dict().items() if not k.startswith("fc.")})
    wanted = expected.eval()(grey.expand(-1, 3, -1, -1))
    one = TimmBackbone(1, 2, "resnet18", weights=path).eval()
    torch.testing.assert_close(one.network.conv1.weight, colour.conv1.weight.sum(1, keepdim=True))  # type: ignore[union-attr]
    for found, feature in zip(one(grey), wanted, strict=True):
        torch.testing.assert_close(found, feature, atol=1e-4, rtol=1e-4)
    two = TimmBackbone(2, 2, "resnet18", weights=path).eval()
    torch.testing.assert_close(two.network.conv1.weight, colour.conv1.weight[:, :2] * 1.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "resnet_18"}, "timm has no network 'resnet_18'; nearest are resnet18, "),
        ({"name": "vit_tiny_patch16_224"}, "cannot be run on 2D images of 1 channels and any size"),
        ({"name": "resnet34", "weights": "WEIGHTS"}, r"does not fit the network: it misses layer1.2.conv1.weight \(of"),
        ({"name": "resnet18", "weights": "none.pt"}, "none.pt: no such file of weights"),
    ],
)
def test_networks_and_weights_that_do_not_fit_are_refused(
    arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    if arguments.get("weights") == "WEIGHTS":
        torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pt")
        arguments = {**arguments, "weights": str(tmp_path / "weights.pt")}
    with pytest.raises(InputError, match=sentence):
        TimmBackbone(1, 2, **arguments)
