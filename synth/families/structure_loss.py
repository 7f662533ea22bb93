"""Loss of structure: something that every normal case shows fades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from synth.shape import Ellipsoid


@dataclass(frozen=True, kw_only=True)
class StructureLossFamily:
    """A bright structure of the anatomy fades within a soft ellipsoid; beside the structure nothing changes.

    ``delta`` is the largest loss of intensity, and cannot exceed what the structure has. Mask, centre and
    volume are those of the loss itself: where it is at least half its largest.

    Attributes:
        structure: name of the structure, one that the anatomy offers.
    """

    structure: str
    kind: Literal["structure_loss"] = "structure_loss"
    reach = 1.0

    def finest_mm(self, shortest: float) -> float:
        """Return the shortest semi-axis."""
        return shortest

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
        """Return the frame: placing multiplies it by the structure."""
        return frame
