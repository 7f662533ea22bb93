"""What must hold between methods, and between a map and the score, whatever the network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrcam_lightning.explain import cam as rules
from hrcam_lightning.explain import explain
from hrcam_lightning.explain.fullgrad import full_gradients
from hrcam_lightning.explain.probe import Probe, undisturbed
from tests.explain.networks import CONV, MAX_POOL, NORM, SIZES, Staged, batch, curved, mean_pooled

if TYPE_CHECKING:
    from hrcam_lightning.explain.fullgrad import FullGradients

ALIKE = ["gradcam", "xgradcam", "hirescam", "respondcam"]


def _options(method: str) -> dict[str, bool]:
    return {} if method in ("cam", "eigencam") else {"relu": False}


@pytest.mark.parametrize("target", [None, torch.tensor([1, 2, 0])], ids=["all classes", "one a sample"])
@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("method", ALIKE)
@pytest.mark.parametrize("size", SIZES)
def test_behind_mean_pooling_and_a_dense_layer_a_map_is_cam_over_the_number_of_cells(
    size: tuple[int, ...], method: str, rectified: bool, target: Tensor | None
) -> None:
    model, images = mean_pooled(size, rectified=rectified), batch(size)
    cells = math.prod(n // 2 for n in size)
    expected = explain(model, images, "cam", layers=["stages.1"], target=target) / cells
    assert expected.min() < 0 < expected.max()
    maps = explain(model, images, method, layers=["stages.1"], target=target, relu=False)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("method", ["respondcam", "hirescam"])
@pytest.mark.parametrize("size", SIZES)
def test_a_map_sums_to_the_score_less_its_bias(size: tuple[int, ...], method: str) -> None:
    """At the layer's own resolution; at the image's it has that mean, where the size is a multiple."""
    model, images = mean_pooled(size), batch(size)
    dense = model.get_submodule("head.2")
    assert isinstance(dense, nn.Linear)
    scores = (model(images) - dense.bias).detach()
    own = model.before(images, -1).detach().requires_grad_()
    for number in range(3):
        (gradient,) = torch.autograd.grad(model.after(own, -1)[:, number].sum(), own)
        rule = {"respondcam": rules.respondcam, "hirescam": rules.hirescam}[method]
        torch.testing.assert_close(rule(own.detach(), gradient).flatten(1).sum(1), scores[:, number])
    even = tuple(2 * (n // 2) for n in size)
    cells = math.prod(n // 2 for n in size)
    model, images = mean_pooled(even), batch(even)
    scores = (model(images) - dense.bias).detach()
    maps = explain(model, images, method, layers=["stages.1"])
    torch.testing.assert_close(maps.flatten(2).mean(-1).double() * cells, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_respondcam_xgradcam_and_hirescam_sum_alike_behind_any_head(stage: int) -> None:
    model, images = curved(SIZES[0]), batch(SIZES[0])
    own = model.before(images, stage).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.after(own, stage)[:, 1].sum(), own)
    expected = (own.detach() * gradient).flatten(1).sum(1)
    for rule in (rules.respondcam, rules.xgradcam, rules.hirescam):
        torch.testing.assert_close(rule(own.detach(), gradient).flatten(1).sum(1), expected)


def test_cam_is_refused_where_no_mean_pooling_follows() -> None:
    from hrcam_lightning import InputError

    with pytest.raises(InputError, match="followed by mean pooling"):
        explain(curved(SIZES[0]), batch(SIZES[0]), "cam", layers=["stages.2"])


def _piecewise_linear(size: tuple[int, ...], classes: int = 3) -> Staged:
    """Convolution, batch norm, ReLU, maximum and mean pooling and dense layers: the network of the theorem."""
    dims = len(size)
    torch.manual_seed(dims)
    norm = NORM[dims](4, affine=False)
    stages = [
        nn.Sequential(CONV[dims](2, 3, 3, padding=1), NORM[dims](3), nn.ReLU(inplace=True), MAX_POOL[dims](2)),
        nn.Sequential(CONV[dims](3, 4, 3, padding=1, bias=False), norm, nn.ReLU()),
    ]
    cells = math.prod(n // 2 for n in size)
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(4 * cells, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU()
    )
    head.append(nn.Linear(5, classes))
    model = Staged(stages, head).double().eval()
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.normal_(bias, std=0.5)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.3, 2)  # type: ignore[arg-type]
            if module.affine:
                nn.init.normal_(module.weight)
    return model


def _parts(model: nn.Module, images: Tensor, target: Tensor | None = None) -> list[FullGradients]:
    with undisturbed(model, images):
        return list(full_gradients(Probe(model, images, {}, "logit", target, "half_pixel", 8)))


@pytest.mark.parametrize("target", [None, torch.tensor([1, 2, 0])], ids=["all classes", "one a sample"])
@pytest.mark.parametrize("size", SIZES)
def test_the_parts_of_fullgrad_sum_to_the_score(size: tuple[int, ...], target: Tensor | None) -> None:
    model, images = _piecewise_linear(size), batch(size)
    scores = model(images).detach()
    if target is not None:
        scores = scores.gather(1, target[:, None])
    parts = _parts(model, images, target)
    assert len(parts) == scores.shape[1]
    for number, part in enumerate(parts):
        assert len(part.biases) == 6  # of a convolution, two dense layers and three batch norms
        total = sum(one.double().flatten(1).sum(1) for one in (part.image, *part.biases))
        torch.testing.assert_close(total, scores[:, number], rtol=1e-5, atol=1e-5)
    for one_each in zip(*(part.biases for part in parts), strict=True):
        assert max(float(one.abs().max()) for one in one_each) > 1e-3  # every one is needed


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation as ``scale · x + shift``, by asking it at 0 and 1."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    shape = (1, norm.num_features, *(1,) * ({nn.BatchNorm1d: 0, nn.BatchNorm2d: 2}.get(type(norm), 3)))
    shift = norm(torch.zeros(shape, dtype=torch.float64)).detach()
    return norm(torch.ones(shape, dtype=torch.float64)).detach() - shift, shift


@pytest.mark.parametrize("size", SIZES)
def test_fullgrad_is_the_gradient_of_biases_that_are_maps(size: tuple[int, ...]) -> None:
    """The network once more as a function of its biases, each spread over its map as a variable of its own."""
    model, images = _piecewise_linear(size), batch(size)
    conv = {2: F.conv2d, 3: F.conv3d}[len(size)]
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(size)]
    first, norm, second, flat = (model.get_submodule(f"stages.{at}") for at in ("0.0", "0.1", "1.0", "1.1"))
    dense, norm_1d, thin, last = (model.get_submodule(f"head.{at}") for at in (1, 2, 4, 6))
    half = tuple(n // 2 for n in size)
    maps = torch.zeros(3, 3, *size, dtype=torch.float64)
    for sample in range(3):
        for number in range(3):
            leaves: list[Tensor] = [images[sample : sample + 1].clone().requires_grad_()]

            def add(values: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
                leaves.append(values.detach().clone().requires_grad_())
                return leaves[-1]

            wide = (1, -1, *(1,) * len(size))
            assert isinstance(first.bias, Tensor)
            x = conv(leaves[0], first.weight, padding=1) + add(first.bias.view(wide).expand(1, 3, *size))  # type: ignore[arg-type]
            scale, shift = _scale_and_shift(norm)
            x = pool(F.relu(scale * x + add(shift.expand(1, 3, *size))), 2)
            scale, shift = _scale_and_shift(flat)
            x = F.relu(scale * conv(x, second.weight, padding=1) + add(shift.expand(1, 4, *half)))  # type: ignore[arg-type]
            x = x.flatten(1) @ dense.weight.T + dense.bias  # type: ignore[operator]
            scale, shift = _scale_and_shift(norm_1d)
            x = F.relu(F.relu(scale * x + shift) @ thin.weight.T) @ last.weight.T + last.bias  # type: ignore[operator]
            torch.testing.assert_close(x[0, number], model(images)[sample, number])
            for leaf, gradient in zip(leaves, torch.autograd.grad(x[0, number], leaves), strict=True):
                part = (leaf * gradient).detach().abs().sum(1, keepdim=True)
                mode = {2: "bilinear", 3: "trilinear"}[len(size)]
                maps[sample, number] += F.interpolate(part, size, mode=mode, align_corners=False)[0, 0]
    ours = explain(model, images, "fullgrad")
    torch.testing.assert_close(ours.double(), maps, rtol=1e-5, atol=1e-6 * float(maps.max()))
    one_each = explain(model, images, "fullgrad", target=torch.tensor([1, 2, 0]))
    torch.testing.assert_close(one_each[:, 0], ours[torch.arange(3), torch.tensor([1, 2, 0])])


class _ChannelsLast(nn.Module):
    """A dense layer at every cell, as in ConvNeXt: a convolution of one cell."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.dense = nn.Linear(conv.in_channels, conv.out_channels).double()
        with torch.no_grad():
            self.dense.weight.copy_(conv.weight[:, :, 0, 0])
            self.dense.bias.copy_(conv.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        dense: Tensor = self.dense(images.movedim(1, -1))
        return dense.movedim(-1, 1)


def test_fullgrad_takes_a_dense_layer_at_every_cell_for_a_convolution_of_one_cell() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 1).double()
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 12, 2)).double()
    images = batch(SIZES[0])
    expected = explain(nn.Sequential(conv, nn.ReLU(), head), images, "fullgrad")
    torch.testing.assert_close(
        explain(nn.Sequential(_ChannelsLast(conv), nn.ReLU(), head), images, "fullgrad"), expected
    )


def test_fullgrad_sees_a_layer_that_is_called_twice_twice() -> None:
    torch.manual_seed(0)
    twice = nn.Conv2d(2, 2, 3, padding=1).double()
    model = nn.Sequential(twice, nn.ReLU(), twice, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9 * 12, 2).double())
    images = batch(SIZES[0])
    for number, part in enumerate(_parts(model, images)):
        assert len(part.biases) == 3
        total = sum(one.double().flatten(1).sum(1) for one in (part.image, *part.biases))
        torch.testing.assert_close(total, model(images)[:, number].detach(), rtol=1e-5, atol=1e-5)
