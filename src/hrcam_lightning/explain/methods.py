"""The front door: one function for every explainer, for any network."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from hrcam_lightning.decoders.decoder import in_float32
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import cam, own
from hrcam_lightning.explain.fullgrad import fullgrad
from hrcam_lightning.explain.fusion import Fusion
from hrcam_lightning.explain.layers import Layers, choose_layers
from hrcam_lightning.explain.layerwise import eigen, layercam, layerwise, refinecam, zoomcam
from hrcam_lightning.explain.null import FLOORS, NULLS, with_random_weights
from hrcam_lightning.explain.perturb import ablationcam, occlusion, polycam, scorecam
from hrcam_lightning.explain.probe import Probe, undisturbed
from hrcam_lightning.explain.target import Score, Target, class_numbers
from hrcam_lightning.geometry import Resampling
from hrcam_lightning.model import LocalizationModel, LocalizationOutput

if TYPE_CHECKING:
    from collections.abc import Callable


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
_NO_GRADIENTS = ("eigencam", "scorecam", "ablationcam", "polycam", "occlusion")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_counts(value: object) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(part, int) and not isinstance(part, bool) for part in parts)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "relu": (lambda value: isinstance(value, bool), "true or false"),
    "fusion": (lambda value: value in get_args(Fusion), f"one of {', '.join(get_args(Fusion))}"),
    "gamma": (_is_number, "a number"),
    "fill": (_is_number, "a number"),
    "patch": (_is_counts, "pixels, one number or one an axis"),
    "step": (_is_counts, "pixels, one number or one an axis"),
    "seed": (lambda value: type(value) is int, "a whole number"),
}
"""What an option of a method may be."""


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
            `LocalizationTask` its network is explained, without averaging of views.
        images: (B, C, *S).
        method: One of `NAMES`: ``model`` is the network's own map, if it has one; ``random_weights`` asks another
            method (option ``of``) of a copy with random weights (option ``seed``). Or the dotted name of a function of
            yours, ``my_module.my_function``, which makes maps (B, K, *S) of all classes from network and images.
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
    check_options(method, options)
    _check(model, images, score, resampling, chunk)
    if isinstance(getattr(model, "network", None), LocalizationModel):
        model = model.network  # type: ignore[assignment]  # of a LocalizationTask, whose views are averaged
    if method == "random_weights":
        of, seed = options.pop("of", "gradcam"), options.pop("seed", 0)
        with torch.inference_mode(mode=False):  # parameters made under it could be given no gradient
            fresh = with_random_weights(model, seed)
        return explain(
            fresh, images, of, layers=layers, target=target, score=score, resampling=resampling, chunk=chunk, **options
        )
    device = images.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with undisturbed(model, images):
        images = images.detach().clone()  # what was made under inference mode can be given no gradient
        probe = Probe(model, images, {}, score, target, resampling or "half_pixel", chunk, autocast)
        if method in METHODS:
            return _ask(probe, method, layers, resampling, options)
        if layers is not None:
            raise InputError(f"{method} looks at no layer: leave layers out")
        with torch.no_grad():
            if method == "model":
                return _of_class(_own_map(model, images), target)
            classes = probe.logits(images[:1]).shape[1]  # one sample says how many there are
        if method not in NULLS:
            return _of_class(own.ask(own.find(method), model, images, classes, **options), target)
        with torch.no_grad():
            maps = NULLS[method](images).to(images.device)
            count = classes if class_numbers(target, len(images), classes) is None else 1
            return maps.expand(-1, count, *images.shape[2:]).clone()


def check_options(method: object, options: dict[str, Any]) -> None:
    """See that there is such a method, with such options.

    Raises:
        InputError: If not, naming what there is.
    """
    if not isinstance(method, str) or (method not in NAMES and not own.is_dotted(method)):
        near = difflib.get_close_matches(str(method), NAMES, n=3, cutoff=0.5) or list(NAMES)
        raise InputError(f"there is no explainer {method!r}; nearest are {', '.join(near)}")
    known = _options_of(method)
    if method == "random_weights":
        of = options.get("of", known["of"])
        check_options(of, {name: value for name, value in options.items() if name not in known})
    elif unknown := sorted(set(options) - set(known)):
        has = f"its options are {', '.join(known)}" if known else "it has none"
        raise InputError(f"{method} has no option {unknown[0]}: {has}")
    if method not in NAMES:  # its options are its own business
        return
    for name in sorted(set(options) & set(known) & set(_KINDS)):
        fits, kind = _KINDS[name]
        left_out = options[name] is None and known[name] is None
        if not left_out and not fits(options[name]):
            raise InputError(f"{method}: {name} is {options[name]!r}, but must be {kind}")


def _options_of(method: str) -> dict[str, Any]:
    """Options by name, with what they are if not given."""
    if method == "random_weights":
        return {"of": "gradcam", "seed": 0}
    if method in NAMES and method not in METHODS:
        return {}
    answer = METHODS[method] if method in METHODS else own.find(method)
    fixed = answer.keywords if isinstance(answer, partial) else {}
    parameters = inspect.signature(answer).parameters.values()
    return {part.name: part.default for part in parameters if part.kind is part.KEYWORD_ONLY and part.name not in fixed}


def _ask(
    probe: Probe, method: str, layers: Layers | None, resampling: Resampling | None, options: dict[str, Any]
) -> Tensor:
    model, images = probe.model, probe.images
    if method != "occlusion":
        _check_visible(model)
    if method not in _NO_GRADIENTS:
        _check_differentiable(model)
    if method in _NO_LAYERS:
        if layers is not None:
            raise InputError(f"{method} looks at no layer by itself: leave layers out")
    else:
        if layers is None:
            layers = "pyramid" if method in _PYRAMID else "deepest"
        chosen, convention = choose_layers(model, images, layers, resampling)
        probe = replace(probe, layers=chosen, resampling=convention)
    with in_float32(images):
        return METHODS[method](probe, **options).detach().float()


def _own_map(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    if not isinstance(output, LocalizationOutput):
        raise InputError("the network has no map of its own: 'model' is for networks of this package")
    return output.maps


def _of_class(maps: Tensor, target: Target) -> Tensor:
    """Of maps of all classes (B, K, *S) those of the `target`, (B, 1, *S); all of them if it is None."""
    classes = class_numbers(target, len(maps), maps.shape[1])
    if classes is None:
        return maps
    if maps.shape[1] == 1:
        sign = torch.where(classes == 1, 1.0, -1.0).to(maps)
        return maps * sign.view(-1, *(1,) * (maps.ndim - 1))
    return maps[torch.arange(len(maps)), classes.to(maps.device)][:, None]


def _check(model: nn.Module, images: Tensor, score: Score, resampling: Resampling | None, chunk: int) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"a network is needed, an nn.Module, but got a {type(model).__name__}")
    if not isinstance(images, Tensor):
        raise InputError(f"images are a {type(images).__name__}, but a tensor (batch, channel, axes...) is needed")
    if images.ndim not in (4, 5) or not images.is_floating_point() or not len(images):
        raise InputError(
            f"images are {tuple(images.shape)} {images.dtype}, but (batch, channel, axes...) are needed, 2D or 3D, "
            "of floating point"
        )
    if score not in get_args(Score):
        raise InputError(f"score is {score!r}, but is one of {', '.join(get_args(Score))}")
    if resampling not in (None, *get_args(Resampling)):
        raise InputError(f"resampling is {resampling!r}, but is one of {', '.join(get_args(Resampling))}")
    if type(chunk) is not int or chunk < 1:
        raise InputError(f"chunk is {chunk!r}, but must be a whole number, at least 1")


def _check_visible(model: nn.Module) -> None:
    """See that the layers of a network can be looked at."""
    for module in model.modules():
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise InputError("a network compiled by torch.compile hides its layers: give the module that was compiled")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript network hides its layers: give the module that it was made from")


def _check_differentiable(model: nn.Module) -> None:
    if any(part.is_inference() for part in (*model.parameters(), *model.buffers())):
        raise InputError(
            "the network was made under torch.inference_mode and can be given no gradients: make it outside"
        )
