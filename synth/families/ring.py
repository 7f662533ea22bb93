"""A ring: an enhancing rim around a core that does not enhance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synth.reading import require
from synth.shape import Framed, soft_edge

if TYPE_CHECKING:
    import numpy as np

    from synth.grid import Array64
    from synth.shape import Ellipsoid, Offsets


@dataclass(frozen=True, kw_only=True)
class RingFamily:
    """A rim and a core. The mask is filled, as a tumour is outlined: core and rim.

    Attributes:
        rim: thickness of the rim, as a fraction of the radius.
        core: change of the core against the rim's change, of the opposite sign; 0 for a hollow ring.
    """

    kind: Literal["ring"] = "ring"
    rim: float = 0.35
    core: float = 0.5
    reach = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 < self.rim < 1, "rim", self.rim, "lie above 0 and below 1")
        require(0 <= self.core <= 2, "core", self.core, "lie between 0 and 2")

    def finest_mm(self, shortest: float) -> float:
        """Return half the rim's thickness where it is thinnest, or the core's radius if that is smaller."""
        return shortest * min(self.rim / 2, 1 - self.rim)

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> Ring:
        """Return the ring that fills the frame."""
        return Ring(frame, self.rim, self.core)


@dataclass(frozen=True)
class Ring(Framed):
    """A ring whose outer surface is its frame's; the unit change is the rim's largest. Its volume includes the core."""

    rim: float
    core: float

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return rim and core as change, the whole as outline."""
        outer = soft_edge(self.frame.distance(offsets), self.frame.edge_mm)
        inner = soft_edge(self.frame.distance(offsets, 1 - self.rim), self.frame.edge_mm)
        change = outer - (1 + self.core) * inner
        return change * (outer.max() / max(change.max(), 1e-6)), outer
