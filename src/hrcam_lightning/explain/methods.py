"""The front door: one function for every explainer, for any network."""

from __future__ import annotations

import difflib
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import cam
from hrcam_lightning.explain.fullgrad import fullgrad
from hrcam_lightning.explain.layers import Layers, choose_layers
from hrcam_lightning.explain.layerwise import eigen, layercam, layerwise, refinecam, zoomcam
from hrcam_lightning.explain.null import FLOORS, NULLS, with_random_weights
from hrcam_lightning.explain.perturb import ablationcam, occlusion, polycam, scorecam
from hrcam_lightning.explain.probe import Probe, undisturbed
from hrcam_lightning.explain.target import Score, Target, class_numbers
from hrcam_lightning.model import LocalizationOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.geometry import Level, Resampling

_signed = partial(layerwise, rectified=False)
_rectified = partial(layerwise, rectified=True)

METHODS: dict[str, Callable[..., Tensor]] = {
    "cam": partial(_signed, rule=cam.cam),
    "gradcam": partial(_rectified, rule=cam.gradcam),
    "gradcam++": partial(_rectified, rule=cam.gradcam_plus_plus),
    "xgradcam": partial(_rectified, rule=cam.xgradcam),
    "respondcam": partial(_signed, rule=cam.respondcam),
    "hirescam": partial(_signed, rule=cam.hirescam),
    "elementwise": partial(_rectified, rule=cam.elementwise_gradcam),
    "layercam": layercam,
    "eigencam": eigen,
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "fullgrad": fullgrad,
    "polycam": polycam,
    "zoomcam": zoomcam,
    "refinecam": refinecam,
    "occlusion": occlusion,
}
"""Methods that look into the network, by name."""

NAMES = ("model", *METHODS, *FLOORS)
"""Everything that `explain` knows."""

_PYRAMID = ("polycam", "zoomcam", "refinecam")
_NO_LAYERS = ("fullgrad", "occlusion")


def explain(
    model: nn.Module,
    images: Tensor,
    method: str = "gradcam",
    *,
    layers: Layers | None = None,
    target: Target = None,
    score: Score = "logit",
    resampling: Resampling | None = None,
    chunk: int = 32,
    **options: Any,  # noqa: ANN401 - whatever the method has
) -> Tensor:
    """Say where a classifier sees a class.

    The network is read in evaluation mode and is afterwards as it was: modes, gradients, hooks and random state. It
    works inside of ``torch.no_grad`` and ``torch.inference_mode``.

    Args:
        model: Any network of images (B, C, *S) to logits (B, K), 2D or 3D, or to an object with ``logits``. Of a
            `LocalizationTask` it is ``task.network``.
        images: (B, C, *S).
        method: One of `NAMES`: ``model`` is the network's own map, if it has one; ``random_weights`` asks another
            method (option ``of``) of a copy with random weights (option ``seed``).
        layers: Names of layers, or ``deepest``, or ``pyramid``: the last one at each resolution. Poly-CAM, Zoom-CAM and
            RefineCAM take the pyramid, the others the deepest, if not given.
        target: A class, a class a sample (B,), or None for all classes. A single logit tells class 1 from class 0.
        score: What is explained: the class's ``logit``, its ``softmax`` or ``sigmoid`` probability, or the ``margin``
            of its logit over the highest other.
        resampling: Where the cells of a layer are taken to lie, see `hrcam_lightning.geometry`; as our own networks do,
            half pixels for others, if not given.
        chunk: Images in one pass, for methods that need many passes: bounds their memory.
        **options: Of the method, such as ``relu=False``, ``fusion="max"`` (several layers), ``gamma``, ``patch``.

    Returns:
        (B, K, *S) float32, or (B, 1, *S) if `target` is given, at image resolution and raw: no map is stretched to
        0..1, so that a weak answer has a weak map. Class 1 alone for a single logit and no `target`.

    Raises:
        InputError: If a layer, class, option or network is not what the method needs.
    """
    if method not in NAMES:
        near = difflib.get_close_matches(method, NAMES, n=3, cutoff=0.5) or list(NAMES)
        raise InputError(f"there is no explainer {method!r}; nearest are {', '.join(near)}")
    _check(model, images, score, chunk)
    if method == "random_weights":
        _check_options(method, options, ("of", "seed"), any_other=True)
        of, seed = options.pop("of", "gradcam"), options.pop("seed", 0)
        with torch.inference_mode(mode=False):  # parameters made under it could be given no gradient
            fresh = with_random_weights(model, seed)
        return explain(
            fresh, images, of, layers=layers, target=target, score=score, resampling=resampling, chunk=chunk, **options
        )
    with undisturbed(model, images):
        images = images.detach().clone()  # what was made under inference mode can be given no gradient
        if method in METHODS:
            return _ask(model, images, method, layers, target, score, resampling, chunk, options)
        _check_options(method, options, ())
        if layers is not None:
            raise InputError(f"{method} looks at no layer: leave layers out")
        with torch.no_grad():
            if method == "model":
                return _own_map(model, images, target)
            scores = Probe(model, images, {}, score, target, "half_pixel", chunk).scores(images)
            return NULLS[method](images).to(images.device).expand(-1, scores.shape[1], *images.shape[2:]).clone()


