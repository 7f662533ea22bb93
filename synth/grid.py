"""Where the voxels lie, in mm from the middle of the field."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A field of ``shape`` voxels of ``spacing_mm``. Axes run right, forward and up (RAS)."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @cached_property
    def spacing(self) -> Array64:
        """Voxel size ``(D,)`` in mm."""
        return np.array(self.spacing_mm)

    @cached_property
    def field_mm(self) -> Array64:
        """Extent ``(D,)`` of the field in mm, voxel borders included."""
        return np.array(self.shape) * self.spacing

    @cached_property
    def middle(self) -> Array64:
        """Middle of the field ``(D,)`` in voxels."""
        return (np.array(self.shape) - 1) / 2

    @cached_property
    def axes(self) -> tuple[Array64, ...]:
        """Coordinates of the voxel centres along each axis, in mm from the middle of the field."""
        places = (np.arange(n, dtype=np.float64) - (n - 1) / 2 for n in self.shape)
        return tuple(place * step for place, step in zip(places, self.spacing_mm, strict=True))

    @cached_property
    def affine(self) -> Array64:
        """Voxels to mm ``(4, 4)``; a 2D field is one slice of 1 mm at height 0."""
        affine = np.eye(4)
        for axis, coordinates in enumerate(self.axes):
            affine[axis, axis] = self.spacing_mm[axis]
            affine[axis, 3] = coordinates[0]
        return affine

    def to_mm(self, voxel: Array64) -> Array64:
        """Return the place ``(D,)`` in mm of a place in voxels."""
        return (voxel - self.middle) * self.spacing

    def project(self, direction: Array64, origin_mm: Array64) -> Array32:
        """Return how far each voxel lies along a direction ``(D,)`` from an origin ``(D,)``: ``(*S)``."""
        total = np.zeros((1,) * len(self.shape), np.float32)
        for axis, coordinates in enumerate(self.axes):
            column = (direction[axis] * (coordinates - origin_mm[axis])).astype(np.float32)
            total = total + column.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total
