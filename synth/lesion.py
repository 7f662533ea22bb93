"""Lesions: what is known about one, and its place in the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from synth.reading import SpecError, plain_text
from synth.shape import Ellipsoid, Placed, Shape, render

if TYPE_CHECKING:
    from synth.grid import Array32, Grid
    from synth.parts import LesionSpec

PLACEMENT_DRAWS = 1000
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """What is known about one lesion.

    Attributes:
        class_name: the lesion class.
        family: the shape.
        centre_mm: ``(D,)``, in the space of the affine.
        centre_voxel: ``(D,)``, sub-voxel.
        radii_mm: semi-axes ``(D,)`` of the half-maximum surface, longest first; of the ellipsoid that holds it
            where the shape is not one.
        rotation: columns are the directions of the semi-axes ``(D, D)``.
        delta: peak change, signed, intensity units; where the family is texture, RMS change.
        cnr: unsigned ``delta`` over the standard deviation of texture and noise.
        dprime: detectability of the lesion known exactly.
        voxels: voxels of its mask.
        volume_mm3: volume within the half-maximum surface (of a cluster and of what fades, of the mask's voxels); in
            2D, its area times the slice of 1 mm.
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


def draw_shape(spec: LesionSpec, dimensions: int, key: str, rng: np.random.Generator) -> Shape:
    """Draw the frame of a lesion, then what its family leaves to chance.

    Raises:
        SpecError: the family does not fit the frame; ``key`` is the lesion's dotted key.
    """
    frame = draw_ellipsoid(spec, dimensions, rng)
    try:
        return spec.family.shape(frame, rng)
    except SpecError as error:
        raise error.under(key) from None


def draw_ellipsoid(spec: LesionSpec, dimensions: int, rng: np.random.Generator) -> Ellipsoid:
    """Draw size, elongation and a uniformly random orientation."""
    radius, elongation = rng.uniform(*spec.radius_mm), rng.uniform(*spec.elongation)
    radii = np.array(spec.semi_axes(radius, elongation, dimensions))
    rotation, triangle = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))
    rotation *= np.sign(np.diag(triangle))  # makes the orientation uniform, whatever sign the factorisation chose
    if np.linalg.det(rotation) < 0:
        rotation[:, -1] *= -1
    return Ellipsoid(radii, rotation, spec.edge_mm)


def where(spec: LesionSpec, region: Mask, taken: Mask, grid: Grid, key: str) -> tuple[Mask, Mask]:
    """Return where a lesion's support may lie and where its middle may, bool ``(*S)`` each.

    Args:
        spec: the lesion's class.
        region: its tissue.
        taken: supports of earlier lesions.
        grid: where the voxels lie.
        key: the lesion's dotted key.

    Raises:
        SpecError: no voxel of the tissue lies as deep as asked.
    """
    free = region & apart(spec, taken, grid)
    if spec.depth_mm is None:
        return free, free
    # The border of the field ends the tissue, too.
    depth = ndimage.distance_transform_edt(np.pad(region, 1), sampling=grid.spacing)
    depth = depth[(slice(1, -1),) * region.ndim]
    deep = (depth >= spec.depth_mm[0]) & (depth <= spec.depth_mm[1])
    if not deep.any():
        deepest = f"its deepest voxel lies at {depth.max():.3g} mm"
        raise SpecError(
            f"is {plain_text(spec.depth_mm)} but must be found in the tissue: {deepest}", key=f"{key}.depth_mm"
        )
    return free, free & deep


def apart(spec: LesionSpec, taken: Mask, grid: Grid) -> Mask:
    """Return what lies far enough from ``taken``, the supports of earlier lesions, bool ``(*S)``."""
    if spec.apart_mm > 0 and taken.any():
        return np.asarray(ndimage.distance_transform_edt(~taken, sampling=grid.spacing) > spec.apart_mm)
    return ~taken


def place(
    shape: Shape,
    free: Mask,
    grid: Grid,
    key: str,
    rng: np.random.Generator,
    *,
    middles: Mask | None = None,
    structure: Array32 | None = None,
) -> Placed:
    """Draw a place whose whole support is free, then take it: ``free`` ``(*S)`` loses the support.

    The shape is kept while its centre is redrawn, so that tight tissue does not favour small lesions.

    Args:
        shape: what to place.
        free: where its support may lie.
        grid: where the voxels lie.
        key: the lesion's dotted key.
        rng: source of the places.
        middles: where its middle may lie, if not wherever it is free.
        structure: what fades, by what it adds to the picture ``(*S)``: the change is confined to it.

    Raises:
        SpecError: none found in a bounded number of draws.
    """
    candidates = np.flatnonzero(free if middles is None else middles)
    for _ in range(PLACEMENT_DRAWS if len(candidates) else 0):
        voxel = np.array(np.unravel_index(candidates[rng.integers(len(candidates))], free.shape))
        placed = render(shape, voxel + rng.uniform(-0.5, 0.5, len(voxel)), grid)
        if placed is not None and structure is not None:
            placed = _within(placed, structure, grid)
        if placed is None:
            continue
        support = placed.outline > 0
        if free[placed.box][support].all():
            free[placed.box][support] = False
            return placed
    size = " × ".join(f"{2 * radius:.3g}" for radius in shape.frame.radii_mm)
    raise SpecError(
        f"leaves no room in the tissue for a lesion of {size} mm ({PLACEMENT_DRAWS} places tried): "
        "make lesions smaller or fewer (count), or the field larger",
        key=f"{key}.radius_mm",
    )


def _within(placed: Placed, structure: Array32, grid: Grid) -> Placed | None:
    """Confine a change to a structure; centre and volume become those of what is left."""
    change = placed.outline * structure[placed.box]
    peak = change.max()
    if peak <= 0:
        return None
    change /= peak
    mask = change >= np.float32(0.5)
    low = np.array([part.start for part in placed.box])
    middle = np.argwhere(mask).mean(0) + low
    volume = float(mask.sum() * np.prod(grid.spacing))
    return Placed(placed.shape, middle, placed.box, change, change, volume, largest=float(peak))
