"""The shape of a lesion: an ellipsoid that gives it size and orientation, and how it is rendered at a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid

Offsets = tuple[npt.NDArray[np.float64], ...]


class Shape(Protocol):
    """A lesion before it has a place."""

    @property
    def frame(self) -> Ellipsoid:
        """The ellipsoid that it is built on."""

    @property
    def volume_mm3(self) -> float | None:
        """Volume within the half-maximum surface; in 2D, the area times 1 mm; None to count its mask's voxels."""

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support, along the field's axes."""

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return change and outline at an open mesh of ``offsets`` from the middle, in mm.

        The lesion's mask is where the outline is at least half its largest value, its support where it is not
        0. Both share a scale: were the outline's largest value 1, the change would be that of amplitude 1.
        """


@dataclass(frozen=True)
class Ellipsoid:
    """A soft ellipsoid, and the frame of all other shapes; ``rotation`` has its axes as columns ``(D, D)``."""

    radii_mm: Array64
    rotation: Array64
    edge_mm: float

    @property
    def frame(self) -> Ellipsoid:
        """Itself."""
        return self

    @property
    def volume_mm3(self) -> float:
        """Volume within the half-maximum surface; in 2D, the area times 1 mm."""
        unit = np.pi if len(self.radii_mm) == 2 else 4 / 3 * np.pi
        return float(unit * np.prod(self.radii_mm))

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support."""
        return self.bounds_mm(1)

    def bounds_mm(self, scale: float) -> Array64:
        """Return half the box ``(D,)`` of the ellipsoid ``scale`` times as large, its soft edge included."""
        grow = scale + self.edge_mm / self.radii_mm.min()
        bounds: Array64 = np.sqrt(((self.rotation * self.radii_mm) ** 2).sum(1)) * grow
        return bounds

    def local(self, offsets: Offsets) -> list[Array64]:
        """Return coordinates along the semi-axes, in units of them: 1 on the surface."""
        coordinates = []
        for direction, radius in zip(self.rotation.T, self.radii_mm, strict=True):
            along = np.zeros(1)
            for component, offset in zip(direction, offsets, strict=True):
                along = along + component * offset
            coordinates.append(along / radius)
        return coordinates

    def distance(self, offsets: Offsets, scale: float = 1) -> Array64:
        """Return the distance from the surface of the ellipsoid ``scale`` times as large, in mm, negative inside.

        With q the radius in units of the ellipsoid and g the length of its gradient times q, ``q · (q - 1) / g``
        is, to first order, that distance.
        """
        q_squared = g_squared = np.zeros(1)
        for along, radius in zip(self.local(offsets), self.radii_mm, strict=True):
            q_squared = q_squared + along**2
            g_squared = g_squared + (along / radius) ** 2
        middle = q_squared < 1e-20  # where the formula is 0 / 0
        g_squared[middle] = 1
        surface = scale * np.sqrt(q_squared)
        return np.where(middle, -scale * self.radii_mm.min(), (q_squared - surface) / np.sqrt(g_squared))

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return the soft ellipsoid, as change and as outline."""
        profile = soft_edge(self.distance(offsets), self.edge_mm)
        return profile, profile


def soft_edge(distance: Array64, edge_mm: float) -> Array64:
    """Return 1 at ``-edge`` from a surface, ½ on it and exactly 0 at ``+edge``: a half-wave of the cosine."""
    if edge_mm > 0:
        return np.asarray(0.5 - 0.5 * np.sin(np.pi / 2 * np.clip(distance / edge_mm, -1, 1)))
    return (distance <= 0).astype(np.float64)


@dataclass(frozen=True)
class Framed:
    """A shape of its frame's volume and, if it does not say otherwise, of its frame's extent."""

    frame: Ellipsoid

    @property
    def volume_mm3(self) -> float:
        """Volume of the frame."""
        return self.frame.volume_mm3

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support."""
        return self.frame.reach_mm


@dataclass(frozen=True)
class Placed:
    """A shape in its place.

    Attributes:
        shape: what was placed.
        centre_voxel: its middle ``(D,)``.
        box: where in the field ``profile`` lies.
        profile: change for an amplitude of 1, float32, within the box.
        outline: 1 where the lesion is whole, 0 beyond its support, float32, within the box.
        volume_mm3: volume within the half-maximum surface, or that of the mask's voxels.
        largest: largest amplitude that it can have, where that has a limit.
    """

    shape: Shape
    centre_voxel: Array64
    box: tuple[slice, ...]
    profile: Array32
    outline: Array32
    volume_mm3: float
    largest: float = np.inf

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Where the outline is at least half its maximum, within the box."""
        return self.outline >= np.float32(0.5)


def render(shape: Shape, centre_voxel: Array64, grid: Grid) -> Placed | None:
    """Render a shape at a place; None if it leaves the field or holds no voxel's centre."""
    reach = shape.reach_mm / grid.spacing
    low, high = np.ceil(centre_voxel - reach).astype(int), np.floor(centre_voxel + reach).astype(int) + 1
    if (low < 0).any() or (high > np.array(grid.shape)).any() or (low >= high).any():
        return None
    places = [np.arange(a, b) - c for a, b, c in zip(low, high, centre_voxel, strict=True)]
    offsets = np.ix_(*[place * step for place, step in zip(places, grid.spacing, strict=True)])
    change, outline = shape.paint(offsets, grid.spacing)
    peak = outline.max()
    if peak < 0.5:
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    profile = (change / peak).astype(np.float32)
    whole = profile if change is outline else (outline / peak).astype(np.float32)
    volume = shape.volume_mm3
    if volume is None:
        volume = float(np.count_nonzero(whole >= np.float32(0.5)) * np.prod(grid.spacing))
    return Placed(shape, centre_voxel, box, profile, whole, volume)
