"""Tapped networks: the features, nothing left behind, weights, exported programs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from hrcam_lightning import InputError, LocalizationModel, LocalizationTask
from hrcam_lightning.backbones import TappedBackbone
from hrcam_lightning.cli import main
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.geometry import Level
from hrcam_lightning.pooling import MaxPooling

CONV, POOL, NORM = [nn.Conv2d, nn.Conv3d], [nn.MaxPool2d, nn.MaxPool3d], [nn.BatchNorm2d, nn.BatchNorm3d]


class _Classifier(nn.Module):
    """Somebody's network, with a head for images of one size."""

    def __init__(self, dims: int = 2, channels: int = 1) -> None:
        super().__init__()
        conv, pool, norm = CONV[dims - 2], POOL[dims - 2], NORM[dims - 2]
        self.stem = nn.Sequential(conv(channels, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True))
        self.body = nn.Module()
        self.body.pool = pool(2)
        self.body.conv1 = conv(4, 6, 3, 2, 1)
        self.body.conv2 = conv(6, 6, 3, 1, 1)
        self.act = nn.ReLU(inplace=True)
        self.pair = _Pair()
        self.unused = nn.Identity()
        self.head = nn.Linear(6 * 4**dims, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body.conv1(self.body.pool(self.stem(images)))  # type: ignore[operator]
        x = self.act(x + self.body.conv2(self.act(x.clone())))  # type: ignore[operator]
        return self.head(self.pair(x)[0].flatten(1))  # type: ignore[no-any-return]


class _Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def _hooks(network: nn.Module) -> int:
    return sum(
        len(hooks)
        for module in network.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_those_of_the_networks_parts(dims: int) -> None:
    torch.manual_seed(0)
    network = _Classifier(dims).eval()
    backbone = TappedBackbone(1, dims, lambda: network, ["body.conv1", "stem", "body.pool"])
    assert backbone.layers == ["stem", "body.pool", "body.conv1"]  # fine to coarse
    assert backbone.levels == (
        Level(4, (1.0,) * dims, (0.0,) * dims),
        Level(4, (2.0,) * dims, (0.5,) * dims),
        Level(6, (4.0,) * dims, (0.5,) * dims),
    )
    images = torch.randn(2, 1, *(12, 9, 8)[:dims])
    features = backbone(images)
    expected = [network.stem(images)]
    for part in (network.body.pool, network.body.conv1):
        expected.append(part(expected[-1]))  # type: ignore[operator]
    assert all(torch.equal(found, wanted) for found, wanted in zip(features, expected, strict=True))


def test_nothing_is_left_on_the_network() -> None:
    network = _Classifier()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = set(vars(network))
    backbone = TappedBackbone(1, 2, network, ["stem", "body.conv1"])
    assert backbone.network is network
    assert _hooks(network) == 0
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    backbone(torch.randn(1, 1, 16, 16))
    assert _hooks(network) == 0
    with pytest.raises(RuntimeError):
        backbone(torch.randn(1, 3, 16, 16))
    assert _hooks(network) == 0
    assert set(vars(network)) == names
    network(torch.randn(1, 1, 16, 16))  # still whole


def test_two_backbones_share_a_network_and_gradients_reach_it() -> None:
    network = _Classifier()
    one, other = (TappedBackbone(1, 2, network, [name]) for name in ("stem", "body.conv1"))
    images = torch.randn(2, 1, 8, 8)
    (stem,), (conv,) = one(images), other(images)
    assert torch.equal(conv, network.body.conv1(network.body.pool(stem)))  # type: ignore[operator]
    conv.sum().backward()
    assert network.stem[0].weight.grad is not None
    assert network.body.conv2.weight.grad is None  # type: ignore[union-attr]
    assert network.head.weight.grad is None


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_features_move_by_one_cell_when_the_image_moves_by_the_stride(dims: int) -> None:
    network = _Classifier(dims).eval()
    backbone = TappedBackbone(1, dims, network, ["stem", "body.pool", "body.conv1"])
    image = torch.randn(1, 1, *(24,) * dims)
    for number, level in enumerate(backbone.levels):
        for axis, stride in enumerate(level.stride):
            still = backbone(image)[number]
            moved = backbone(image.roll(int(stride), 2 + axis))[number]
            inner = (..., *(slice(2, -2),) * dims)
            torch.testing.assert_close(moved[inner], still.roll(1, 2 + axis)[inner])


def test_a_network_of_colours_gets_grey_images() -> None:
    network = _Classifier(channels=3).eval()
    backbone = TappedBackbone(1, 2, network, ["stem"], repeat=3)
    image = torch.randn(2, 1, 8, 8)
    assert torch.equal(backbone(image)[0], network.stem(image.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="repeat is 0"):
        TappedBackbone(1, 2, network, ["stem"], repeat=0)


@torch.no_grad()
def test_a_tapped_network_says_where() -> None:
    """A bright pixel makes the peak of a max-pooled map of a network whose cells are offset by half a pixel."""
    network = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Conv2d(1, 1, 2, 2, bias=False))
    for convolution in network:
        nn.init.ones_(convolution.weight)  # type: ignore[arg-type]
    backbone = TappedBackbone(1, 2, network, ["1"])
    assert backbone.levels == (Level(1, (2.0, 2.0), (1.0, 1.0)),)
    decoder = HRCAM(backbone.levels, 1)
    nn.init.ones_(decoder.weights[0])
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 3] = 1
    maps = LocalizationModel(backbone, decoder, MaxPooling())(image).maps
    assert divmod(int(maps[0, 0].argmax()), 15) == (7, 3)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.backbone.network."])
def test_weights_are_read_whatever_stands_before_their_names(prefix: str, tmp_path: Path) -> None:
    source, path = _Classifier(), str(tmp_path / "weights.pt")
    content: dict[str, Any] = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    if prefix.startswith("model"):
        content = {"state_dict": {**content, "other.weight": torch.ones(1)}, "epoch": 3}
    torch.save(content, path)
    backbone = TappedBackbone(1, 2, _Classifier, ["stem"], weights=path)
    found = backbone.network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in source.state_dict().items())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    state = _Classifier().state_dict()
    first = next(iter(state))
    for content, sentence in [
        ({name: value for name, value in state.items() if name != first}, f"it misses {first} \\(of 1\\); give"),
        ({**state, "extra": torch.ones(1)}, "has extra \\(of 1\\) beyond it"),
        ({**state, first: torch.ones(4, 3, 3, 3)}, f"{first} is \\(4, 3, 3, 3\\), but \\(4, 1, 3, 3\\) in the network"),
        ({"state_dict": 3}, "holds no state dict"),
        (_Classifier(), "would run code when read"),
    ]:
        torch.save(content, path)
        with pytest.raises(InputError, match=sentence):
            TappedBackbone(1, 2, _Classifier, ["stem"], weights=str(path))
    with pytest.raises(InputError, match="no such file of weights"):
        TappedBackbone(1, 2, _Classifier, ["stem"], weights="none.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_exported_program_is_tapped_by_its_layers_names(tmp_path: Path) -> None:
    path = str(tmp_path / "network.pt2")
    network = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)).eval()
    sizes = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(network, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=({**sizes},))
    torch.export.save(program, path)
    backbone = TappedBackbone(1, 2, path, ["3", "2"])
    assert backbone.levels == (Level(4, (2.0, 2.0), (0.0, 0.0)), Level(4, (4.0, 4.0), (1.0, 1.0)))
    images = torch.randn(3, 1, 24, 40)
    expected = [network[:3](images), network(images)]
    for found, wanted in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["stm"], "no layer 'stm'; nearest are stem, "),
        (["body.conv3", "stem"], "no layer 'body.conv3'; nearest are body.conv[12], body.conv[12]"),
        (["xyz"], "no layer 'xyz'; nearest are stem, body, act, pair, unused, head$"),
        ([], "layers is \\[\\]: name at least one layer"),
        (["stem", "stem"], "and none twice"),
        (["act"], "the layer act is called more than once in a forward pass"),
        (["pair"], "the layer pair returns a tuple, not a tensor"),
        (["stem", "unused"], "the layer unused is not called in a forward pass"),
    ],
)
def test_layers_that_are_no_levels_are_refused_in_one_sentence(layers: list[str], sentence: str) -> None:
    network = _Classifier()
    with pytest.raises(InputError, match=sentence):
        TappedBackbone(1, 2, network, layers)
    assert _hooks(network) == 0


