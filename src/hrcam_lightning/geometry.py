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

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Resampling = Literal["receptive_field", "half_pixel"]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


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


def image_grid(dims: int, channels: int = 0) -> Level:
    """The level whose cells are the pixels of the image."""
    return Level(channels, stride=(1.0,) * dims, offset=(0.0,) * dims)


def voxel_size(affine: Floats) -> Floats:
    """Millimetres between voxels along each of the three axes of a file, from its 4×4 affine."""
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(0)))


def axis_weights(
    cells: int,
    pixels: int,
    stride: float,
    offset: float,
    resampling: Resampling,
    onto: tuple[float, float] = (1.0, 0.0),
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Weights that resample one axis of a level to the image, or to another level.

    Args:
        cells: Number of cells along the axis.
        pixels: Number of pixels, or of the other level's cells, along the axis.
        stride: Pixels from one cell to the next.
        offset: Pixel that cell 0 looks at.
        resampling: Where the cells are taken to lie. ``half_pixel`` ignores strides and offsets and spreads the
            cells evenly, as torch does.
        onto: Stride and offset of what is resampled to; those of the image if not given.

    Returns:
        Array (pixels, cells). Rows sum to 1; beyond the outermost cells the border value is kept.
    """
    return _axis_weights(cells, pixels, stride, offset, resampling, onto).copy()


# The cache holds numpy arrays, not tensors: a tensor first made under inference mode could not be used in training.
@lru_cache(maxsize=512)
def _axis_weights(
    cells: int, pixels: int, stride: float, offset: float, resampling: Resampling, onto: tuple[float, float]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    pixel = np.arange(pixels, dtype=np.float64)
    lower, upper, fraction = _neighbours(pixel, cells, pixels, stride, offset, resampling, onto)
    weights = np.zeros((pixels, cells))
    rows = np.arange(pixels)
    weights[rows, lower] += 1 - fraction
    weights[rows, upper] += fraction
    return weights.astype(np.float32)


def _neighbours(
    pixel: Floats,
    cells: int,
    pixels: int,
    stride: float,
    offset: float,
    resampling: Resampling,
    onto: tuple[float, float] = (1.0, 0.0),
) -> tuple[Ints, Ints, Floats]:
    """For pixels of an axis the two cells that they lie between, and how far they are from the first to the second."""
    if resampling == "half_pixel":
        position = (pixel + 0.5) * cells / pixels - 0.5
    else:
        position = (onto[1] + onto[0] * pixel - offset) / stride
    position = np.clip(position, 0, cells - 1)
    lower = np.minimum(np.floor(position).astype(np.int64), max(cells - 2, 0))
    return lower, np.minimum(lower + 1, cells - 1), position - lower


def resample(
    maps: Tensor, level: Level, size: Sequence[int], resampling: Resampling, onto: Level | None = None
) -> Tensor:
    """Resample maps on the cells of a level to the pixels of the image, or to the cells of another level.

    Args:
        maps: (B, K, *S_level).
        level: Where the cells lie.
        size: Size ``S`` of the image, or of the other level.
        resampling: Convention, see the module.
        onto: The other level; the image if not given.

    Returns:
        (B, K, *S), linear in `maps`.
    """
    target = image_grid(maps.ndim - 2) if onto is None else onto
    if not (maps.requires_grad and torch.is_grad_enabled()):
        found = _interpolated(maps, level, size, resampling, target)
        if found is not None:
            return found
    # As products with matrices: the gradient of torch's interpolation is summed in any order on a GPU. From the last
    # axis on: the early products are small, and the first two need no copy.
    for axis in reversed(range(maps.ndim - 2)):
        cells, pixels = maps.shape[2 + axis], size[axis]
        here, there = (level.stride[axis], level.offset[axis]), (target.stride[axis], target.offset[axis])
        if cells == pixels and (here == there or resampling == "half_pixel"):
            continue  # the cells are the pixels; the product would cost more than all coarser levels together
        weight = torch.from_numpy(_axis_weights(cells, pixels, *here, resampling, there)).to(maps)
        if axis == maps.ndim - 3:
            maps = maps @ weight.T
        else:
            maps = (weight @ maps.transpose(2 + axis, -2)).transpose(2 + axis, -2)
    return maps


def _interpolated(
    maps: Tensor, level: Level, size: Sequence[int], resampling: Resampling, target: Level
) -> Tensor | None:
    """What `resample` gives, by torch's own interpolation: a quarter of the time, where no gradient is asked for.

    It knows two places of the cells: spread evenly over the image, and at every r-th pixel from the first on. The
    latter becomes any whole number of pixels by repeating border cells and cutting. None for what is left, such as
    offsets of half a pixel.
    """
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}.get(maps.ndim - 2)
    if mode is None:
        return None
    if resampling == "half_pixel":
        same = maps.shape[2:] == tuple(size)
        return maps if same else functional.interpolate(maps, tuple(size), mode=mode, align_corners=False)
    padding: list[int] = []
    full, cut = [], []
    for axis, (cells, pixels) in enumerate(zip(maps.shape[2:], size, strict=True)):
        ratio = level.stride[axis] / target.stride[axis]
        first = (level.offset[axis] - target.offset[axis]) / target.stride[axis]
        if not (ratio.is_integer() and first.is_integer()):
            return None
        step, start = int(ratio), int(first)
        before = max(0, math.ceil(start / step))
        after = max(0, math.ceil((pixels - 1 - start) / step) - (cells - 1))
        padding = [before, after, *padding]  # torch wants the last axis first
        full.append((before + cells - 1 + after) * step + 1)
        cut.append(slice(before * step - start, before * step - start + pixels))
    if any(padding):
        maps = functional.pad(maps, padding, mode="replicate")
    if full != list(maps.shape[2:]):
        maps = functional.interpolate(maps, tuple(full), mode=mode, align_corners=True)
    return maps[(slice(None), slice(None), *cut)]


def sample(
    maps: Tensor,
    level: Level,
    pixels: Tensor,
    size: Sequence[int],
    resampling: Resampling,
    steps: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Read maps at some pixels of the image, without resampling them to all of it.

    Args:
        maps: (B, K, *S_level).
        level: Where the cells lie.
        pixels: (B, P, D) int64, for each image its own pixels by their D coordinates.
        size: Image size ``S``.
        resampling: Convention, see the module.
        steps: N times, cells along each axis by which further ones are read in place of each, the border ones repeated.

    Returns:
        (B, K, P), equal to ``resample`` there up to rounding; (B, K, N, P) if steps are given.
    """
    places = []
    for axis, cells in enumerate(maps.shape[2:]):
        pixel = pixels[..., axis].cpu().numpy().astype(np.float64)
        here = level.stride[axis], level.offset[axis]
        lower, _, fraction = _neighbours(pixel, cells, size[axis], *here, resampling)
        place = lower + fraction
        if steps:
            place = np.concatenate([place + step[axis] for step in steps], 1)  # beyond the border torch repeats it
        places.append(2 * place / max(cells - 1, 1) - 1)  # torch counts from -1 to 1, the last axis first
    grid = torch.from_numpy(np.stack(places[::-1], -1)).to(maps.device)
    inner = [1] * (maps.ndim - 3)
    kind = torch.promote_types(maps.dtype, torch.float32)
    found = functional.grid_sample(
        maps.to(kind), grid.view(len(maps), *inner, *grid.shape[1:]).to(kind), padding_mode="border", align_corners=True
    )
    found = found.flatten(2).to(maps.dtype)
    return found.view(*found.shape[:2], len(steps), -1) if steps else found


def resample_sum(
    maps: Sequence[Tensor], levels: Sequence[Level], size: Sequence[int], resampling: Resampling
) -> Tensor:
    """Sum of the maps of several levels at image resolution.

    Linear interpolation between knots is the same on any finer grid that holds these knots. Where the cells of a level
    lie on cells of the next finer one, it is therefore added there, and only the finest is brought to the image:
    about half the time of resampling each of five levels by itself.

    Args:
        maps: For each level (B, K, *S_level).
        levels: Where the cells lie, in any order.
        size: Image size ``S``.
        resampling: Convention, see the module.

    Returns:
        (B, K, *S), the sum of ``resample`` of each up to rounding.
    """
    coarse_first = sorted(zip(levels, maps, strict=True), key=lambda pair: math.prod(pair[0].stride), reverse=True)
    (level, carried), *finer = coarse_first
    total = None
    for onto, maps_there in finer:
        cells = maps_there.shape[2:]
        if resampling == "receptive_field" and _nested(level, carried.shape[2:], onto, cells):
            carried = maps_there + resample(carried, level, cells, resampling, onto)
        else:
            whole = resample(carried, level, size, resampling)
            total = whole if total is None else total + whole
            carried = maps_there
        level = onto
    whole = resample(carried, level, size, resampling)
    return whole if total is None else total + whole


def _nested(level: Level, cells: Sequence[int], finer: Level, finer_cells: Sequence[int]) -> bool:
    """Whether every cell of a level lies on a cell of a finer one."""
    for axis, number in enumerate(cells):
        ratio = level.stride[axis] / finer.stride[axis]
        first = (level.offset[axis] - finer.offset[axis]) / finer.stride[axis]
        last = first + ratio * (number - 1)
        if not (ratio.is_integer() and first.is_integer() and first >= 0 and last <= finer_cells[axis] - 1):
            return False
    return True


def resampled_mean(
    maps: Tensor, level: Level, size: Sequence[int], resampling: Resampling, steps: Sequence[int] | None = None
) -> Tensor:
    """Mean over the image of the resampled maps, without resampling them.

    The mean of ``W x`` is ``(Wᵀ 1 / n) · x``: a weighted sum over the cells, the weights being separable.

    Args:
        maps: (B, K, *S_level).
        level: Where the cells lie.
        size: Image size ``S``.
        resampling: Convention, see the module.
        steps: Cells along each axis by which further ones are read in place of each, the border ones repeated.

    Returns:
        (B, K), equal to ``resample(...).mean(spatial)`` up to rounding.
    """
    weights = []
    for axis, (cells, pixels) in enumerate(zip(maps.shape[2:], size, strict=True)):
        here = level.stride[axis], level.offset[axis]
        weight = _axis_weights(cells, pixels, *here, resampling, (1.0, 0.0)).mean(0)
        if steps and steps[axis]:
            read = np.clip(np.arange(cells) + steps[axis], 0, cells - 1)
            weight = np.bincount(read, weight, cells).astype(weight.dtype)
        weights.append(torch.from_numpy(weight).to(maps))
    channels_last = maps.movedim(1, -1)
    if maps.shape[1] > 1 and channels_last.is_contiguous():
        # One product over all cells: axis by axis it would copy, and take 5 to 20 times as long.
        whole = reduce(lambda outer, weight: torch.outer(outer, weight).flatten(), weights)
        return whole @ channels_last.flatten(1, -2)
    for weight in reversed(weights):
        maps = maps @ weight
    return maps
