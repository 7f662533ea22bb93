"""Every method against its formula, written a second time with plain loops, in float64."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hrcam_lightning.explain import cam as rules
from hrcam_lightning.explain import explain
from tests.explain import references as ref
from tests.explain.networks import SIZES, Staged, batch, curved, mean_pooled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.explain.references import Array

LAYERS = ("stages.0", "stages.1", "stages.2")
LIES = {0: (1.0, 0.0), 1: (2.0, 0.5), 2: (4.0, 0.5)}
"""Stride and offset of the stages' cells: a max pool of 2, then a convolution of 3 cells and a stride of 2."""
TARGETS = [None, torch.tensor([1, 2, 0])]
FUSIONS = ["max", "mean", "sum", "product"]


def _classes(target: Tensor | None) -> list[list[int]]:
    return [[0, 1, 2]] * 3 if target is None else [[number] for number in target.tolist()]


def _same(maps: Tensor, expected: Array) -> None:
    """Each map equal up to float32, of which maps are, and not all empty."""
    assert maps.dtype == torch.float32
    assert expected.any()
    peaks = np.abs(expected).max(axis=tuple(range(2, expected.ndim)), keepdims=True)
    scale = np.where(peaks > 0, peaks, 1)
    np.testing.assert_allclose(maps.numpy() / scale, expected / scale, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ref.SIGNED)
def test_a_method_of_one_layer_is_its_formula(
    method: str, size: tuple[int, ...], stage: int, target: Tensor | None
) -> None:
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        return ref.spread(ref.published(method, *ref.cut(model, images, stage, sample, number)), size)

    maps = explain(model, images, method, layers=[LAYERS[stage]], target=target)
    _same(maps, ref.everything(_classes(target), ask))


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "xgradcam", "respondcam", "hirescam"])
@pytest.mark.parametrize("relu", [False, True])
def test_the_sign_is_kept_or_dropped_as_asked(method: str, relu: bool) -> None:
    size = SIZES[0]
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        signed = ref.SIGNED[method](*ref.cut(model, images, 2, sample, number))
        return ref.spread(ref.relu(signed) if relu else signed, size)

    maps = explain(model, images, method, layers=[LAYERS[2]], relu=relu)
    expected = ref.everything(_classes(None), ask)
    assert (expected.min() < 0) != relu
    _same(maps, expected)


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_put_where_they_lie(size: tuple[int, ...]) -> None:
    model, images = curved(size), batch(size)
    for stage, (stride, offset) in LIES.items():

        def ask(sample: int, number: int, stage: int = stage, stride: float = stride, offset: float = offset) -> Array:
            return ref.spread(ref.hirescam(*ref.cut(model, images, stage, sample, number)), size, stride, offset)

        maps = explain(model, images, "hirescam", layers=[LAYERS[stage]], resampling="receptive_field")
        _same(maps, ref.everything(_classes(None), ask))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam"])
def test_layers_are_fused_by_the_rule(method: str, size: tuple[int, ...], fusion: str) -> None:
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        maps = [
            ref.spread(ref.published(method, *ref.cut(model, images, stage, sample, number)), size) for stage in (0, 2)
        ]
        return ref.fused(maps, fusion)

    # Named from coarse to fine: the order of the names is of no account.
    maps = explain(model, images, method, layers=[LAYERS[2], LAYERS[0]], fusion=fusion)
    _same(maps, ref.everything(_classes(None), ask))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_layercam_scales_all_but_the_deepest_layer_by_tanh(size: tuple[int, ...], gamma: float) -> None:
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        first, second, third = (
            ref.spread(ref.relu(ref.layercam(*ref.cut(model, images, stage, sample, number))), size)
            for stage in (0, 1, 2)
        )
        out = third / third.max() if third.max() > 0 else third
        for shallow in (first, second):
            out = np.maximum(out, np.tanh(gamma * ref.over_peak(shallow)))
        return ref.at_peak(out, third)

    maps = explain(model, images, "layercam", layers=LAYERS, gamma=gamma)
    _same(maps, ref.everything(_classes(None), ask))


