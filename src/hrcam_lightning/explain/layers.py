"""Which layers of a network are explained, and where their cells lie in the image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from hrcam_lightning.backbones.tapped import TappedBackbone, check_layers
from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import Level, Resampling, image_grid
from hrcam_lightning.model import LocalizationModel

Layers = Sequence[str] | Literal["deepest", "pyramid"]
"""Names as ``named_modules`` has them, or the last layer at the coarsest, or at each, resolution."""


def choose_layers(
    model: nn.Module, images: Tensor, layers: Layers, resampling: Resampling | None
) -> tuple[dict[str, Level], Resampling]:
    """Layers by name, where their cells lie, and by which convention they are resampled.

    The levels of our own networks are known, and are resampled as the network does. Of other networks half-pixel
    centres are taken for granted, as all libraries do, unless receptive fields are asked for: these are measured.

    Args:
        model: Any network.
        images: (B, C, *S), of which the first is tried.
        layers: Which layers.
        resampling: Convention; the network's own if not given.

    Returns:
        The layers, in the order asked for, or fine to coarse where they are found here; and the convention.

    Raises:
        InputError: If a name is unknown, the network has no layer with places, or a layer cannot be measured.
    """
    own: dict[str, Level] = {}
    if isinstance(model, LocalizationModel):
        own, resampling = _own_levels(model, images), resampling or model.resampling
    if isinstance(layers, list | tuple):
        names = [str(name) for name in layers]  # a number is how nn.Sequential calls its parts
        check_layers(model, names)
    elif layers in ("deepest", "pyramid"):
        found = list(own) or _last_at_each_size(model, images)
        if not found:
            raise InputError("the network has no layer whose output has places: name the layers")
        names = found if layers == "pyramid" else found[-1:]
    else:
        raise InputError(f"layers is {layers!r}: give a list of names, 'deepest' or 'pyramid'")
    dims = images.ndim - 2
    if all(name in own for name in names):
        return {name: own[name] for name in names}, resampling or "half_pixel"
    if resampling == "receptive_field":
        measured = TappedBackbone(images.shape[1], dims, model, names)
        levels = dict(zip(measured.layers, measured.levels, strict=True))
        return {name: levels[name] for name in names}, resampling
    return dict.fromkeys(names, image_grid(dims)), "half_pixel"  # which looks at no stride or offset


def _run(model: nn.Module, images: Tensor) -> tuple[list[tuple[str, Tensor]], object]:
    """The tensors that modules return, in the order in which they finish, and what the network itself returns."""
    seen: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: seen.append((name, output)) if isinstance(output, Tensor) else None

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(hook(name)))
        return seen, model(images)


def _own_levels(model: LocalizationModel, images: Tensor) -> dict[str, Level]:
    """The modules whose outputs are the levels of our own network's backbone, fine to coarse."""
    seen, features = _run(model.backbone, images[:1])
    assert isinstance(features, list)
    names = [next((name for name, output in reversed(seen) if output is feature), None) for feature in features]
    return {f"backbone.{name}": level for name, level in zip(names, model.backbone.levels, strict=True) if name}


def _last_at_each_size(model: nn.Module, images: Tensor) -> list[str]:
    seen, _ = _run(model, images[:1])
    calls = Counter(name for name, _ in seen)  # one ReLU may serve many layers, and is none of them
    last = {
        tuple(output.shape[2:]): name
        for name, output in seen
        if calls[name] == 1
        and output.ndim == images.ndim
        and output.is_floating_point()
        and math.prod(output.shape[2:]) > 1
    }
    return [last[size] for size in sorted(last, key=math.prod, reverse=True)]
