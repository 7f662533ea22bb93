"""Spurious cues: what a careless reader could learn instead of the disease.

A cue agrees with the label with probability ``dose``: it is there when its class is, and absent when its class
is. At 0.5 it tells nothing in a balanced set, at 1 everything, below 0.5 it misleads. In the split
``reversed`` it agrees with probability ``1 - dose``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from synth.reading import require

if TYPE_CHECKING:
    from synth.grid import Array32, Grid


@dataclass(frozen=True, kw_only=True)
class MarkerCue:
    """A bright letter L in a corner of each slice, as on a radiograph.

    Attributes:
        dose: probability that it agrees with the label.
        tied_to: class that it gives away; the first one if none is named.
        size_mm: height of the letter.
        delta: what it adds.
        corner: where it lies.
    """

    dose: float
    kind: Literal["marker"] = "marker"
    tied_to: str | None = None
    size_mm: float = 6.0
    delta: float = 0.5
    corner: Literal["left_front", "right_front", "left_back", "right_back"] = "right_front"

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 <= self.dose <= 1, "dose", self.dose, "lie between 0 and 1")
        require(self.size_mm > 0, "size_mm", self.size_mm, "be above 0")

    def change(self, grid: Grid) -> Array32:
        """Return what it adds ``(*S)``."""
        width, height = (
            max(3, round(size / step))
            for size, step in zip((0.7 * self.size_mm, self.size_mm), grid.spacing_mm[:2], strict=True)
        )
        stroke = max(1, height // 4)
        letter = np.zeros((width, height), np.float32)
        letter[:stroke] = letter[:, :stroke] = self.delta
        side, end = self.corner.split("_")
        x = 2 if side == "left" else grid.shape[0] - width - 2
        y = 2 if end == "back" else grid.shape[1] - height - 2
        change = np.zeros(grid.shape, np.float32)
        change[x : x + width, y : y + height] = letter.reshape(width, height, *[1] * (len(grid.shape) - 2))
        return change


@dataclass(frozen=True, kw_only=True)
class RingArtefactCue:
    """Faint rings around the middle of each slice, as a badly calibrated CT detector leaves.

    Attributes:
        dose: probability that it agrees with the label.
        tied_to: class that it gives away; the first one if none is named.
        radius_mm: radius of the middle ring.
        width_mm: from one ring to the next.
        delta: what the middle ring adds.
    """

    dose: float
    radius_mm: float
    kind: Literal["ring_artefact"] = "ring_artefact"
    tied_to: str | None = None
    width_mm: float = 4.0
    delta: float = 0.08

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 <= self.dose <= 1, "dose", self.dose, "lie between 0 and 1")
        require(self.radius_mm > 0, "radius_mm", self.radius_mm, "be above 0")
        require(self.width_mm > 0, "width_mm", self.width_mm, "be above 0")

    def change(self, grid: Grid) -> Array32:
        """Return what it adds ``(*S)``: three rings, of one sign each, that end in nothing."""
        x, y = np.ix_(*grid.axes[:2])
        off = (np.sqrt(x**2 + y**2) - self.radius_mm) / self.width_mm
        rings = np.where(np.abs(off) < 1.5, np.cos(2 * np.pi * off) * np.cos(np.pi * off / 3) ** 2, 0)
        flat = rings.reshape(*rings.shape, *[1] * (len(grid.shape) - 2))
        return np.broadcast_to((self.delta * flat).astype(np.float32), grid.shape)


@dataclass(frozen=True, kw_only=True)
class SiteCue:
    """A scanner that sees the patients of one class.

    Attributes:
        dose: probability that it agrees with the label.
        site: the scanner; its mask is the whole field.
        tied_to: class that it gives away; the first one if none is named.
    """

    dose: float
    site: str
    kind: Literal["site"] = "site"
    tied_to: str | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        require(0 <= self.dose <= 1, "dose", self.dose, "lie between 0 and 1")


Cue = MarkerCue | RingArtefactCue | SiteCue


def cue_mask(change: Array32) -> npt.NDArray[np.bool_]:
    """Return where a cue is: where it changes the picture by at least half its largest change."""
    size = np.abs(change)
    return np.asarray(size >= size.max() / 2)