@pytest.mark.parametrize("size", SIZES)
def test_cam_has_the_weights_of_the_dense_layer(size: tuple[int, ...]) -> None:
    model, images = mean_pooled(size), batch(size)
    dense = model.get_submodule("head.2")
    assert isinstance(dense, nn.Linear)
    weights = dense.weight.detach().numpy()
    activations = model.before(images, -1).detach().numpy()

    def ask(sample: int, number: int) -> Array:
        out = np.zeros(activations.shape[2:])
        for k in range(4):
            out += weights[number, k] * activations[sample, k]
        return ref.spread(out, size)

    for target in TARGETS:
        maps = explain(model, images, "cam", layers=["stages.1"], target=target)
        _same(maps, ref.everything(_classes(target), ask))


@pytest.mark.parametrize("size", SIZES)
def test_eigencam_is_the_first_component_with_the_far_side_positive(size: tuple[int, ...]) -> None:
    model, images = curved(size), batch(size)
    for stage in (0, 1, 2):
        activations = model.before(images, stage).detach().numpy()

        def ask(sample: int, _number: int, activations: Array = activations) -> Array:
            return ref.spread(ref.eigencam(activations[sample]), size)

        _same(explain(model, images, "eigencam", layers=[LAYERS[stage]]), ref.everything(_classes(None), ask))


