"""The same maps from torch-cam, captum and MONAI: equal where those are right, and a word where they are not.

What a peer gets wrong is pinned, so that an upgrade that mends it is noticed here: then move it to the equal ones.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import captum.attr
import monai.visualize
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchcam.methods
from torch import Tensor, nn

from hrcam_lightning.explain import explain
from tests.explain import references as ref
from tests.explain.networks import SIZES, Staged, batch, curved

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = [0, 1, 2]
TARGETS = [1, torch.tensor([1, 2, 0])]
KINDS = ["one class", "one a sample"]


def _upsampled(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (B, *s) or (B, 1, *s) at the size of the image, (B, 1, *S)."""
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(maps.detach().view(len(maps), 1, *maps.shape[-len(size) :]), size, mode=mode)


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    peak = float(theirs.abs().max())
    assert peak > 0
    return torch.allclose(ours.double(), theirs.double(), rtol=1e-4, atol=1e-5 * peak)


def _torchcam(name: str, model: nn.Module, images: Tensor, stage: int, target: int | Tensor, **options: Any) -> Tensor:
    number = target if isinstance(target, int) else target.tolist()
    with getattr(torchcam.methods, name)(model, f"stages.{stage}", **options) as extractor:
        scores = model(images)
        (maps,) = extractor(number, scores, normalized=False)
    assert isinstance(maps, Tensor)
    return _upsampled(maps, tuple(images.shape[2:]))


def _reference(
    rule: Callable[[ref.Array, ref.Array], ref.Array], model: Staged, stage: int, numbers: list[int]
) -> Tensor:
    """The formula's map of one class a sample."""
    size = SIZES[0] if isinstance(model.get_submodule("stages.2"), nn.Conv2d) else SIZES[1]
    maps = ref.everything(
        [[number] for number in numbers],
        lambda sample, number: ref.spread(ref.relu(rule(*ref.cut(model, batch(size), stage, sample, number))), size),
    )
    return torch.from_numpy(maps)


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("method", "theirs"), [("gradcam", "GradCAM"), ("xgradcam", "XGradCAM"), ("layercam", "LayerCAM")]
)
def test_torchcam_agrees(method: str, theirs: str, size: tuple[int, ...], stage: int, target: int | Tensor) -> None:
    model, images = curved(size, inplace=False), batch(size)
    ours = explain(model, images, method, layers=[f"stages.{stage}"], target=target)
    assert _equal(ours, _torchcam(theirs, model, images, stage, target))


def test_a_layer_that_the_next_one_overwrites() -> None:
    """Ours is as of a network that does not work in place; torch-cam multiplies by what is left, MONAI gives up."""
    size = SIZES[0]
    clean, overwritten, images = curved(size, inplace=False), curved(size), batch(size)
    for method, theirs in [("gradcam", "GradCAM"), ("xgradcam", "XGradCAM")]:
        ours = explain(overwritten, images, method, layers=["stages.0"], target=1)
        assert torch.equal(ours, explain(clean, images, method, layers=["stages.0"], target=1))
        assert not _equal(ours, _torchcam(theirs, overwritten, images, 0, 1))
    with pytest.raises(RuntimeError, match="inplace"):
        _monai("GradCAM", overwritten, images, 0, 1)


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_torchcams_scorecam_agrees_where_a_cell_is_a_pixel(size: tuple[int, ...], target: int | Tensor) -> None:
    model, images = curved(size, inplace=False), batch(size)
    ours = explain(model, images, "scorecam", layers=["stages.0"], target=target)
    assert _equal(ours, _torchcam("ScoreCAM", model, images, 0, target, input_shape=(2, *size)))


def test_torchcams_scorecam_brings_channels_to_0_and_1_before_they_are_upsampled() -> None:
    """The paper, and we, afterwards (eq. 2 is of the upsampled channel). And a silent channel has a say there."""
    size = SIZES[0]
    model, images = curved(size, inplace=False), batch(size)
    for stage in (1, 2):
        ours = explain(model, images, "scorecam", layers=[f"stages.{stage}"], target=1)  # see test_oracles
        assert not _equal(ours, _torchcam("ScoreCAM", model, images, stage, 1, input_shape=(2, *size)))


@pytest.mark.parametrize("size", SIZES)
def test_torchcams_gradcam_plus_plus_never_divides_by_its_denominator(size: tuple[int, ...]) -> None:
    """It divides a copy: its weights are ``Σ g² ReLU(g)``."""
    model, images = curved(size, inplace=False), batch(size)

    def undivided(a: ref.Array, g: ref.Array) -> ref.Array:
        weights = [(g[k] ** 2 * np.maximum(g[k], 0)).sum() for k in range(len(a))]
        return np.tensordot(weights, a, 1)

    for stage in STAGES:
        theirs = _torchcam("GradCAMpp", model, images, stage, torch.tensor([1, 2, 0]))
        ours = explain(model, images, "gradcam++", layers=[f"stages.{stage}"], target=torch.tensor([1, 2, 0]))
        assert _equal(ours, _reference(ref.gradcam_plus_plus, model, stage, [1, 2, 0]))
        assert _equal(theirs, _reference(undivided, model, stage, [1, 2, 0]))
        assert not _equal(ours / ours.amax(), theirs / theirs.amax())


