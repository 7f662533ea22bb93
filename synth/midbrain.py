"""The midbrain in neuromelanin MRI: two bright crescents between peduncles and tegmentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from synth.background import Background, ellipse, inside
from synth.parts import Range  # noqa: TC001 - annotations are read to read YAML
from synth.reading import require

if TYPE_CHECKING:
    from synth.grid import Grid

# Ellipses in mm, seen from above, the middle of the midbrain at 0: place right and front, half-width, half-length.
TEGMENTUM = (0.0, -3.0, 13.5, 11.0)
PEDUNCLE = (9.5, 8.0, 7.0, 9.5)
NUCLEUS = (4.6, 0.5, 2.7, 2.9)
AQUEDUCT = (0.0, -9.5, 1.1, 1.5)
FOSSA = (0.0, 15.0, 3.6, 9.5)
CISTERN = (0.0, 1.0, 23.0, 21.0)
# A crescent: place, half-length, half-width, bend per mm, angle from the right, degrees.
CRESCENT_PLACE, LENGTH, WIDTH, BEND, ANGLE = (8.2, 4.2), 7.0, 1.9, 0.028, -32.0


@dataclass(frozen=True, kw_only=True)
class MidbrainAnatomy:
    """A transverse slice through the midbrain, about 60 mm wide. The structure ``crescents`` may fade.

    Attributes:
        scale: size, 1 for an ordinary one.
        rotation_deg: range of the rotation, degrees.
        shift_mm: largest displacement from the middle of the field along each axis.
        tissue, fluid, lobe: intensities of midbrain, cisterns and the brain around them.
        crescent: what the crescents add.
        asymmetry: largest relative difference of one crescent from the mean of both.
    """

    kind: Literal["midbrain"] = "midbrain"
    scale: Range = (0.93, 1.07)
    rotation_deg: Range = (-8.0, 8.0)
    shift_mm: float = 2.0
    tissue: float = 0.5
    fluid: float = 0.2
    lobe: float = 0.42
    crescent: float = 0.22
    asymmetry: float = 0.08
    tissues: ClassVar[tuple[str, ...]] = ("tissue", "crescents")
    structures: ClassVar[tuple[str, ...]] = ("crescents",)
    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.scale[0] > 0, "scale", self.scale, "be above 0")
        require(self.shift_mm >= 0, "shift_mm", self.shift_mm, "be at least 0")
        require(self.crescent >= 0, "crescent", self.crescent, "be at least 0")
        require(0 <= self.asymmetry < 1, "asymmetry", self.asymmetry, "lie between 0 and 1")

    @property
    def level(self) -> float:
        """Intensity of the tissue in which lesions lie."""
        return self.tissue


def draw_midbrain(spec: MidbrainAnatomy, grid: Grid, rng: np.random.Generator) -> Background:
    """Draw pose, size and asymmetry, then the picture."""
    scale = float(rng.uniform(*spec.scale))
    angle = np.deg2rad(rng.uniform(*spec.rotation_deg))
    centre = rng.uniform(-spec.shift_mm, spec.shift_mm, 2)
    uneven = np.float32(rng.uniform(-spec.asymmetry, spec.asymmetry))
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    right, front = (grid.project(axis, centre) for axis in axes)
    voxels = np.float32(scale / grid.spacing.mean())  # in a mm of the drawing
    beside = np.abs(right)

    cistern = ellipse(right, front, CISTERN, voxels)
    solid = np.maximum(ellipse(right, front, TEGMENTUM, voxels), ellipse(beside, front, PEDUNCLE, voxels))
    solid *= (1 - ellipse(right, front, FOSSA, voxels)) * (1 - ellipse(right, front, AQUEDUCT, voxels))
    nucleus = ellipse(beside, front, NUCLEUS, voxels) * solid

    turn = np.deg2rad(ANGLE)
    along = (beside - CRESCENT_PLACE[0]) * np.float32(np.cos(turn)) + (front - CRESCENT_PLACE[1]) * np.float32(
        np.sin(turn)
    )
    across = (front - CRESCENT_PLACE[1]) * np.float32(np.cos(turn)) - (beside - CRESCENT_PLACE[0]) * np.float32(
        np.sin(turn)
    )
    across = across + np.float32(BEND) * along**2
    radius = np.sqrt((along / np.float32(LENGTH)) ** 2 + (across / np.float32(WIDTH)) ** 2)
    crescents = inside(radius, 1.0, voxels * np.float32(0.6 * WIDTH)) * solid
    added = crescents * np.float32(spec.crescent) * (1 + uneven * np.sign(right))

    image = np.float32(spec.lobe) + (np.float32(spec.fluid) - np.float32(spec.lobe)) * cistern
    image = image + (np.float32(spec.tissue) - image) * solid
    image -= np.float32(0.12 * spec.tissue) * nucleus
    image += added
    tissue = solid == 1
    return Background(
        image=image,
        texture=np.maximum(solid, 1 - cistern),
        tissue=tissue,
        parts={"crescents": tissue & (crescents > np.float32(0.5))},
        structures={"crescents": added},
    )