def _ask(
    model: nn.Module,
    images: Tensor,
    method: str,
    layers: Layers | None,
    target: Target,
    score: Score,
    resampling: Resampling | None,
    chunk: int,
    options: dict[str, Any],
) -> Tensor:
    answer = METHODS[method]
    known = inspect.signature(answer).parameters.values()
    fixed = answer.keywords if isinstance(answer, partial) else {}
    _check_options(method, options, [p.name for p in known if p.kind is p.KEYWORD_ONLY and p.name not in fixed])
    chosen: dict[str, Level] = {}
    if method not in _NO_LAYERS:
        layers = layers or ("pyramid" if method in _PYRAMID else "deepest")
        chosen, resampling = choose_layers(model, images, layers, resampling)
    elif layers is not None:
        raise InputError(f"{method} looks at no layer by itself: leave layers out")
    probe = Probe(model, images, chosen, score, target, resampling or "half_pixel", chunk)
    return answer(probe, **options).detach().float()


def _own_map(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    output = model(images)
    if not isinstance(output, LocalizationOutput):
        raise InputError("the network has no map of its own: 'model' is for networks of this package")
    maps = output.maps
    classes = class_numbers(target, len(maps), maps.shape[1])
    if classes is None:
        return maps
    if maps.shape[1] == 1:
        sign = torch.where(classes == 1, 1.0, -1.0).to(maps)
        return maps * sign.view(-1, *(1,) * (maps.ndim - 1))
    return maps[torch.arange(len(maps)), classes.to(maps.device)][:, None]


def _check(model: nn.Module, images: Tensor, score: Score, chunk: int) -> None:
    if hasattr(model, "_orig_mod"):
        raise InputError("a network compiled by torch.compile hides its layers: give the module that was compiled")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript network hides its layers: give the module that it was made from")
    if not isinstance(model, nn.Module):
        raise InputError(f"a network is needed, an nn.Module, but got a {type(model).__name__}")
    if images.ndim not in (4, 5) or not images.is_floating_point() or not len(images):
        raise InputError(
            f"images are {tuple(images.shape)} {images.dtype}, but (batch, channel, axes...) are needed, 2D or 3D, "
            "of floating point"
        )
    if score not in get_args(Score):
        raise InputError(f"score is {score!r}, but is one of {', '.join(get_args(Score))}")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}, but must be at least 1")


def _check_options(
    method: str, options: dict[str, Any], known: list[str] | tuple[str, ...], *, any_other: bool = False
) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown and not any_other:
        has = f"its options are {', '.join(known)}" if known else "it has none"
        raise InputError(f"{method} has no option {unknown[0]}: {has}")