def test_torchcams_layercam_squeezes_the_deepest_layer_too() -> None:
    """And a map that it was not asked to bring to 0 and 1 it squeezes as it is. The paper: shallow layers alone."""
    size = (9, 12)
    model, images = curved(size, inplace=False), batch(size)
    with torchcam.methods.LayerCAM(model, ["stages.0", "stages.2"]) as extractor:
        maps = extractor(1, model(images))
        theirs = extractor.fuse_cams(maps, size)[:, None]
    ours = explain(model, images, "layercam", layers=["stages.0", "stages.2"], target=1)
    axes = (2, 3)
    assert not _equal(ours / ours.amax(axes, keepdim=True), theirs / theirs.amax(axes, keepdim=True))


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", SIZES)
def test_captums_gradcam_agrees(size: tuple[int, ...], stage: int, target: int | Tensor) -> None:
    model, images = curved(size, inplace=False), batch(size)
    layer = model.get_submodule(f"stages.{stage}")
    theirs = captum.attr.LayerGradCam(model, layer).attribute(images, target)
    ours = explain(model, images, "gradcam", layers=[f"stages.{stage}"], target=target, relu=False)
    assert _equal(ours, _upsampled(theirs, size))
    rectified = captum.attr.LayerGradCam(model, layer).attribute(images, target, relu_attributions=True)
    ours = explain(model, images, "gradcam", layers=[f"stages.{stage}"], target=target)
    assert _equal(ours, _upsampled(rectified, size))


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", SIZES)
def test_captums_gradient_times_activation_is_hirescam(size: tuple[int, ...], stage: int, target: int | Tensor) -> None:
    model, images = curved(size, inplace=False), batch(size)
    layer = model.get_submodule(f"stages.{stage}")
    theirs = captum.attr.LayerGradientXActivation(model, layer).attribute(images, target).sum(1)
    ours = explain(model, images, "hirescam", layers=[f"stages.{stage}"], target=target)
    assert _equal(ours, _upsampled(theirs, size))


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_captums_ablation_of_channels_gives_ablationcam(size: tuple[int, ...], target: int | Tensor) -> None:
    model, images = curved(size, inplace=False), batch(size)
    activations = model.before(images, 1).detach()
    channels = torch.arange(4).view(1, 4, *(1,) * len(size)).expand(1, *activations.shape[1:])
    ablation = captum.attr.LayerFeatureAblation(model, model.get_submodule("stages.1"))
    numbers = torch.as_tensor(target).expand(3)
    drops = ablation.attribute(images, target=target, layer_mask=channels).flatten(2)[..., 0]
    scores = model(images).detach().gather(1, numbers[:, None])
    theirs = torch.einsum("bc,bc...->b...", drops / scores.abs(), activations).relu()
    ours = explain(model, images, "ablationcam", layers=["stages.1"], target=target)
    assert _equal(ours, _upsampled(theirs, size))


@pytest.mark.parametrize("target", TARGETS, ids=KINDS)
@pytest.mark.parametrize(
    ("size", "patch", "step"),
    [(SIZES[0], (4, 3), (3, 2)), (SIZES[0], (2, 5), (2, 5)), (SIZES[1], (3, 4, 3), (2, 3, 3))],
)
def test_captums_occlusion_agrees(
    size: tuple[int, ...], patch: tuple[int, ...], step: tuple[int, ...], target: int | Tensor
) -> None:
    model, images = curved(size, inplace=False), batch(size)
    occlusion = captum.attr.Occlusion(model)
    theirs = occlusion.attribute(images, (2, *patch), strides=(2, *step), target=target, baselines=0.3)
    ours = explain(model, images, "occlusion", patch=patch, step=step, fill=0.3, target=target)
    assert _equal(ours, theirs[:, :1])
    assert torch.equal(theirs[:, 0], theirs[:, 1])  # both channels are hidden together


def _monai(kind: str, model: nn.Module, images: Tensor, stage: int, target: int | None) -> Tensor:
    own = copy.deepcopy(model)  # its hooks stay
    extractor = getattr(monai.visualize, kind)(nn_module=own, target_layers=f"stages.{stage}")
    return _upsampled(extractor.compute_map(images, class_idx=target), tuple(images.shape[2:]))


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_monais_gradcam_agrees_for_a_class_given_as_a_number(size: tuple[int, ...], stage: int) -> None:
    model, images = curved(size, inplace=False), batch(size)
    ours = explain(model, images, "gradcam", layers=[f"stages.{stage}"], target=1)
    assert _equal(ours, _monai("GradCAM", model, images, stage, 1))


@pytest.mark.parametrize("size", SIZES)
def test_monais_default_class_mixes_the_classes_of_a_batch(size: tuple[int, ...]) -> None:
    """Each sample gets the sum over the winners of all samples. Ours is given one class a sample."""
    model, images = curved(size, inplace=False), batch(size)
    winners = model(images).argmax(1)
    assert len(winners.unique()) > 1
    ours = explain(model, images, "gradcam", layers=["stages.2"], target=winners)
    assert _equal(ours, _reference(ref.gradcam, model, 2, winners.tolist()))
    theirs = _monai("GradCAM", model, images, 2, None)
    assert not _equal(ours, theirs)

    alone = torch.cat([_monai("GradCAM", model, image[None], 2, None) for image in images])
    assert _equal(ours, alone)


def test_monais_gradcam_plus_plus_is_another_formula() -> None:
    """``Σ A g³`` in place of ``g³ Σ A``, and exp(score) within: 40 more on every logit, the same map for a reader."""
    size = SIZES[0]
    model, images = curved(size, inplace=False), batch(size, 1)
    ours = explain(model, images, "gradcam++", layers=["stages.1"], target=1)
    theirs = _monai("GradCAMpp", model, images, 1, 1)
    assert not _equal(ours / ours.amax(), theirs / theirs.amax())
    last = model.get_submodule("head.3")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(40)
    again = explain(model, images, "gradcam++", layers=["stages.1"], target=1)
    assert _equal(again, ours)
    assert _monai("GradCAMpp", model, images, 1, 1).amax() > 1e15 * theirs.amax()
