"""Power spectra known in closed form, on the half-spectrum of ``rfftn``.

A field of N voxels is circular; ``P(f)`` is the expected ``|DFT|²/N``, so that its mean over the N
frequencies is the variance of a voxel, and white noise of standard deviation sd has ``P = sd²``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from synth.grid import Array64, Grid


def gaussian_power(sd: float, length_mm: float, grid: Grid) -> Array64:
    """Return the spectrum of the covariance sd² · exp(-r²/(2 · length²)).

    It is exp(-2π² · length² · f²), a product over the axes. Each factor is scaled to mean 1 over its axis's
    frequencies, so that the variance is exactly sd².
    """
    product = np.full((1,) * len(grid.shape), sd**2)
    for axis, (n, step) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        factor = np.exp(-2 * (np.pi * length_mm * np.fft.fftfreq(n, step)) ** 2)
        factor = factor / factor.mean()
        if axis == len(grid.shape) - 1:
            factor = factor[: n // 2 + 1]
        product = product * factor.reshape([-1 if a == axis else 1 for a in range(len(grid.shape))])
    return product


def power_law(sd: float, beta: float, grid: Grid) -> Array64:
    """Return the spectrum sd² · c · f^(-β), f in cycles per mm in every direction (Burgess 1999).

    Below one cycle per longest side of the field, and so at frequency 0, it is flat; c makes the variance
    exactly sd². Mammograms have β near 3 (A. E. Burgess, Mammographic structure, Proc. SPIE 3661, 1999).
    """
    squared = frequency_squared(grid)
    power = np.maximum(squared, grid.field_mm.max() ** -2) ** (-beta / 2)
    mean = float((power * multiplicity(grid)).sum() / np.prod(grid.shape))
    scaled: Array64 = power * (sd**2 / mean)
    return scaled


def frequency_squared(grid: Grid) -> Array64:
    """Return the squared frequency, in cycles² per mm²."""
    axes = [
        np.asarray(np.fft.fftfreq(n, step), np.float64) for n, step in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    axes[-1] = axes[-1][: grid.shape[-1] // 2 + 1]  # squared, the sign of the highest does not matter
    squared: Array64 = sum((part**2 for part in np.ix_(*axes)), np.zeros(1))
    return squared


def multiplicity(grid: Grid) -> Array64:
    """Return how many of the N frequencies each place along the last axis of the half-spectrum stands for."""
    # It holds one of each pair of conjugates, save where they lie in one plane.
    pairs = np.full(grid.shape[-1] // 2 + 1, 2.0)
    pairs[0] = 1
    if grid.shape[-1] % 2 == 0:
        pairs[-1] = 1
    return pairs