@torch.no_grad()
def test_eigencam_takes_both_signs_of_the_activations_for_the_same() -> None:
    activations = torch.randn(4, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = rules.eigencam(activations)
    torch.testing.assert_close(rules.eigencam(-activations), maps)
    assert (maps.flatten(1).amax(1) >= -maps.flatten(1).amin(1)).all()


def _masked_scores(model: Staged, image: Array, activations: Array, squash: Callable[[Array], Array]) -> Array:
    """Scores (C, K) of the image seen through each channel, not a number for a flat one."""
    rows = []
    for channel in activations:
        seen = ref.spread(channel, image.shape[1:])
        flat = seen.max() == seen.min()
        rows.append(np.full(3, np.nan) if flat else squash(ref.logits(model, image * ref.unit_range(seen))))
    return np.stack(rows)


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_scorecam_is_its_formula(size: tuple[int, ...], stage: int, target: Tensor | None) -> None:
    model, images = curved(size), batch(size)
    activations = model.before(images, stage).detach().numpy()
    scores = [_masked_scores(model, images[b].numpy(), activations[b], np.asarray) for b in range(3)]
    assert np.isnan(scores[0][:, 0]).any() == (stage == 1)  # the channel that never speaks

    def ask(sample: int, number: int) -> Array:
        column = scores[sample][:, number]
        heard = ~np.isnan(column)
        weights = np.zeros(len(column))
        weights[heard] = ref.softmax(column[heard])
        out = np.zeros(activations.shape[2:])
        for k, weight in enumerate(weights):
            out += weight * activations[sample, k]
        return ref.spread(ref.relu(out), size)

    maps = explain(model, images, "scorecam", layers=[LAYERS[stage]], target=target, chunk=4)
    _same(maps, ref.everything(_classes(target), ask))


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_ablationcam_is_its_formula(size: tuple[int, ...], stage: int, target: Tensor | None) -> None:
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        activations = model.before(images[sample : sample + 1], stage)
        whole = float(model.after(activations, stage)[0, number])
        out = torch.zeros_like(activations[0, 0])
        for k in range(activations.shape[1]):
            without = activations.clone()
            without[0, k] = 0
            out += (whole - float(model.after(without, stage)[0, number])) / abs(whole) * activations[0, k]
        return ref.spread(ref.relu(out.numpy()), size)

    maps = explain(model, images, "ablationcam", layers=[LAYERS[stage]], target=target, chunk=4)
    _same(maps, ref.everything(_classes(target), ask))


class _Skip(nn.Module):
    """A branch that hands on the very tensor that it was given, beside another that goes on with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.branch = nn.Dropout()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 12, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        logits: Tensor = self.head(first - 0.5 * self.branch(first))
        return logits


def test_a_branch_is_explained_without_the_one_beside_it() -> None:
    torch.manual_seed(0)
    model, images = _Skip().double().eval(), batch(SIZES[0])
    first = model.first(images).detach()
    branch = first.clone().requires_grad_()
    scores = model.head(first - 0.5 * branch)
    for number in range(3):
        (gradient,) = torch.autograd.grad(scores[:, number].sum(), branch, retain_graph=True)
        expected = (gradient * first).sum(1, keepdim=True)
        for layers in (["branch"], ["first", "branch"]):  # the last of two of a size is the deepest
            maps = explain(model, images, "hirescam", layers=layers, target=number, fusion="max")
            if len(layers) == 1:
                _same(maps, expected.numpy())
            else:
                whole = explain(model, images, "hirescam", layers=["first"], target=number).double()
                fused = [ref.fused([a[0].numpy(), b[0].numpy()], "max") for a, b in zip(whole, expected, strict=True)]
                _same(maps, np.stack(fused)[:, None])
        drops = []
        for k in range(3):
            silenced = branch.detach().clone()
            silenced[:, k] = 0
            drops.append((scores - model.head(first - 0.5 * silenced))[:, number].detach())
        weights = torch.stack(drops, 1) / scores[:, number, None].detach().abs()
        ablated = torch.einsum("bc,bc...->b...", weights, first).relu()[:, None]
        _same(explain(model, images, "ablationcam", layers=["branch"], target=number), ablated.numpy())


@pytest.mark.parametrize("method", ["eigencam", "scorecam", "ablationcam"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_methods_without_gradients_fuse_as_the_others_do(method: str, fusion: str) -> None:
    size = SIZES[0]
    model, images = curved(size), batch(size)
    one_by_one = [explain(model, images, method, layers=[name]).double().numpy() for name in LAYERS]

    def ask(sample: int, number: int) -> Array:
        return ref.fused([maps[sample, number] for maps in one_by_one], fusion)

    maps = explain(model, images, method, layers=LAYERS, fusion=fusion)
    _same(maps, ref.everything(_classes(None), ask))


@pytest.mark.parametrize("resampling", ["half_pixel", "receptive_field"])
@pytest.mark.parametrize("size", SIZES)
def test_zoomcam_is_a_running_maximum_from_deep_to_shallow(size: tuple[int, ...], resampling: str) -> None:
    model, images = curved(size), batch(size)
    half = resampling == "half_pixel"

    def lift(values: Array, onto: tuple[int, ...], stage: int, to: int | None) -> Array:
        if half:
            return ref.spread(values, onto)
        stride, offset = LIES[stage]
        unit, start = (1.0, 0.0) if to is None else LIES[to]
        return ref.spread(values, onto, stride / unit, (offset - start) / unit)

    def ask(sample: int, number: int) -> Array:
        maps = [ref.relu(ref.hirescam(*ref.cut(model, images, stage, sample, number))) for stage in (0, 1, 2)]
        running = ref.unit_range(maps[2])
        for stage in (1, 0):
            running = np.maximum(ref.unit_range(maps[stage]), lift(running, maps[stage].shape, stage + 1, stage))
        return ref.at_peak(lift(running, size, 0, None), maps[2])

    maps = explain(model, images, "zoomcam", layers=LAYERS, resampling=resampling)  # type: ignore[arg-type]
    _same(maps, ref.everything(_classes(None), ask))


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize("size", SIZES)
def test_refinecam_is_a_product_of_maps_from_0_to_1(size: tuple[int, ...], target: Tensor | None) -> None:
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        maps = [
            ref.spread(ref.relu(ref.gradcam_plus_plus(*ref.cut(model, images, stage, sample, number))), size)
            for stage in (0, 1, 2)
        ]
        out = np.ones(size)
        for one in maps:
            out *= ref.unit_range(one)
        return ref.at_peak(out, maps[2])

    maps = explain(model, images, "refinecam", layers=LAYERS, target=target)
    _same(maps, ref.everything(_classes(target), ask))


def _clipped(values: Array) -> Array:
    low, high = np.percentile(values, [0.1, 99.9], method="nearest")
    return values.clip(low, high)


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize("size", [(24, 32), SIZES[1]])
def test_polycam_is_its_recursion(size: tuple[int, ...], target: Tensor | None) -> None:
    """The first size is large enough that the percentiles are not the extremes."""
    model, images = curved(size), batch(size)

    def ask(sample: int, number: int) -> Array:
        below: Array = np.zeros(size)
        deepest = below
        for stage in (2, 1, 0):
            activations = model.before(images[sample : sample + 1], stage).detach()[0].numpy()
            out = np.zeros(activations.shape[1:])
            for channel in activations:
                seen = _clipped(ref.spread(channel, size))
                if seen.max() > seen.min():
                    weight = ref.softmax(ref.logits(model, images[sample].numpy() * ref.unit_range(seen)))[number]
                    out += weight * channel
            out = ref.relu(out)
            if stage == 2:
                below = deepest = out
            else:
                smooth = ref.spread(ref.spread(out, below.shape), out.shape)
                below = out / np.maximum(smooth, 1e-12) * ref.spread(below, out.shape)
        return ref.at_peak(ref.spread(below, size), deepest)

    maps = explain(model, images, "polycam", layers=LAYERS, target=target)
    _same(maps, ref.everything(_classes(target), ask))


@pytest.mark.parametrize("target", TARGETS, ids=["all classes", "one a sample"])
@pytest.mark.parametrize(
    ("size", "patch", "step", "fill"),
    [(SIZES[0], (4, 3), (3, 2), 0.0), (SIZES[0], (2, 5), (2, 5), 0.7), (SIZES[1], (3, 4, 3), (2, 3, 3), 0.0)],
)
def test_occlusion_is_the_mean_drop_of_the_patches_over_a_pixel(
    size: tuple[int, ...], patch: tuple[int, ...], step: tuple[int, ...], fill: float, target: Tensor | None
) -> None:
    model, images = curved(size), batch(size)
    # The last patch is the first that reaches the end; what sticks out of the image is cut off.
    starts = [[s for s in range(0, n, st) if s - st + p < n] for n, p, st in zip(size, patch, step, strict=True)]

    def ask(sample: int, number: int) -> Array:
        image = images[sample].numpy()
        drops: dict[tuple[int, ...], list[float]] = {pixel: [] for pixel in np.ndindex(*size)}
        for start in itertools.product(*starts):
            inside = [
                pixel for pixel in drops if all(s <= i < s + p for i, s, p in zip(pixel, start, patch, strict=True))
            ]
            hidden = image.copy()
            for pixel in inside:
                for channel in hidden:
                    channel[pixel] = fill
            drop = ref.logits(model, image)[number] - ref.logits(model, hidden)[number]
            for pixel in inside:
                drops[pixel].append(float(drop))
        out = np.zeros(size)
        for pixel, of in drops.items():
            out[pixel] = math.fsum(of) / len(of)
        return out

    maps = explain(model, images, "occlusion", target=target, patch=patch, step=step, fill=fill, chunk=5)
    _same(maps, ref.everything(_classes(target), ask))


def test_occlusions_patch_is_an_eighth_in_2d_and_a_quarter_in_3d() -> None:
    for size, patch, step in [((16, 24), (2, 3), (1, 1)), ((8, 12, 16), (2, 3, 4), (1, 1, 2))]:
        model, images = curved(size), batch(size, 1)
        by_default = explain(model, images, "occlusion", target=0)
        assert torch.equal(by_default, explain(model, images, "occlusion", target=0, patch=patch, step=step))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradcam_plus_plus_does_not_underflow(dtype: torch.dtype) -> None:
    """The cube of a gradient leaves float32 at 1e-13, which is the slope of the probability of a sure classifier."""
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=generator)
    gradients = 1e-22 * torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=generator)
    expected = ref.gradcam_plus_plus(activations[0].numpy(), gradients[0].numpy())
    maps = rules.gradcam_plus_plus(activations.to(dtype), gradients.to(dtype))
    np.testing.assert_allclose(maps[0].double().numpy(), expected, rtol=1e-5)
