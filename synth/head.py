"""A head, seen from above: skull, rim of fluid, brain and two ventricles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synth.background import Background, inside

if TYPE_CHECKING:
    from synth.grid import Array64, Grid
    from synth.parts import HeadAnatomy

# A head, in units of its front-to-back semi-axis: seen from above, a little narrower at the forehead.
HEIGHT = 0.9
TAPER = 0.07
# Inner surface of the skull and surface of the brain, from the middle (0) to the outer surface (1).
SKULL_INSIDE = 0.91
BRAIN = 0.86
# Ventricles: distance from the midline, half-width, -length and -height, outward bend, place front to back.
OFFSET, WIDTH, LENGTH, TALL, BEND, PLACE = 0.115, 0.062, 0.36, 0.2, 0.85, 0.02


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


def render_head(spec: HeadAnatomy, pose: HeadPose, grid: Grid) -> Background:
    """Render a head. Surfaces are soft over one voxel; tissue is where no other part shares the voxel."""
    right, front, *up = (grid.project(axis / pose.length_mm, pose.centre_mm) for axis in pose.directions)
    height_squared = np.square(up[0]) if up else np.float32(0)
    sharpness = np.float32(pose.length_mm / grid.spacing.mean())

    across = right * (1 + np.float32(TAPER) * front)
    across *= np.float32(1 / pose.aspect)
    radius = np.sqrt(across**2 + front**2 + height_squared * np.float32(1 / HEIGHT**2))
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

    texture = brain - ventricles
    image = np.float32(spec.skull) * (head - cavity)
    image += np.float32(spec.fluid) * (cavity - brain)
    image += np.float32(spec.tissue) * texture
    image += np.float32(spec.ventricle) * ventricles
    return Background(image=image, texture=texture, tissue=texture == 1)
