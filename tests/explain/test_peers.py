"""Faults that were seen in other libraries by running them or in their source, numbered as in our notes on them.

Rows 15 to 21 are of metrics and data sets, and are held elsewhere. Rows that name a whole test file point to it.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hrcam_lightning.explain import cam, explain
from hrcam_lightning.explain.fusion import fuse, unit_range
from hrcam_lightning.explain.layerwise import refinecam
from hrcam_lightning.explain.null import NULLS
from tests.explain.small import ANY_NETWORK, LOOKING, SIZES, images, layers_of, maps, near, network

FUSING = [name for name in LOOKING if name not in ("cam", "fullgrad", "occlusion", "random_weights")]


@pytest.mark.parametrize("name", LOOKING)
def test_1_classes_of_an_unsure_network_do_not_all_reach_the_same_peak(name: str) -> None:
    """pytorch-grad-cam stretches every map to 1; the other half of row 1, a faint image, is in test_precision."""
    model = network()
    model.get_parameter("3.weight").data *= torch.tensor([1.0, 0.5, 0.1, 0.01])[:, None]
    peaks = maps(model, images(2), name).abs().flatten(2).amax(-1)
    assert not torch.allclose(peaks, torch.ones_like(peaks), atol=0.05)
    assert not (peaks == 1).any()
    if name not in ("eigencam", "scorecam", "polycam"):  # the first knows no class, the others weigh by probabilities
        assert bool((peaks.std(1) > 0).all())


@pytest.mark.parametrize("name", LOOKING)
def test_2_the_mode_the_gradients_and_their_accumulation_are_left_alone(name: str) -> None:
    """pytorch-grad-cam leaves the network in evaluation mode and its gradients filled, or wiped."""
    model = network().train()
    model(images(2)).sum().backward()
    before = [part.grad.clone() for part in model.parameters() if part.grad is not None]
    maps(model, images(2), name)
    assert all(module.training for module in model.modules())
    after = [part.grad for part in model.parameters() if part.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [(8, 12, 8), (7, 9, 11), (4, 16, 16)])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_3_every_method_takes_volumes(name: str, size: tuple[int, int, int]) -> None:
    """pytorch-grad-cam's ++, XGrad- and Score-CAM crash on them."""
    found = maps(network(3), images(2, 3, size), name)
    assert found.shape == (2, 4, *size)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", FUSING)
