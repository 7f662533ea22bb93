"""A soft ellipsoid: plateau, edge, nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from synth.shape import Ellipsoid


@dataclass(frozen=True, kw_only=True)
class EllipsoidFamily:
    """A soft ellipsoid, of which nothing is left to draw."""

    kind: Literal["ellipsoid"] = "ellipsoid"
    reach = 1.0

    def finest_mm(self, shortest: float) -> float:
        """Return the shortest semi-axis."""
        return shortest

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
        """Return the frame itself."""
        return frame
