"""Stationary texture with a stated power spectrum, and the detectability of a profile in it.

The conventions of spectra are those of :mod:`synth.spectra`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from synth.acquisition import transfer
from synth.lumpy import ClusteredLumpy, Lumpy
from synth.spectra import gaussian_power, multiplicity, power_law

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synth.acquisition import AcquisitionSpec
    from synth.grid import Array32, Array64, Grid
    from synth.parts import NoiseSpec, TextureSpec


class Texture:
    """The stationary random field of a specification, what the scanner makes of it, and white noise beside it.

    Attributes:
        power: spectrum of the texture alone, float64 on the half-spectrum of ``rfftn``.
        total_power: that of texture, as the scanner sees it, and noise together.
        sd: standard deviation of a voxel, texture and noise together.
        gaussian: whether the texture is Gaussian, so that d′ is that of the ideal observer.
    """

    def __init__(
        self, texture: TextureSpec, noise: NoiseSpec, grid: Grid, scanner: AcquisitionSpec | None = None
    ) -> None:
        """Tabulate the spectra on the grid's frequencies."""
        self._shape = grid.shape
        gaussian = _gaussian_power(texture, grid)
        self._lumps = _lumps(texture, grid)
        self.power: Array64 = gaussian + sum(part.power for part in self._lumps)
        passed = np.abs(transfer(scanner, grid)) ** 2 if scanner and scanner.transfers else np.float64(1)
        self.total_power = passed * self.power + noise.sd**2
        parts = [*texture.components, texture.power_law, texture.lumpy, texture.clustered_lumpy]
        self.sd = float(np.sqrt(noise.sd**2 + sum(part.sd**2 for part in parts if part)))
        self.gaussian = not self._lumps
        self._filter = np.sqrt(gaussian).astype(np.float32)
        self._empty = not gaussian.any()
        self._weight = passed * multiplicity(grid) / (self.total_power * np.prod(grid.shape))

    def draw(self, rng: np.random.Generator) -> Array32:
        """Draw a texture, float32 ``(*S)``, mean 0."""
        field = self._draw_gaussian(rng)
        for part in self._lumps:
            field += part.draw(rng)
        return field

    def _draw_gaussian(self, rng: np.random.Generator) -> Array32:
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
        Gaussian. Where the texture is not Gaussian (lumps) it is the d′ of the best linear (Hotelling)
        observer, whose filter prewhitens by the stationary spectrum; a reader that uses the shape of the lumps
        can do better. Where the texture is confined to a tissue it is the d′ that the lesion would have in a
        field of it. ``profile`` is what the object has: the scanner's transfer function dims it and the texture
        alike, but not the noise; its bias field is left out. Poisson noise counts as that of the tissue, Rician as
        Gaussian of the same sd, which it is well above the noise.
        """
        spectrum = fft.rfftn(profile.astype(np.float64))
        return float(np.sqrt(np.sum(self._weight * (spectrum.real**2 + spectrum.imag**2))))

    def products(self, profiles: Sequence[Array32]) -> Array64:
        """Return the prewhitened products of known profiles with one another ``(K, K)``, d′² on the diagonal."""
        spectra = [fft.rfftn(profile.astype(np.float64)) for profile in profiles]
        return np.array([[np.sum(self._weight * (a.conj() * b).real) for b in spectra] for a in spectra])


def texture_power(texture: TextureSpec, grid: Grid) -> Array64:
    """Return the spectrum of a texture on the half-spectrum of ``rfftn``."""
    power: Array64 = _gaussian_power(texture, grid) + sum(part.power for part in _lumps(texture, grid))
    return power


def _gaussian_power(texture: TextureSpec, grid: Grid) -> Array64:
    power = np.zeros((*grid.shape[:-1], grid.shape[-1] // 2 + 1))
    for part in texture.components:
        power += gaussian_power(part.sd, part.length_mm, grid)
    if texture.power_law:
        power += power_law(texture.power_law.sd, texture.power_law.beta, grid)
    return power


def _lumps(texture: TextureSpec, grid: Grid) -> tuple[Lumpy | ClusteredLumpy, ...]:
    lumpy = [Lumpy(texture.lumpy, grid)] if texture.lumpy else []
    clustered = [ClusteredLumpy(texture.clustered_lumpy, grid)] if texture.clustered_lumpy else []
    return (*lumpy, *clustered)