def test_3_a_volume_of_equal_slices_has_the_map_of_the_slice(name: str) -> None:
    """A 3D network that does not mix slices says of each what its 2D twin says of the picture."""
    flat, solid = network(2, bias=False), network(3, bias=False)
    for one, other in zip(flat.parameters(), solid.parameters(), strict=True):
        other.data = torch.zeros_like(other.data)
        other.data[(..., 1, slice(None), slice(None)) if other.ndim == 5 else ...] = one.data
    for module in solid.modules():
        if isinstance(module, nn.Conv3d):
            module.stride = (1, *module.stride[1:])
    picture = images(2)
    volume = picture[:, :, None].expand(-1, -1, 5, -1, -1)
    asked: dict[str, Any] = {"layers": layers_of(flat)} if name != "eigencam" else {}  # of one layer: no tied axes
    of_volume, of_slice = maps(solid, volume, name, **asked)[:, :, 2], maps(flat, picture, name, **asked)
    # A slice has a fifth of the evidence where cells are weighed by their share of the score.
    ratio = float(of_volume.abs().amax() / of_slice.abs().amax())
    assert min(abs(ratio - 1), abs(ratio - 0.2)) < 1e-3
    near(of_volume, of_slice * ratio, 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_4_maps_are_float32_whatever_the_network_computes_in(name: str, dtype: torch.dtype) -> None:
    """pytorch-grad-cam crashes on bf16; how near the maps are is in test_precision."""
    found = maps(network().to(dtype), images(2).to(dtype), name)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


def test_5_it_works_under_inference_mode_and_no_grad() -> None:
    """All libraries' Grad-CAM fails there; every method, also inside of Lightning, is in test_side_effects."""
    model = network()
    expected = explain(model, images(2))
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            near(explain(model, images(2)), expected)


def test_6_refinecam_does_bring_its_factors_to_0_and_1() -> None:
    """pytorch-grad-cam's rescaling changes a name and not the values."""
    model, pictures = network(), 30 * images(2)
    layers = layers_of(model)
    factors = [explain(model, pictures, "gradcam++", layers=[name]) for name in layers]
    assert max(float(one.amax()) for one in factors) > 1
    product = torch.stack([unit_range(one) for one in factors]).prod(0)
    peak = factors[-1].flatten(2).amax(-1)[..., None, None]
    expected = product / product.flatten(2).amax(-1)[..., None, None].clamp(min=1e-20) * peak
    near(explain(model, pictures, "refinecam", layers=layers), expected)
    assert callable(refinecam)


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("error", [IndexError, KeyError, ZeroDivisionError])
def test_7_no_error_of_the_network_is_swallowed(name: str, error: type[Exception]) -> None:
    """pytorch-grad-cam prints an IndexError and goes on without a map."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, values: Tensor) -> Tensor:
            self.inner(values)
            raise error("the network's own")

    with pytest.raises(error, match="the network's own"):
        explain(Broken(), images(1), name)


def test_8_gradcam_plus_plus_divides_by_its_denominator() -> None:
    """torch-cam's division is lost, so that its weights are the squared gradients alone."""
    activations, gradients = images(2, 2, (5, 6)).relu(), images(3, 2, (5, 6))[:2]
    found = cam.gradcam_plus_plus(activations, gradients)
    expected = torch.zeros(2, 5, 6)
    for sample in range(2):
        for channel in range(2):
            a, g = activations[sample, channel], gradients[sample, channel]
            alpha = g**2 / (2 * g**2 + a.sum() * g**3)
            expected[sample] += (alpha * g.relu()).sum() * a
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    undivided = torch.einsum("bc,bc...->b...", (gradients.square() * gradients.relu()).flatten(2).sum(-1), activations)
    assert not torch.allclose(found, undivided, rtol=0.1)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", [name for name in ANY_NETWORK if name not in ("random", "center")])
def test_9_what_is_not_a_number_is_not_hidden_and_stays_with_its_sample(name: str, fused: bool) -> None:
    """torch-cam sums around it."""
    model, pictures = network(), images(3)
    asked: dict[str, Any] = {"layers": layers_of(model)} if fused and name in FUSING else {}
    expected = maps(model, pictures, name, **asked)
    broken = pictures.clone()
    broken[1, 0, 4, 5] = torch.nan
    found = maps(model, broken, name, **asked)
    assert bool(found[1].isnan().flatten(1).any(1).all())
    near(found[[0, 2]], expected[[0, 2]])


def test_9_a_layer_that_is_not_a_number_is_not_left_out_of_a_fusion() -> None:
    broken = torch.ones(1, 1, 4, 4)
    broken[..., 2, 2] = torch.nan
    for rule in ("mean", "max", "sum", "product"):
        assert bool(fuse([broken, torch.ones(1, 1, 4, 4)], rule).isnan().all())


@pytest.mark.parametrize("fusion", ["mean", "max", "sum", "product"])
@pytest.mark.parametrize("name", ["gradcam", "layercam", "gradcam++"])
def test_9_a_fused_map_has_the_peak_of_its_deepest_layer(name: str, fusion: str) -> None:
    """torch-cam's has a peak of its own: the mean of maps that peak at different places."""
    model, pictures = network(), images(2)
    layers = layers_of(model)
    fused = explain(model, pictures, name, layers=layers, fusion=fusion).flatten(2).amax(-1)
    deepest = explain(model, pictures, name, layers=layers[-1:]).flatten(2).amax(-1)
    torch.testing.assert_close(fused[fused > 0], deepest[fused > 0])
    assert bool((fused > 0).any())


@pytest.mark.parametrize("name", LOOKING)
def test_10_each_sample_is_asked_of_its_own_predicted_class(name: str) -> None:
    """MONAI sums over the predicted classes of the whole batch."""
    model, pictures = network(), images(6)
    with torch.no_grad():
        model.get_parameter("3.bias").sub_(model(pictures).mean(0))
        predicted = model(pictures).argmax(1)
    assert len(set(predicted.tolist())) > 1
    together = maps(model, pictures, name, target=predicted)
    for number in range(6):
        near(maps(model, pictures[number : number + 1], name, target=int(predicted[number])), together[number][None])


def test_11_large_scores_do_not_overflow_gradcam_plus_plus() -> None:
    """MONAI multiplies by the exponential of the score; a batch as wide as the map is in test_batches."""
    model, pictures = network(), images(2)
    model.get_parameter("3.weight").data *= 1e4
    assert float(model(pictures).detach().amax()) > 89  # the exponential of which is more than float32 holds
    assert bool(explain(model, pictures, "gradcam++").isfinite().all())


@pytest.mark.parametrize("name", LOOKING)
def test_12_every_form_of_a_target_is_understood(name: str) -> None:
    """MONAI's CAM raises TypeError for a class as a number."""
    model, pictures = network(), images(2)
    every = maps(model, pictures, name, target=None)
    forms: list[Any] = [
        2,
        np.int64(2),
        torch.tensor(2),
        [2, 2],
        np.array([2, 2]),
        torch.tensor([2, 2], dtype=torch.uint8),
    ]
    for form in forms:
        found = maps(model, pictures, name, target=form)
        assert found.shape == (2, 1, *SIZES[2])
        near(found, every[:, 2:3])


def test_13_no_hook_is_left() -> None:
    """MONAI leaves one a call; all methods, also after errors, and a thousand calls are in test_side_effects."""
    model = network()
    for name in ANY_NETWORK:
        maps(model, images(1), name)
    for module in model.modules():
        assert not any(value for key, value in vars(module).items() if "hooks" in key and isinstance(value, dict))


class _Bright(nn.Module):
    """Class 1 is what is bright, class 0 what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.ReLU())
        self.head = nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.features[0].weight, 0.1)  # type: ignore[arg-type]
        self.head.weight.data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(values).mean((2, 3)))
        return found


@pytest.mark.parametrize("name", LOOKING)
def test_13_high_means_important(name: str) -> None:
    """MONAI's maps are upside down: 1 is the least important."""
    if name == "random_weights":
        return  # which knows nothing of what is important
    picture = torch.zeros(1, 2, 16, 16)
    picture[:, :, 9:12, 3:6] = 1
    asked: dict[str, Any] = {} if name in ("fullgrad", "occlusion") else {"layers": ["features"]}
    found = maps(_Bright(), picture, name, target=1, **asked)[0, 0]
    row, column = divmod(int(found.argmax()), 16)
    assert 8 <= row <= 12
    assert 2 <= column <= 6
    assert float(found[0, 15]) < 0.05 * float(found.amax())


@pytest.mark.parametrize("name", LOOKING)
def test_13_a_class_without_evidence_has_a_map_of_zeros(name: str) -> None:
    """MONAI turns such a map into the most important one there is. Eigen-CAM knows no class."""
    if name in ("eigencam", "scorecam", "polycam", "random_weights"):  # whose weights sum to 1, or are drawn
        return
    model = network(bias=False)
    model.get_parameter("3.weight").data[2] = 0
    found = maps(model, images(2), name)
    assert torch.equal(found[:, 2], torch.zeros_like(found[:, 2]))
    assert bool((found[:, [0, 1, 3]] != 0).any())


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_14_a_flat_sample_neither_divides_by_zero_nor_touches_the_others(name: str, value: float) -> None:
    """M3d-CAM's guard looks at the whole batch, so that one flat sample is NaN."""
    model, pictures = network(bias=value > 0), images(3)
    asked: dict[str, Any] = {"layers": layers_of(model)} if name in FUSING else {}
    expected = maps(model, pictures, name, **asked)
    pictures[1] = value
    found = maps(model, pictures, name, **asked)
    assert bool(found.isfinite().all())
    near(found[[0, 2]], expected[[0, 2]])
    if not value and name in LOOKING:
        assert not found[1].any()


def test_22_every_method_of_the_family_cites_its_source_and_gradcam_plus_plus_is_no_other_variant() -> None:
    """Three libraries have three formulae of one name."""
    rules = [rule for _, rule in inspect.getmembers(cam, inspect.isfunction) if not rule.__name__.startswith("_")]
    assert len(rules) == 9
    for rule in rules:
        text = inspect.getdoc(rule) or ""
        assert rule is cam.elementwise_gradcam or ("20" in text and "(" in text), rule
    activations, gradients = images(1, 2, (4, 4)).relu(), images(4, 2, (4, 4))[:1]
    a, g = activations, gradients
    local = g**2 / (2 * g**2 + (a * g**3).flatten(2).sum(-1)[..., None, None])  # pytorch-grad-cam's, and others'
    other = torch.einsum("bc,bc...->b...", (local * g.relu()).flatten(2).sum(-1), a)
    assert not torch.allclose(cam.gradcam_plus_plus(a, g), other, rtol=0.05)


@pytest.mark.parametrize("fusion", ["mean", "max", "sum", "product"])
@pytest.mark.parametrize("name", ["eigencam", "scorecam", "gradcam", "hirescam"])
def test_23_layers_of_other_scales_are_not_drowned(name: str, fusion: str) -> None:
    """The published code of HR-CAM adds layers as they are. Here a layer may be scaled, and the next undo it."""
    model, pictures = network(bias=False), images(2)
    expected = explain(model, pictures, name, layers=layers_of(model), fusion=fusion)
    with torch.no_grad():
        model.get_parameter("0.0.weight").mul_(1000)
        model.get_parameter("0.2.weight").div_(1000)
    near(explain(model, pictures, name, layers=["0.1", "0.3", "0.5"], fusion=fusion), expected, 1e-3)


def test_the_null_maps_are_among_those_that_are_tested() -> None:
    assert set(NULLS) <= set(ANY_NETWORK)
