"""A chest as a radiograph shows it, from the front: lungs, heart, diaphragm, spine and ribs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from synth.background import Background, ellipse, inside
from synth.parts import Range  # noqa: TC001 - annotations are read to read YAML
from synth.reading import require

if TYPE_CHECKING:
    from synth.grid import Array32, Grid

RIBS = 9
# In half-widths of the chest, the middle at 0, up positive: places and semi-axes.
LUNG, LUNG_HEIGHT, TOP = 0.44, 0.92, 0.02
HEART = (0.15, -0.42, 0.42, 0.34)
DOME = (0.43, -1.18, 0.52, 0.62)


@dataclass(frozen=True, kw_only=True)
class ChestAnatomy:
    """A chest radiograph; the patient's left is at the right of the picture. The structure ``ribs`` may fade.

    Attributes:
        size: width of the chest, as a fraction of the field.
        shift: largest displacement from the middle of the field along each axis, as a fraction of the field.
        heart: scale of the heart's width, 1 for an ordinary one.
        breath: range of the height of the diaphragm, in half-widths of the chest; deep breaths are negative.
        body, lung: intensities of soft tissue beside and through the lungs.
        rib: what each rib adds.
    """

    kind: Literal["chest"] = "chest"
    size: Range = (0.9, 0.98)
    shift: float = 0.02
    heart: Range = (0.85, 1.15)
    breath: Range = (-0.08, 0.08)
    body: float = 0.78
    lung: float = 0.3
    rib: float = 0.09
    tissues: ClassVar[tuple[str, ...]] = ("tissue", "lungs")
    structures: ClassVar[tuple[str, ...]] = ("ribs",)
    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.size[0] > 0, "size", self.size, "be above 0")
        require(self.size[1] + 2 * self.shift <= 1.1, "size", self.size, f"leave room for the shift of {self.shift}")
        inside = self.heart[0] > 0 and self.heart[1] <= 1.6
        require(inside, "heart", self.heart, "lie above 0 and at most at 1.6")
        require(self.rib >= 0, "rib", self.rib, "be at least 0")

    @property
    def level(self) -> float:
        """Intensity of the tissue in which lesions lie."""
        return self.lung


def draw_chest(spec: ChestAnatomy, grid: Grid, rng: np.random.Generator) -> Background:
    """Draw size, place, heart and breath, then the picture."""
    half = float(rng.uniform(*spec.size) / 2 * grid.field_mm.min())
    centre = rng.uniform(-spec.shift, spec.shift, 2) * grid.field_mm
    heart_scale, breath = rng.uniform(*spec.heart), rng.uniform(*spec.breath)
    tilt, phase = rng.uniform(0.9, 1.1), rng.uniform(-0.03, 0.03)
    side, height = (grid.project(axis / half, centre) for axis in np.eye(2))
    voxels = np.float32(half / grid.spacing.mean())
    beside = np.abs(side)

    # A lung is narrow at its top: the square of the height pulls it to the midline.
    across = (beside - np.float32(LUNG) + np.float32(0.1) * np.maximum(height, 0) ** 2) / np.float32(0.36)
    along = (height - np.float32(TOP)) / np.float32(LUNG_HEIGHT)
    lungs = inside(
        (np.abs(across) ** 2.6 + np.abs(along) ** 2.6) ** np.float32(1 / 2.6), 1.0, voxels * np.float32(0.36)
    )
    dome = ellipse(beside, height, (DOME[0], DOME[1] + breath, DOME[2], DOME[3]), voxels)
    heart = ellipse(side, height, (HEART[0], HEART[1] + breath / 2, HEART[2] * heart_scale, HEART[3]), voxels)
    vessels = ellipse(beside, height, (0.13, 0.02, 0.15, 0.3), voxels * np.float32(0.25))
    lungs = lungs * (1 - dome)
    clear = lungs * (1 - heart)

    trunk = (np.abs(side / np.float32(0.97)) ** 6 + np.abs((height + np.float32(0.4)) / np.float32(1.5)) ** 4) ** 0.2
    body = inside(trunk.astype(np.float32), 1.0, voxels)
    spine = np.exp(-((side / np.float32(0.09)) ** 4)).astype(np.float32)
    ribs = _ribs(beside, height, float(tilt), float(phase), voxels) * body * (1 - dome)

    image = np.float32(spec.body) * body
    image -= np.float32(spec.body - spec.lung) * clear
    image += np.float32(0.3 * (spec.body - spec.lung)) * vessels * clear
    image += np.float32(0.12 * spec.body) * (spine * body + heart * lungs * np.float32(0.4))
    added = np.float32(spec.rib) * ribs
    image += added
    tissue = body == 1
    return Background(
        image=image, texture=body, tissue=tissue, parts={"lungs": tissue & (clear == 1)}, structures={"ribs": added}
    )


def _ribs(beside: Array32, height: Array32, tilt: float, phase: float, voxels: np.float32) -> Array32:
    """Return arches that fall from the spine to the flank, brightest along their lower and upper borders."""
    ribs = np.zeros_like(beside)
    fall = np.float32(tilt) * (np.float32(0.55) * beside**2 - np.float32(0.16) * beside)
    for number in range(RIBS):
        middle = 0.82 - 0.2 * number + phase
        off = np.abs(height - np.float32(middle) + fall)
        band = inside(off, 0.034, voxels)
        ribs = np.maximum(ribs, band * (np.float32(0.65) + np.float32(0.35) * inside(-off, -0.022, voxels)))
    return ribs * inside(beside, 0.9, voxels) * inside(-beside, -0.06, voxels)
