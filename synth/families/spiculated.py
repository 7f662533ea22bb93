"""A spiculated mass: a body with spikes that taper outwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from synth.reading import require
from synth.shape import Framed, soft_edge

if TYPE_CHECKING:
    from synth.grid import Array64
    from synth.shape import Ellipsoid, Offsets

SAMPLES = 1024


@dataclass(frozen=True, kw_only=True)
class SpiculatedFamily:
    """A star-shaped mass whose volume is that of its frame.

    Attributes:
        spicules: number of spicules.
        length: height of a spicule above the body, in radii of the body.
        width_deg: half-width of a spicule at half its height, seen from the middle, degrees.
    """

    kind: Literal["spiculated"] = "spiculated"
    spicules: tuple[int, int] = (7, 12)
    length: float = 0.8
    width_deg: float = 9.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.spicules[0] >= 1, "spicules", self.spicules, "be at least 1")
        require(0 < self.length <= 2, "length", self.length, "lie above 0 and at most at 2")
        require(0 < self.width_deg <= 45, "width_deg", self.width_deg, "lie above 0 and at most at 45")

    @property
    def reach(self) -> float:
        """Tip of the longest spicule, in semi-axes of the frame."""
        return 1 + self.length

    def finest_mm(self, shortest: float) -> float:
        """Return the radius of the smallest body that its spicules may leave, less than half the frame's."""
        return shortest / 2

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> SpiculatedMass:
        """Draw the directions of the spicules."""
        number = int(rng.integers(self.spicules[0], self.spicules[1] + 1))
        directions = rng.standard_normal((number, len(frame.radii_mm)))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        sharpness = float(np.log(2) / (1 - np.cos(np.deg2rad(self.width_deg))))
        bare = SpiculatedMass(frame, directions, self.length, sharpness, 1.0, np.zeros(len(frame.radii_mm)))
        return bare.balanced()


@dataclass(frozen=True)
class SpiculatedMass(Framed):
    """A star-shaped mass.

    Attributes:
        directions: of the spicules ``(F, D)``, in the frame's axes.
        length, sharpness: height and concentration of a spicule.
        body: radius of the body, in semi-axes of the frame.
        middle: centroid ``(D,)``, from where the spicules start, in semi-axes of the frame.
    """

    directions: Array64
    length: float
    sharpness: float
    body: float
    middle: Array64

    def radius(self, cosines: Array64) -> Array64:
        """Return the surface's radius where ``cosines`` ``(F, ...)`` are those of the angles to each spicule."""
        return np.asarray(self.body * (1 + self.length * np.exp(self.sharpness * (cosines.max(0) - 1))))

    def balanced(self) -> SpiculatedMass:
        """Return the mass with the volume of its frame and its centroid in the middle."""
        units = _sphere(len(self.middle))
        radius = self.radius(self.directions @ units.T)
        dimensions = len(self.middle)
        volume = (radius**dimensions).mean()
        centroid = (units * radius[:, np.newaxis] ** (dimensions + 1)).mean(0) * dimensions / (dimensions + 1) / volume
        scale = float(volume ** (-1 / dimensions))
        return SpiculatedMass(self.frame, self.directions, self.length, self.sharpness, scale, centroid * scale)

    @property
    def reach_mm(self) -> Array64:
        """Half the box ``(D,)`` that holds its support."""
        return self.frame.bounds_mm(self.body * (1 + self.length) + float(np.linalg.norm(self.middle)))

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return the mass as change and as outline; its edge is measured along the radius."""
        places = np.stack(np.broadcast_arrays(*self.frame.local(offsets)))
        places = places + self.middle.reshape(-1, *[1] * (places.ndim - 1))
        radius = np.sqrt((places**2).sum(0))
        cosines = np.tensordot(self.directions, places, 1) / np.maximum(radius, 1e-9)
        distance = (radius - self.radius(cosines)) * self.frame.radii_mm.min()
        profile = soft_edge(distance, self.frame.edge_mm)
        return profile, profile


def _sphere(dimensions: int) -> Array64:
    """Return unit vectors ``(N, D)`` spread evenly over the circle or the sphere."""
    index = np.arange(SAMPLES * (dimensions - 1) ** 2)
    if dimensions == 2:
        angle = 2 * np.pi * index / len(index)
        return np.stack([np.cos(angle), np.sin(angle)], -1)
    height, angle = 2 * (index + 0.5) / len(index) - 1, np.pi * (3 - np.sqrt(5)) * index
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), height], -1)
