"""From the grid of a file to the grid of the network, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import voxel_size

Affine = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Positions = np.ndarray[tuple[int, ...], np.dtype[np.floating]]

Values = np.ndarray[tuple[int, ...], np.dtype[Any]]

HALF = 0.5 - 1e-6
TINY = 1e-6
SAME = 1e-3  # spacings that differ by less than this share are taken as equal: resampling would only blur


@dataclass  # not frozen: Lightning walks through what a batch holds
class Grid:
    """Where the voxels of an image lie.

    Attributes:
        shape: (*S).
        affine: Voxel to millimetres, (4, 4); None for a picture, which has no place in space.
    """

    shape: tuple[int, ...]
    affine: Affine | None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Millimetres between voxels, one an axis; None for a picture."""
        if self.affine is None:
            return None
        return tuple(float(mm) for mm in voxel_size(self.affine)[: len(self.shape)])


@dataclass(frozen=True)
class Framing:
    """How images are brought to the grid of the network. Everything left out stays as it is in the file.

    The axes are turned first, then the spacing is changed, then the shape.

    Attributes:
        orientation: Where the axes point to, such as ``RAS``: the stored axes are swapped and flipped to lie nearest to
            these; an oblique volume stays oblique. Volumes only.
        spacing: Millimetres between voxels, one an axis; the field of view keeps its centre.
        shape: Voxels an axis.
        fit: How the shape is reached: ``crop`` cuts at both ends or fills up, by whole voxels; ``stretch`` resamples
            the whole field of view, each axis alone.

    Raises:
        InputError: If a setting is out of range.
    """

    orientation: str | None = None
    spacing: list[float] | None = None
    shape: list[int] | None = None
    fit: Literal["crop", "stretch"] = "crop"

    def __post_init__(self) -> None:
        if self.orientation is not None and not _is_orientation(self.orientation):
            raise InputError(
                f"framing.orientation is '{self.orientation}', but must name one end of each axis, such as RAS or LPS"
            )
        if self.spacing is not None and not (np.isfinite(self.spacing).all() and min(self.spacing, default=0) > 0):
            raise InputError(f"framing.spacing is {self.spacing}, but millimetres above 0 are needed, one an axis")
        if self.shape is not None and min(self.shape, default=0) < 1:
            raise InputError(f"framing.shape is {self.shape}, but voxels above 0 are needed, one an axis")
        if self.fit == "stretch" and self.shape is None:
            raise InputError("framing.fit is 'stretch', which needs framing.shape")

    def of(self, stored: Grid) -> Frame:
        """The frame of an image on such a grid.

        Raises:
            InputError: If the grid cannot be brought there: other axes, or a picture without a place in space.
        """
        dims = len(stored.shape)
        for name, values in (("spacing", self.spacing), ("shape", self.shape)):
            if values is not None and len(values) != dims:
                raise InputError(f"framing.{name} is {values}, but the image has {dims} axes")
        axes = tuple(range(dims))
        starts: Positions = np.zeros(dims)
        steps: Positions = np.ones(dims)
        if self.orientation is not None:
            if dims != 3 or stored.affine is None:
                raise InputError("framing.orientation needs volumes with an affine; leave it out for pictures")
            turn = ornt_transform(io_orientation(stored.affine), axcodes2ornt(tuple(self.orientation)))  # type: ignore[no-untyped-call]
            axes = tuple(int(axis) for axis in np.argsort(turn[:, 0]))
            steps = turn[list(axes), 1].astype(np.float64)
            starts = np.where(steps < 0, np.array(stored.shape)[list(axes)] - 1.0, 0.0)
        sizes = np.array(stored.shape)[list(axes)]
        if self.spacing is not None:
            if stored.spacing is None:
                raise InputError("framing.spacing needs images with an affine; a picture has no millimetres")
            ratio = np.array(self.spacing) / np.array(stored.spacing)[list(axes)]
            wanted = np.where(abs(ratio - 1) < SAME, sizes, np.maximum(1, np.rint(sizes / ratio))).astype(int)
            ratio = np.where(abs(ratio - 1) < SAME, 1.0, ratio)
            starts, steps, sizes = _centred(starts, steps, sizes, wanted, ratio)
        if self.shape is not None:
            wanted = np.array(self.shape)
            if self.fit == "stretch":
                starts, steps, sizes = _centred(starts, steps, sizes, wanted, sizes / wanted)
            else:
                starts, sizes = starts + steps * ((sizes - wanted) // 2), wanted
        shape = tuple(int(size) for size in sizes)
        affine = None if stored.affine is None else stored.affine @ _matrix(axes, starts, steps)
        return Frame(stored, Grid(shape, affine), axes, tuple(starts.tolist()), tuple(steps.tolist()))


@dataclass  # not frozen: Lightning walks through what a batch holds
class Frame:
    """The way from one file's grid to the network's, and back.

    Voxel n along axis a of the network's grid lies at ``starts[a] + steps[a] * n`` along axis ``axes[a]`` of the file.

    Attributes:
        stored: Grid of the file.
        grid: Grid of the network.
        axes: Axis of the file for each axis of the network.
        starts: Place of the first voxel, in voxels of the file.
        steps: Way from one voxel to the next, in voxels of the file; below 0 if the axis is flipped.
    """

    stored: Grid
    grid: Grid
    axes: tuple[int, ...]
    starts: tuple[float, ...]
    steps: tuple[float, ...]

    @property
    def is_identity(self) -> bool:
        """Whether both grids are the same."""
        moved = any(self.starts) or any(step != 1 for step in self.steps)
        return not moved and self.axes == tuple(range(len(self.axes))) and self.stored.shape == self.grid.shape

    def image(self, voxels: Floats) -> Floats:
        """Bring an image (C, *S) to the network's grid: linear, or averaged where the grid is coarser.

        Voxels that the file does not hold get the lowest value of their channel.
        """
        turned = voxels.transpose(0, *(axis + 1 for axis in self.axes))
        lowest = voxels.reshape(len(voxels), -1).min(1)
        for axis, (places, step) in enumerate(zip(self._places(), self.steps, strict=True)):
            turned = _sample(turned, axis + 1, places, step, lowest)
        return np.ascontiguousarray(turned, dtype=np.float32)

    def mask(self, inside: Bools) -> Bools:
        """Bring a mask (*S) to the network's grid: what is inside by half or more.

        Of a part too small for that, the voxel that holds most of it stays: no lesion vanishes but by a crop.
        """
        turned = inside.transpose(self.axes)
        places = self._places()
        if all(_whole(some, step) for some, step in zip(places, self.steps, strict=True)):
            return np.ascontiguousarray(self._share(turned, places))
        found = np.asarray(self._share(turned, places) >= HALF)
        parts, _ = ndimage.label(turned)
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            # Only the voxels about the part: volumes may hold hundreds of parts.
            rows = [
                np.flatnonzero((some > span.start - reach) & (some < span.stop - 1 + reach))
                for some, span, reach in zip(places, box, self._reaches, strict=True)
            ]
            if not all(len(some) for some in rows):
                continue
            wide = tuple(
                slice(max(0, span.start - margin), span.stop + margin)
                for span, margin in zip(box, (math.ceil(reach) + 1 for reach in self._reaches), strict=True)
            )
            near = [some[row] - span.start for some, row, span in zip(places, rows, wide, strict=True)]
            held = self._share(parts[wide] == number, near)
            if 0 < held.max() < HALF:
                best = np.unravel_index(int(held.argmax()), held.shape)
                found[tuple(row[n] for row, n in zip(rows, best, strict=True))] = True
        return found

    def back(self, maps: Floats) -> Floats:
        """Bring maps (K, *S) of the network's grid back to the file's; NaN where the network saw nothing."""
        nothing = np.full(len(maps), np.nan, dtype=np.float32)
        for axis, (start, step) in enumerate(zip(self.starts, self.steps, strict=True)):
            places = (np.arange(self.stored.shape[self.axes[axis]]) - start) / step
            maps = _sample(maps, axis + 1, places, 1 / step, nothing)
        turned = maps.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.axes)))
        return np.ascontiguousarray(turned, dtype=np.float32)

    def _places(self) -> list[Positions]:
        counts = zip(self.starts, self.steps, self.grid.shape, strict=True)
        return [start + step * np.arange(count) for start, step, count in counts]

    @property
    def _reaches(self) -> list[float]:
        return [_width(step) for step in self.steps]

    def _share(self, inside: Bools, places: list[Positions]) -> Floats | Bools:
        """How much of each place is inside; yes or no where the places are voxels."""
        exact = all(_whole(some, step) for some, step in zip(places, self.steps, strict=True))
        share = inside[None] if exact else inside[None].astype(np.float32)
        for axis, (some, step) in enumerate(zip(places, self.steps, strict=True)):
            share = _sample(share, axis + 1, some, step, np.zeros(1, share.dtype))
        return np.asarray(share[0])