def test_an_output_that_is_overwritten_is_refused() -> None:
    backbone = TappedBackbone(1, 2, _Classifier, ["stem.1", "body.pool"])
    with pytest.raises(InputError, match=r"output of the layer stem.1 is changed in place by the next layer"):
        backbone(torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("dims", [2, 3])
def test_an_output_that_is_overwritten_under_inference_mode_is_read_before(dims: int) -> None:
    network = _Classifier(dims)
    backbone = TappedBackbone(1, dims, network, ["stem.1", "body.pool"]).eval()
    images = torch.randn(2, 1, *(8,) * dims)
    with torch.inference_mode():
        normed, pooled = backbone(images)
        expected = network.stem[1](network.stem[0](images))
    assert expected.min() < 0
    torch.testing.assert_close(normed, expected)
    torch.testing.assert_close(pooled, network.body.pool(expected.relu()))  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_networks_that_cannot_be_tapped_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(InputError, match=r"bad.pt2: is no program that torch.export.save has written"):
        TappedBackbone(1, 2, str(tmp_path / "bad.pt2"), ["stem"])
    with pytest.raises(InputError, match="is neither a class or function that can be imported nor an exported file"):
        TappedBackbone(1, 2, "no.such.Network", ["stem"])
    with pytest.raises(InputError, match="layers of TorchScript cannot be tapped"):
        TappedBackbone(1, 2, lambda: torch.jit.trace(nn.ReLU(), torch.ones(1)), ["stem"])  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="TappedBackbone: dims is 4"):
        TappedBackbone(1, 4, _Classifier, ["stem"])
    with pytest.raises(InputError, match=r"cannot be run on 2D images of 3 channels .* takes 1 channels, but gets 3"):
        TappedBackbone(3, 2, _Classifier, ["stem"])


