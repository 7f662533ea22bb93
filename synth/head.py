"""A head, seen from above: skull, rim of fluid, brain and two ventricles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synth.background import Background, inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from synth.grid import Array32, Array64, Grid
    from synth.parts import HeadAnatomy

# A head, in units of its front-to-back semi-axis: seen from above, a little narrower at the forehead.
HEIGHT = 0.9
TAPER = 0.07
# Inner surface of the skull and surface of the brain, from the middle (0) to the outer surface (1).
SKULL_INSIDE = 0.91
BRAIN = 0.86
# Ventricles: distance from the midline, half-width, -length and -height, outward bend, place front to back.
OFFSET, WIDTH, LENGTH, TALL, BEND, PLACE = 0.115, 0.062, 0.36, 0.2, 0.85, 0.02
# Folds of the cortex: number of waves, their length, depth of a sulcus for a fold of 1, half-width of the fissure.
WAVES, FOLD, SULCUS, FISSURE = 6, 0.2, 0.085, 0.012


@dataclass(frozen=True)
class HeadPose:
    """Where a head lies and how large it is.

    Attributes:
        centre_mm: middle of the head ``(D,)``, from the middle of the field.
        directions: rows are the head's own axes ``(D, D)``: right, front, up.
        length_mm: front-to-back semi-axis.
        aspect: width over length.
        ventricles: scale of the ventricles.
    """

    centre_mm: Array64
    directions: Array64
    length_mm: float
    aspect: float
    ventricles: float


def draw_pose(spec: HeadAnatomy, grid: Grid, rng: np.random.Generator) -> HeadPose:
    """Draw the pose of a head that fits the in-plane field; a field of few slices cuts a slab from it."""
    dimensions = len(grid.shape)
    aspect = float(rng.uniform(*spec.aspect))
    centre = rng.uniform(-spec.shift, spec.shift, dimensions) * grid.field_mm
    directions = np.eye(dimensions)
    for first in range(dimensions):
        for second in range(first + 1, dimensions):
            angle = np.deg2rad(rng.uniform(*spec.rotation_deg))
            turn = np.eye(dimensions)
            turn[first, first] = turn[second, second] = np.cos(angle)
            turn[first, second], turn[second, first] = np.sin(angle), -np.sin(angle)
            directions = turn @ directions
    semi_axes = np.array([aspect, 1, HEIGHT])[:dimensions]
    reach = np.sqrt(((semi_axes[:, np.newaxis] * directions) ** 2).sum(0))
    length = float(rng.uniform(*spec.size) / 2 * (grid.field_mm / reach)[:2].min())
    return HeadPose(centre, directions, length, aspect, float(rng.uniform(*spec.ventricles)))


def draw_folds(grid: Grid, rng: np.random.Generator) -> Array64:
    """Draw the waves that fold the cortex: direction and phase of each, ``(WAVES, D + 1)``."""
    directions = rng.standard_normal((WAVES, len(grid.shape)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.column_stack([directions, rng.uniform(0, 2 * np.pi, WAVES)])


def render_head(spec: HeadAnatomy, pose: HeadPose, grid: Grid, folds: Array64 | None = None) -> Background:
    """Render a head. Surfaces are soft over one voxel; tissue is where no other part shares the voxel.

    Args:
        spec: the anatomy.
        pose: where the head lies.
        grid: where the voxels lie.
        folds: waves of the cortex, where there is white matter.
    """
    right, front, *up = (grid.project(axis / pose.length_mm, pose.centre_mm) for axis in pose.directions)
    height_squared = np.square(up[0]) if up else np.float32(0)
    sharpness = np.float32(pose.length_mm / grid.spacing.mean())

    across = right * (1 + np.float32(TAPER) * front)
    across *= np.float32(1 / pose.aspect)
    radius = radius_of_head = np.sqrt(across**2 + front**2 + height_squared * np.float32(1 / HEIGHT**2))
    head = inside(radius, 1.0, sharpness)
    cavity = inside(radius, SKULL_INSIDE, sharpness)
    brain = inside(radius, BRAIN, sharpness)

    # Folding at the midline draws both ventricles at once and makes them mirror images.
    along = front - np.float32(PLACE)
    beside = np.abs(right) - (np.float32(BEND) * along**2 + np.float32(OFFSET))
    squares = beside**2, along**2, height_squared
    wide, long, tall = (np.float32((axis * pose.ventricles) ** -2) for axis in (WIDTH, LENGTH, TALL))
    radius = np.sqrt(squares[0] * wide + squares[1] * long + squares[2] * tall)
    slope = np.sqrt(squares[0] * wide**2 + squares[1] * long**2 + squares[2] * tall**2)
    # Radius over slope turns steps of radius into distance, lest the tips, far out, be smeared.
    ventricles = inside(radius, 1.0, sharpness * radius / np.maximum(slope, np.float32(1e-6)))
    ventricles *= brain

    parts: dict[str, npt.NDArray[np.bool_]] = {}
    if folds is not None:
        white, sulci = _fold(spec, pose, (right, front, *up), radius_of_head, sharpness, folds)
        brain = brain * (1 - sulci)
        ventricles *= 1 - sulci
        white *= brain - ventricles
        pure = brain - ventricles == 1
        parts = {"white": pure & (white == 1), "grey": pure & (white == 0)}

    texture = brain - ventricles
    image = np.float32(spec.skull) * (head - cavity)
    image += np.float32(spec.fluid) * (cavity - brain)
    image += np.float32(spec.tissue) * texture
    image += np.float32(spec.ventricle) * ventricles
    if spec.white is not None and folds is not None:
        image += np.float32(spec.white - spec.tissue) * white
    return Background(image=image, texture=texture, tissue=texture == 1, parts=parts)


def _fold(
    spec: HeadAnatomy,
    pose: HeadPose,
    places: Sequence[Array32],
    radius: Array32,
    sharpness: np.float32,
    folds: Array64,
) -> tuple[Array32, Array32]:
    """Return the shares of white matter and of sulci: the cortex's surfaces, folded by a sum of waves."""
    fold = np.zeros_like(radius)
    for *direction, phase in folds:
        along = sum((np.float32(part) * place for part, place in zip(direction, places, strict=True)), np.float32(0))
        fold += np.cos(np.float32(2 * np.pi / FOLD) * along + np.float32(phase))
    fold *= np.float32(1 / np.sqrt(WAVES / 2))  # of variance 1
    ribbon = np.float32((spec.cortex_mm or 0) / pose.length_mm)
    depth = np.float32(SULCUS) * np.clip(fold - np.float32(0.5), 0, 1.5)
    white = inside(radius + ribbon + depth * np.float32(1.3) + np.float32(0.5) * ribbon * fold, BRAIN, sharpness)
    sulci = inside(BRAIN - depth - radius, 0.0, sharpness * np.float32(0.7)) * np.minimum(depth * sharpness, 1)
    fissure = inside(np.abs(places[0]), FISSURE, sharpness) * inside(-np.abs(places[1]), -0.46, sharpness)
    return white, np.maximum(sulci, fissure)
