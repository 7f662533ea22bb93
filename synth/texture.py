"""Stationary Gaussian texture with a stated power spectrum, and the detectability of a profile in it.

Conventions: a field of N voxels is circular; ``P(f)`` is the expected ``|DFT|²/N``, so that its mean over the
N frequencies is the variance of a voxel, and white noise of standard deviation sd has ``P = sd²``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid
    from synth.parts import NoiseSpec, TextureSpec


class Texture:
    """The stationary random field of a specification: correlated components, and white noise beside them.

    Attributes:
        power: spectrum of the texture alone, float64 on the half-spectrum of ``rfftn``.
        total_power: that of texture and noise together.
        sd: standard deviation of a voxel, texture and noise together.
    """

    def __init__(self, texture: TextureSpec, noise: NoiseSpec, grid: Grid) -> None:
        """Tabulate the spectra on the grid's frequencies."""
        self._shape = grid.shape
        self.power = texture_power(texture, grid)
        self.total_power = self.power + noise.sd**2
        self.sd = float(np.sqrt(noise.sd**2 + sum(part.sd**2 for part in texture.components)))
        self._filter = np.sqrt(self.power).astype(np.float32)
        self._empty = not self.power.any()
        # The half-spectrum holds one of each pair of conjugates, save where they lie in one plane.
        pairs = np.full(self.power.shape[-1], 2.0)
        pairs[0] = 1
        if grid.shape[-1] % 2 == 0:
            pairs[-1] = 1
        self._weight = pairs / (self.total_power * np.prod(grid.shape))

    def draw(self, rng: np.random.Generator) -> Array32:
        """Draw a texture, float32 ``(*S)``, mean 0."""
        white = rng.standard_normal(self._shape, np.float32)
        if self._empty:
            return np.zeros_like(white)
        spectrum = fft.rfftn(white)
        spectrum *= self._filter
        field: Array32 = fft.irfftn(spectrum, s=self._shape, overwrite_x=True)
        return field

    def dprime(self, profile: Array32) -> float:
        """Return d′ of a known profile ``(*S)`` in texture and noise: that of the prewhitened matched filter.

        d′² = Σ_f |s(f)|² / (N · P(f)). Exact where the texture covers the whole field and the noise is
        Gaussian. Where the texture is confined to a tissue it is the d′ that the lesion would have in a field
        of it; Rician noise counts as Gaussian of the same sd, which it is well above the noise.
        """
        spectrum = fft.rfftn(profile.astype(np.float64))
        return float(np.sqrt(np.sum(self._weight * (spectrum.real**2 + spectrum.imag**2))))


def texture_power(texture: TextureSpec, grid: Grid) -> Array64:
    """Return the spectrum of a texture on the half-spectrum of ``rfftn``.

    A component has the covariance sd² · exp(-r²/(2 · length²)), hence the spectrum
    exp(-2π² · length² · f²), a product over the axes. Each factor is scaled to mean 1 over its axis's
    frequencies, so that the variance is exactly sd².
    """
    axes = list(zip(grid.shape, grid.spacing_mm, strict=True))
    half = (*grid.shape[:-1], grid.shape[-1] // 2 + 1)
    power = np.zeros(half)
    for part in texture.components:
        product = np.full((1,) * len(axes), part.sd**2)
        for axis, (n, step) in enumerate(axes):
            factor = np.exp(-2 * (np.pi * part.length_mm * np.fft.fftfreq(n, step)) ** 2)
            factor = (factor / factor.mean())[: half[axis]]
            product = product * factor.reshape([-1 if a == axis else 1 for a in range(len(axes))])
        power += product
    return power
