"""What families have in common that are drawn as their frame, and have no part finer than it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from synth.shape import Ellipsoid, Shape


class PlainFamily:
    """A family whose finest part is its frame's shortest semi-axis."""

    reach = 1.0

    def finest_mm(self, shortest: float) -> float:
        """Return the shortest semi-axis."""
        return shortest

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> Shape:
        """Return the frame itself."""
        return frame