class _Valid(nn.Module):
    """Unpadded: nothing is left of a small image."""

    def __init__(self, *, sliced: bool) -> None:
        super().__init__()
        self.conv, self.pool, self.sliced = nn.Conv2d(1, 2, 7), nn.MaxPool2d(2), sliced

    def forward(self, images: Tensor) -> Tensor:
        images = images[..., 6:] if self.sliced else F.relu(images)
        return self.pool(self.conv(images))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("size", [(5, 16), (7, 16), (16, 6)])
def test_an_image_of_which_nothing_is_left_is_refused_in_one_sentence(size: tuple[int, int], sliced: bool) -> None:
    backbone = TappedBackbone(1, 2, _Valid(sliced=sliced), ["pool"])
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 1), MaxPooling())
    with pytest.raises(InputError, match=f"images of {size[0]} x {size[1]}"):
        model(torch.zeros(1, 1, *size))


def test_a_network_from_a_yaml_file_is_trained_and_tested(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that makes the network, its arguments and weights; the checkpoint is read without running code."""
    from monai.networks.nets.resnet import resnet10

    monkeypatch.chdir(tmp_path)
    torch.save(resnet10(spatial_dims=2, n_input_channels=1, num_classes=5).state_dict(), "weights.pt")
    network = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 5}
    backbone = {
        "network": {"class_path": "monai.networks.nets.resnet10", "init_args": network},
        "layers": ["layer2", "act"],
        "weights": "weights.pt",
    }
    Path("tapped.yaml").write_text(
        yaml.safe_dump(
            {
                "model": {"backbone": {"class_path": "TappedBackbone", "init_args": backbone}},
                "data": {
                    "class_path": "CaseDataModule",
                    "init_args": {"cases": str(tiny_set / "cases.csv"), "batch_size": 4},
                },
                "trainer": {
                    "default_root_dir": "run",
                    "accelerator": "cpu",
                    "max_epochs": 1,
                    "enable_progress_bar": False,
                },
            }
        )
    )
    main(["fit", "-c", "tapped.yaml"])
    main(["test", "-c", "tapped.yaml", "--ckpt_path", "run/best.ckpt"])
    assert Path("run/test/metrics.json").is_file()
    Path("weights.pt").rename("elsewhere.pt")  # the checkpoint has them by now
    LocalizationTask.load_from_checkpoint("run/best.ckpt", weights_only=True)
    main(["test", "-c", "tapped.yaml", "--ckpt_path", "run/best.ckpt"])
    state = torch.load("run/best.ckpt", weights_only=True)["state_dict"]
    assert state["model.decoder.weights.1"].shape == (1, 128)
    before = torch.load("elsewhere.pt", weights_only=True)
    trained = state["model.backbone.network.layer2.0.conv1.weight"]
    assert 0 < float((trained - before["layer2.0.conv1.weight"]).abs().max()) < 0.1
    assert torch.equal(state["model.backbone.network.fc.weight"], before["fc.weight"])