def _centred(
    starts: Positions,
    steps: Positions,
    sizes: np.ndarray[tuple[int], np.dtype[np.int_]],
    wanted: np.ndarray[tuple[int], np.dtype[np.int_]],
    ratio: Positions,
) -> tuple[Positions, Positions, np.ndarray[tuple[int], np.dtype[np.int_]]]:
    """Take `wanted` voxels that are `ratio` times as far apart, about the same centre."""
    first = (sizes - 1) / 2 - ratio * (wanted - 1) / 2
    return starts + steps * first, steps * ratio, wanted


def _matrix(axes: tuple[int, ...], starts: Positions, steps: Positions) -> Affine:
    """Network voxel to stored voxel, (4, 4); an axis that a 2D image lacks stays as it is."""
    matrix = np.eye(4)
    matrix[: len(axes), : len(axes)] = 0
    for own, (axis, start, step) in enumerate(zip(axes, starts, steps, strict=True)):
        matrix[axis, own], matrix[axis, 3] = step, start
    return matrix


def _is_orientation(code: str) -> bool:
    return len(code) == 3 and all(len(set(code) & set(pair)) == 1 for pair in ("LR", "PA", "IS"))


def _whole(places: Positions, step: float) -> bool:
    return abs(step) == 1 and bool((abs(places - np.rint(places)) < TINY).all())


def _width(step: float) -> float:
    """Half the foot of the triangle that is laid over the voxels: 1 is linear, more averages."""
    return max(1.0, abs(step))


def _sample(values: Values, axis: int, places: Positions, step: float, outside: Values) -> Values:
    """Values at places along an axis; `outside`, one a channel, where there are none."""
    count = values.shape[axis]
    if _whole(places, step):
        sampled = values.take(np.clip(np.rint(places).astype(int), 0, count - 1), axis)
    else:
        weights = _weights(places, count, _width(step))
        sampled = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
    off = (places < -0.5 - TINY) | (places > count - 0.5 + TINY)
    if off.any():
        sampled[(slice(None),) * axis + (off,)] = outside.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(sampled)


def _weights(places: Positions, count: int, width: float) -> Floats:
    near = np.clip(places, 0, count - 1)  # the outer half of the outer voxels has their value
    weights = np.maximum(0, 1 - abs(near[:, None] - np.arange(count)) / width)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)
