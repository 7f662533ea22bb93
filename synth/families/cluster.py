"""A cluster of tiny foci, such as microcalcifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from synth.reading import SpecError, require
from synth.shape import Ellipsoid, soft_edge

if TYPE_CHECKING:
    from synth.grid import Array64
    from synth.shape import Offsets

DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class ClusterFamily:
    """Equal soft balls (discs) at random in an ellipsoid, none touching another.

    Attributes:
        foci: number of foci.
        focus_mm: radius of each.
    """

    focus_mm: float
    foci: tuple[int, int] = (4, 8)
    kind: Literal["cluster"] = "cluster"
    reach = 2.0  # foci are moved so that their middle is the cluster's

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.focus_mm > 0, "focus_mm", self.focus_mm, "be above 0")
        require(self.foci[0] >= 2, "foci", self.foci, "be at least 2")

    def finest_mm(self, shortest: float) -> float:
        """Return the radius of a focus."""
        return min(self.focus_mm, shortest)

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> Cluster:
        """Draw the places of the foci.

        Raises:
            SpecError: so many do not fit.
        """
        wanted = int(rng.integers(self.foci[0], self.foci[1] + 1))
        apart = 2 * (self.focus_mm + frame.edge_mm)
        dimensions = len(frame.radii_mm)
        places: list[Array64] = []
        for _ in range(DRAWS):
            inside = rng.uniform(-1, 1, dimensions)
            place = frame.rotation @ (frame.radii_mm * inside)
            clear = all(np.linalg.norm(place - other) > apart for other in places)
            if (inside**2).sum() <= 1 and clear:
                places.append(place)
            if len(places) == wanted:
                centred = np.array(places) - np.mean(places, 0)
                return Cluster(frame, centred, self.focus_mm)
        rule = f"fit: {wanted} foci of {self.focus_mm:.3g} mm find no room in a radius of {frame.radii_mm.min():.3g} mm"
        raise SpecError(f"is {list(self.foci)} but must {rule}", key="family.foci")


@dataclass(frozen=True)
class Cluster:
    """Foci of one radius; ``places_mm`` ``(F, D)`` are from their own middle."""

    frame: Ellipsoid
    places_mm: Array64
    focus_mm: float
    volume_mm3 = None  # of foci of a few voxels each, what the grid holds of them is the volume

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support."""
        reach: Array64 = np.abs(self.places_mm).max(0) + self.focus_mm + self.frame.edge_mm
        return reach

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return the foci, as change and as outline."""
        profile = np.zeros(1)
        for place in self.places_mm:
            squared = sum(((o - p) ** 2 for o, p in zip(offsets, place, strict=True)), np.zeros(1))
            profile = np.maximum(profile, soft_edge(np.sqrt(squared) - self.focus_mm, self.frame.edge_mm))
        return profile, profile
