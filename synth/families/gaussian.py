"""A Gaussian blob: no plateau, no edge to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from synth.families.plain import PlainFamily
from synth.shape import Framed, soft_edge

if TYPE_CHECKING:
    from synth.grid import Array64
    from synth.shape import Ellipsoid, Offsets

# The tail is brought to nothing here, in semi-axes of the half-maximum surface: it is at 1/16 there.
TAIL = 2.0


@dataclass(frozen=True, kw_only=True)
class GaussianFamily(PlainFamily):
    """A Gaussian blob; its radius is that of half its maximum.

    Its tail is cut at twice that radius, over the class's ``edge_mm``, so that its support ends.
    """

    kind: Literal["gaussian"] = "gaussian"
    reach = TAIL

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> GaussianBlob:
        """Return the blob of the frame's half-maximum surface."""
        return GaussianBlob(frame)


@dataclass(frozen=True)
class GaussianBlob(Framed):
    """A Gaussian blob whose half-maximum surface is its frame's."""

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support."""
        return self.frame.bounds_mm(TAIL)

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return 2^(-q²), cut at the tail, as change and as outline."""
        q_squared = sum((along**2 for along in self.frame.local(offsets)), np.zeros(1))
        profile = np.exp2(-q_squared) * soft_edge(self.frame.distance(offsets, TAIL), self.frame.edge_mm)
        return profile, profile
