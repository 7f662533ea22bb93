"""Another texture: the mean is that of the tissue, only its grain is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import fft

from synth.families.plain import PlainFamily
from synth.grid import Grid
from synth.reading import require
from synth.shape import Framed, soft_edge
from synth.spectra import gaussian_power

if TYPE_CHECKING:
    from synth.grid import Array64
    from synth.shape import Ellipsoid, Offsets


@dataclass(frozen=True, kw_only=True)
class TextureFamily(PlainFamily):
    """A Gaussian texture of its own, added to that of the tissue, in a soft ellipsoid.

    ``delta`` is its RMS change, weighted by the ellipsoid; its sum over the lesion is 0. ``dprime`` is that of
    the very change that was drawn, known exactly, and so a bound for readers who know its statistics only.

    Attributes:
        length_mm: correlation length (of a Gaussian covariance).
    """

    length_mm: float
    kind: Literal["texture"] = "texture"

    def __post_init__(self) -> None:
        """Check the range."""
        require(self.length_mm > 0, "length_mm", self.length_mm, "be above 0")

    def shape(self, frame: Ellipsoid, rng: np.random.Generator) -> TexturePatch:
        """Draw the seed of the texture."""
        return TexturePatch(frame, self.length_mm, int(rng.integers(2**62)))


@dataclass(frozen=True)
class TexturePatch(Framed):
    """A texture in an ellipsoid; ``seed`` is that of the texture."""

    length_mm: float
    seed: int

    def paint(self, offsets: Offsets, spacing: Array64) -> tuple[Array64, Array64]:
        """Return the texture of weighted mean 0 and weighted RMS 1 as change, the ellipsoid as outline."""
        weight = soft_edge(self.frame.distance(offsets), self.frame.edge_mm)
        shape = weight.shape
        spectrum = fft.rfftn(np.random.default_rng(self.seed).standard_normal(shape))
        spectrum *= np.sqrt(gaussian_power(1, self.length_mm, Grid(shape, tuple(spacing))))
        field = fft.irfftn(spectrum, s=shape)
        total = max(weight.sum(), 1e-12)
        change = weight * (field - (weight * field).sum() / total)
        rms = np.sqrt((change**2).sum() / max((weight**2).sum(), 1e-12))
        return change * (weight.max() / max(rms, 1e-12)), weight
