"""Textures made of lumps: stationary, of known spectrum, and not Gaussian.

Lumps lie at voxels, as a Poisson process, and are laid down by convolution; the field is circular. Hence the
spectra are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, special

from synth.spectra import gaussian_power, multiplicity

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid
    from synth.parts import ClusteredLumpySpec, LumpySpec

DIRECTIONS = 8


class Lumpy:
    """The lumpy background of Rolland & Barrett (J. Opt. Soc. Am. A 9, 649, 1992), less its mean.

    A Poisson number of equal Gaussian lumps at independent uniform places. A lump of standard deviation w
    gives a covariance of length √2 · w.

    Attributes:
        power: spectrum, float64 on the half-spectrum of ``rfftn``.
    """

    def __init__(self, spec: LumpySpec, grid: Grid) -> None:
        """Tabulate the spectrum and the lump."""
        self._shape = grid.shape
        # Lumps per voxel, of a density per square or cube of one length a side.
        self._rate = float(spec.density * np.prod(grid.spacing / spec.length_mm))
        self.power = gaussian_power(spec.sd, np.sqrt(2) * spec.length_mm, grid)
        self._lump = np.sqrt(self.power / self._rate).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Array32:
        """Draw a texture, float32 ``(*S)``, mean 0."""
        size = int(np.prod(self._shape))
        number = rng.poisson(self._rate * size)
        counts = np.bincount(rng.integers(size, size=number), minlength=size) - np.float32(self._rate)
        spectrum = fft.rfftn(counts.astype(np.float32).reshape(self._shape))
        field: Array32 = fft.irfftn(spectrum * self._lump, s=self._shape, overwrite_x=True)
        return field


class ClusteredLumpy:
    """The clustered lumpy background of Bochud, Abbey & Eckstein (Opt. Express 4, 33, 1999), less its mean.

    A Poisson number of clusters at uniform places; in each a Poisson number of blobs, displaced from its
    middle by independent Gaussian steps and all pointing the same way. A blob falls as exp(-2.1 · √q), with q
    the radius in units of its semi-axes (the paper divides √r, not r, by them). Steps are rounded to voxels
    and a cluster points in one of 8 directions. With κ clusters per voxel, n blobs in each, B the spectrum of
    a blob and Φ that of the distribution of steps, P = κ · mean over directions of |B|² · (n + n² · |Φ|²).

    Attributes:
        power: spectrum, float64 on the half-spectrum of ``rfftn``.
    """

    def __init__(self, spec: ClusteredLumpySpec, grid: Grid) -> None:
        """Tabulate the spectrum and the blobs."""
        self._shape = grid.shape
        self._blobs = spec.blobs
        self._steps = spec.spread_mm / grid.spacing
        self._rate = float(spec.density * np.prod(grid.spacing / spec.spread_mm))
        blobs = np.stack([fft.rfftn(_blob(spec, grid, direction)) for direction in _directions(len(grid.shape))])
        power = self._rate * (np.abs(blobs) ** 2).mean(0) * (spec.blobs + spec.blobs**2 * self._spread_power())
        scale = spec.sd**2 * np.prod(grid.shape) / (power * multiplicity(grid)).sum()
        self.power: Array64 = power * scale
        self._spectra = (blobs * np.sqrt(scale)).astype(np.complex64)
        middle = (0,) * len(grid.shape)
        self._mean = np.float32(self._rate * spec.blobs * self._spectra[(slice(None), *middle)].real.mean())

    def _spread_power(self) -> Array64:
        """Return |Φ|², from the probabilities of each rounded step along each axis."""
        power = np.ones((1,) * len(self._shape))
        for axis, (n, sd) in enumerate(zip(self._shape, self._steps, strict=True)):
            reach = n * int(np.ceil(8 * sd / n) + 1)
            edges = special.ndtr((np.arange(-reach, reach + 1) - 0.5) / sd)
            folded = np.diff(edges).reshape(-1, n).sum(0)  # the field is circular
            transformed = np.abs(np.fft.rfft(folded) if axis == len(self._shape) - 1 else np.fft.fft(folded)) ** 2
            power = power * transformed.reshape([-1 if a == axis else 1 for a in range(len(self._shape))])
        return power

    def draw(self, rng: np.random.Generator) -> Array32:
        """Draw a texture, float32 ``(*S)``, mean 0."""
        size = int(np.prod(self._shape))
        clusters = rng.poisson(self._rate * size)
        middles = np.stack(np.unravel_index(rng.integers(size, size=clusters), self._shape), -1)
        directions = rng.integers(DIRECTIONS, size=clusters)
        blobs = rng.poisson(self._blobs, clusters)
        steps = np.rint(rng.standard_normal((blobs.sum(), len(self._shape))) * self._steps).astype(int)
        places = (np.repeat(middles, blobs, 0) + steps) % self._shape
        flat = np.ravel_multi_index((np.repeat(directions, blobs), *places.T), (DIRECTIONS, *self._shape))
        counts = np.bincount(flat, minlength=DIRECTIONS * size).astype(np.float32)
        spectrum = np.zeros(self._spectra.shape[1:], np.complex64)
        for blob, lit in zip(self._spectra, counts.reshape(DIRECTIONS, *self._shape), strict=True):
            spectrum += blob * fft.rfftn(lit)
        field = np.asarray(fft.irfftn(spectrum, s=self._shape, overwrite_x=True), np.float32)
        return field - self._mean


def _directions(dimensions: int) -> Array64:
    """Return unit vectors ``(8, D)`` spread evenly over half the circle or the sphere."""
    index = np.arange(DIRECTIONS)
    if dimensions == 2:
        return np.stack([np.cos(np.pi * index / DIRECTIONS), np.sin(np.pi * index / DIRECTIONS)], -1)
    height, angle = (index + 0.5) / DIRECTIONS, np.pi * (3 - np.sqrt(5)) * index
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), height], -1)


def _blob(spec: ClusteredLumpySpec, grid: Grid, direction: Array64) -> Array64:
    """Return a blob ``(*S)`` around the first voxel of the circular field."""
    offsets = np.ix_(*[np.fft.fftfreq(n, 1 / (n * step)) for n, step in zip(grid.shape, grid.spacing, strict=True)])
    along = sum((part * offset for part, offset in zip(direction, offsets, strict=True)), np.zeros(1))
    squared = sum((offset**2 for offset in offsets), np.zeros(1))
    short, long = spec.blob_mm
    across = np.maximum(squared - along**2, 0)
    return np.asarray(np.exp(-2.1 * (across / short**2 + along**2 / long**2) ** 0.25))
