"""Lesions: a soft-edged ellipsoid, its place in the tissue, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from synth.reading import SpecError

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid
    from synth.parts import LesionSpec

PLACEMENT_DRAWS = 1000


@dataclass(frozen=True)
class Lesion:
    """What is known about one lesion.

    Attributes:
        class_name: the lesion class.
        family: the shape.
        centre_mm: ``(D,)``, in the space of the affine.
        centre_voxel: ``(D,)``, sub-voxel.
        radii_mm: semi-axes ``(D,)`` of the half-maximum surface, longest first.
        rotation: columns are the directions of the semi-axes ``(D, D)``.
        delta: peak change, signed, intensity units.
        cnr: peak change over the standard deviation of texture and noise.
        dprime: detectability of the lesion known exactly.
        voxels: voxels of its mask.
        volume_mm3: volume of the ellipsoid; in 2D, its area times the slice of 1 mm.
    """

    class_name: str
    family: str
    centre_mm: tuple[float, ...]
    centre_voxel: tuple[float, ...]
    radii_mm: tuple[float, ...]
    rotation: tuple[tuple[float, ...], ...]
    delta: float
    cnr: float
    dprime: float
    voxels: int
    volume_mm3: float


@dataclass(frozen=True)
class Ellipsoid:
    """The shape of a lesion, before it has a place; the columns of ``rotation`` are its axes ``(D, D)``."""

    radii_mm: Array64
    rotation: Array64
    edge_mm: float

    @property
    def volume_mm3(self) -> float:
        """Volume within the half-maximum surface; in 2D, the area times 1 mm."""
        unit = np.pi if len(self.radii_mm) == 2 else 4 / 3 * np.pi
        return float(unit * np.prod(self.radii_mm))


@dataclass(frozen=True)
class Placed:
    """A shape in its place.

    Attributes:
        shape: the ellipsoid.
        centre_voxel: its middle ``(D,)``.
        box: where in the field ``profile`` lies.
        profile: change for a peak of 1, float32, within the box.
    """

    shape: Ellipsoid
    centre_voxel: Array64
    box: tuple[slice, ...]
    profile: Array32

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Where the change is at least half its maximum, within the box."""
        return self.profile >= np.float32(0.5)


def draw_ellipsoid(spec: LesionSpec, dimensions: int, rng: np.random.Generator) -> Ellipsoid:
    """Draw size, elongation and a uniformly random orientation."""
    radius, elongation = rng.uniform(*spec.radius_mm), rng.uniform(*spec.elongation)
    radii = np.array(spec.semi_axes(radius, elongation, dimensions))
    rotation, triangle = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))
    rotation *= np.sign(np.diag(triangle))  # makes the orientation uniform, whatever sign the factorisation chose
    if np.linalg.det(rotation) < 0:
        rotation[:, -1] *= -1
    return Ellipsoid(radii, rotation, spec.edge_mm)


def place(shape: Ellipsoid, free: npt.NDArray[np.bool_], grid: Grid, key: str, rng: np.random.Generator) -> Placed:
    """Draw a place whose whole support is free, then take it: ``free`` ``(*S)`` loses the support.

    The shape is kept while its centre is redrawn, so that tight tissue does not favour small lesions.

    Raises:
        SpecError: none found in a bounded number of draws; ``key`` is the lesion's dotted key.
    """
    candidates = np.flatnonzero(free)
    for _ in range(PLACEMENT_DRAWS if len(candidates) else 0):
        voxel = np.array(np.unravel_index(candidates[rng.integers(len(candidates))], free.shape))
        placed = render(shape, voxel + rng.uniform(-0.5, 0.5, len(voxel)), grid)
        if placed is None:
            continue
        support = placed.profile > 0
        if free[placed.box][support].all():
            free[placed.box][support] = False
            return placed
    size = " × ".join(f"{2 * radius:.3g}" for radius in shape.radii_mm)
    raise SpecError(
        f"leaves no room in the tissue for a lesion of {size} mm ({PLACEMENT_DRAWS} places tried): "
        "make lesions smaller or fewer (count), or the field larger",
        key=f"{key}.radius_mm",
    )


def render(shape: Ellipsoid, centre_voxel: Array64, grid: Grid) -> Placed | None:
    """Render a shape at a place, peak 1; None if it leaves the field or holds no voxel's centre.

    With q the radius in units of the ellipsoid and g the length of its gradient times q, ``q · (q - 1) / g``
    is, to first order, the distance in mm from the surface. The profile falls from 1 at ``-edge`` through ½
    at the surface to exactly 0 at ``+edge``, as a half-wave of the cosine.
    """
    grow = 1 + shape.edge_mm / shape.radii_mm.min()
    reach = np.sqrt(((shape.rotation * shape.radii_mm) ** 2).sum(1)) * grow / grid.spacing
    low, high = np.ceil(centre_voxel - reach).astype(int), np.floor(centre_voxel + reach).astype(int) + 1
    if (low < 0).any() or (high > np.array(grid.shape)).any() or (low >= high).any():
        return None
    places = [np.arange(a, b) - c for a, b, c in zip(low, high, centre_voxel, strict=True)]
    offsets = np.ix_(*[place * step for place, step in zip(places, grid.spacing, strict=True)])
    q_squared = g_squared = np.zeros(1)
    for direction, radius in zip(shape.rotation.T, shape.radii_mm, strict=True):
        along = np.zeros(1)
        for component, offset in zip(direction, offsets, strict=True):
            along = along + component * offset
        q_squared = q_squared + (along / radius) ** 2
        g_squared = g_squared + (along / radius**2) ** 2
    middle = q_squared < 1e-20  # where the formula is 0 / 0
    g_squared[middle] = 1
    distance = np.where(middle, -shape.radii_mm.min(), (q_squared - np.sqrt(q_squared)) / np.sqrt(g_squared))
    if shape.edge_mm > 0:
        profile = 0.5 - 0.5 * np.sin(np.pi / 2 * np.clip(distance / shape.edge_mm, -1, 1))
    else:
        profile = (distance <= 0).astype(np.float64)
    peak = profile.max()
    if peak < 0.5:
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return Placed(shape, centre_voxel, box, (profile / peak).astype(np.float32))
