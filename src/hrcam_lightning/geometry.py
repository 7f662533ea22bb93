"""Where the cells of a feature level lie in the image, and resampling that respects it.

A cell ``i`` of a level looks at the image around pixel ``offset + stride · i``. Bilinear upsampling with
half-pixel centres assumes an offset of ``(stride − 1) / 2``, while the usual 3×3 convolution of stride 2 and
padding 1 has an offset of 0: at a stride of 32 the two are 15.5 pixels apart. Both are here, by name:

* ``receptive_field``: linear interpolation between the cells where they really lie.
* ``half_pixel``: ``F.interpolate(..., align_corners=False)``, as in the published methods.

Either way resampling is one matrix an axis, whose rows sum to 1. Its transpose gives the mean of a resampled map
without resampling it, which is what keeps mean pooling cheap and exactly additive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Resampling = Literal["receptive_field", "half_pixel"]


@dataclass(frozen=True)
class Level:
    """One level of a backbone's pyramid.

    Attributes:
        channels: Number of feature channels.
        stride: Pixels from one cell to the next, one number an axis.
        offset: Pixel on which the receptive field of cell 0 is centred, one number an axis.
    """

    channels: int
    stride: tuple[float, ...]
    offset: tuple[float, ...]


def axis_weights(
    cells: int, pixels: int, stride: float, offset: float, resampling: Resampling
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Weights that resample one axis of a level to the image.

    Args:
        cells: Number of cells along the axis.
        pixels: Number of pixels along the axis.
        stride: Pixels from one cell to the next.
        offset: Pixel that cell 0 looks at.
        resampling: Where the cells are taken to lie. ``half_pixel`` ignores stride and offset and spreads the
            cells evenly, as torch does.

    Returns:
        Array (pixels, cells). Rows sum to 1; beyond the outermost cells the border value is kept.
    """
    return _axis_weights(cells, pixels, stride, offset, resampling).copy()


# The cache holds numpy arrays, not tensors: a tensor first made under inference mode could not be used in training.
@lru_cache(maxsize=512)
def _axis_weights(
    cells: int, pixels: int, stride: float, offset: float, resampling: Resampling
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    pixel = np.arange(pixels, dtype=np.float64)
    position = (pixel + 0.5) * cells / pixels - 0.5 if resampling == "half_pixel" else (pixel - offset) / stride
    position = np.clip(position, 0, cells - 1)
    lower = np.minimum(np.floor(position).astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    fraction = position - lower
    weights = np.zeros((pixels, cells))
    rows = np.arange(pixels)
    weights[rows, lower] += 1 - fraction
    weights[rows, upper] += fraction
    return weights.astype(np.float32)


def _level_weights(
    cells: Sequence[int], level: Level, size: Sequence[int], resampling: Resampling, like: Tensor
) -> list[Tensor]:
    return [
        torch.from_numpy(_axis_weights(n, pixels, stride, offset, resampling)).to(like)
        for n, pixels, stride, offset in zip(cells, size, level.stride, level.offset, strict=True)
    ]


def resample(maps: Tensor, level: Level, size: Sequence[int], resampling: Resampling) -> Tensor:
    """Resample maps on the cells of a level to the pixels of the image.

    Args:
        maps: (B, K, *S_level).
        level: Where the cells lie.
        size: Image size ``S``.
        resampling: Convention, see the module.

    Returns:
        (B, K, *S), linear in `maps`.
    """
    weights = _level_weights(maps.shape[2:], level, size, resampling, maps)
    # From the last axis on: the early products are small, and the first two need no copy.
    for axis in reversed(range(len(weights))):
        weight = weights[axis]
        if level.stride[axis] == 1 and level.offset[axis] == 0 and maps.shape[2 + axis] == size[axis]:
            continue  # the cells are the pixels; the product would cost more than all coarser levels together
        if axis == len(weights) - 1:
            maps = maps @ weight.T
        else:
            maps = (weight @ maps.transpose(2 + axis, -2)).transpose(2 + axis, -2)
    return maps


def resampled_mean(maps: Tensor, level: Level, size: Sequence[int], resampling: Resampling) -> Tensor:
    """Mean over the image of the resampled maps, without resampling them.

    The mean of ``W x`` is ``(Wᵀ 1 / n) · x``: a weighted sum over the cells, the weights being separable.

    Args:
        maps: (B, K, *S_level).
        level: Where the cells lie.
        size: Image size ``S``.
        resampling: Convention, see the module.

    Returns:
        (B, K), equal to ``resample(...).mean(spatial)`` up to rounding.
    """
    for weight in reversed(_level_weights(maps.shape[2:], level, size, resampling, maps)):
        maps = maps @ weight.mean(0)
    return maps
