"""The maps of several layers to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Fusion = Literal["max", "mean", "sum", "product"]


def _peak(maps: Tensor) -> Tensor:
    """Largest magnitude of each map, (B, T, 1...)."""
    return maps.abs().amax(tuple(range(2, maps.ndim)), keepdim=True)


def _ratio(values: Tensor, by: Tensor) -> Tensor:
    return torch.where(by != 0, values / torch.where(by != 0, by, 1), 0)  # by is not negative, and NaN stays NaN


def unit(maps: Tensor) -> Tensor:
    """Each map over its own largest magnitude: the sign stays, a flat zero map stays zero."""
    return _ratio(maps, _peak(maps))


def unit_range(maps: Tensor) -> Tensor:
    """Each map from 0 at its lowest to 1 at its highest value; a flat one is 0."""
    axes = tuple(range(2, maps.ndim))
    low = maps.amin(axes, keepdim=True)
    return _ratio(maps - low, maps.amax(axes, keepdim=True) - low)


def fuse(maps: Sequence[Tensor], rule: Fusion) -> Tensor:
    """Fuse maps (B, T, *S) at image resolution, the last of them the deepest.

    Layers differ in scale, so that each map enters over its own peak; the result is brought to the deepest map's peak,
    and so keeps the units of the score: an image that says little has a weak map.

    Args:
        maps: One a layer; a single one is returned as it is.
        rule: ``mean`` is pytorch-grad-cam's, ``max`` LayerCAM's and Zoom-CAM's, ``product`` RefineCAM's.
    """
    if len(maps) == 1:
        return maps[0]
    return at_peak_of(combine([unit(one) for one in maps], rule), maps[-1])


def combine(parts: Sequence[Tensor], rule: Fusion) -> Tensor:
    """Maps of one scale to one. The product is of what speaks for the class: twice against would else speak for it."""
    stacked = torch.stack(list(parts))
    return {
        "max": lambda: stacked.amax(0),
        "mean": lambda: stacked.mean(0),
        "sum": lambda: stacked.sum(0),
        "product": lambda: stacked.relu().prod(0),
    }[rule]()


def at_peak_of(maps: Tensor, other: Tensor) -> Tensor:
    """Scale each map so that its peak is that of another."""
    return unit(maps) * _peak(other)
