"""What the scanner adds, in this order: bias field, transfer, noise.

The object is multiplied by the bias field of the receiver; the product passes the transfer function, one for
point spread, slice thickness, truncation of k-space (Gibbs ringing) and ghosting, which are all circular
convolutions; noise comes last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from synth.reading import require
from synth.spectra import frequency_squared, gaussian_power, multiplicity

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid
    from synth.parts import NoiseSpec


@dataclass(frozen=True, kw_only=True)
class AcquisitionSpec:
    """How a scanner sees the object.

    Attributes:
        gain: factor of all intensities, noise apart.
        blur_mm: standard deviation of a Gaussian point spread.
        slice_mm: thickness of a slice, a box along the third axis.
        bias: standard deviation of the logarithm of the bias field, over voxels and cases; its mean in a case is 0.
        bias_mm: correlation length of that field; the field's longest side at most.
        kspace: share of k-space along each in-plane axis that is kept, from the middle; less than 1 rings.
        ghost: strength of a ghost half a field away along the second axis.
    """

    gain: float = 1.0
    blur_mm: float = 0.0
    slice_mm: float = 0.0
    bias: float = 0.0
    bias_mm: float = 60.0
    kspace: float = 1.0
    ghost: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for key in ("blur_mm", "slice_mm", "bias"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "be at least 0")
        for key in ("gain", "bias_mm"):
            require(getattr(self, key) > 0, key, getattr(self, key), "be above 0")
        require(0.1 <= self.kspace <= 1, "kspace", self.kspace, "lie between 0.1 and 1")
        require(0 <= self.ghost < 1, "ghost", self.ghost, "lie at 0 or above and below 1")

    @property
    def transfers(self) -> bool:
        """Whether anything but bias is to be done."""
        return (self.gain, self.blur_mm, self.slice_mm, self.kspace, self.ghost) != (1, 0, 0, 1, 0)


def transfer(spec: AcquisitionSpec, grid: Grid) -> npt.NDArray[np.complex64]:
    """Return the transfer function on the half-spectrum of ``rfftn``."""
    total = spec.gain * np.exp(-2 * (np.pi * spec.blur_mm) ** 2 * frequency_squared(grid)).astype(np.complex128)
    for axis, (n, step) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        frequency = np.fft.fftfreq(n, step)
        if axis == len(grid.shape) - 1:
            frequency = np.abs(frequency[: n // 2 + 1])
        factor = np.ones(len(frequency), np.complex128)
        if axis == 2:
            factor *= np.sinc(frequency * spec.slice_mm)
        elif spec.kspace < 1:
            factor *= np.abs(frequency) * 2 * step <= spec.kspace
        if axis == 1:
            factor *= 1 + spec.ghost * np.exp(-2j * np.pi * frequency * step * (n // 2))
        total *= factor.reshape([-1 if a == axis else 1 for a in range(len(grid.shape))])
    return total.astype(np.complex64)


def pass_through(seen: Array32, passed: npt.NDArray[np.complex64]) -> Array32:
    """Return a picture ``(*S)`` after the :func:`transfer` function ``passed``."""
    spectrum = fft.rfftn(seen)
    spectrum *= passed
    return np.asarray(fft.irfftn(spectrum, s=seen.shape, overwrite_x=True), np.float32)


def draw_bias(spec: AcquisitionSpec, grid: Grid, rng: np.random.Generator) -> Array32 | None:
    """Draw a bias field, float32 ``(*S)``: the exponential of a smooth Gaussian field; None if there is none."""
    if spec.bias == 0:
        return None
    power = gaussian_power(1, spec.bias_mm, grid)
    power[(0,) * len(grid.shape)] = 0  # the mean is the gain's business
    # Of a long correlation, the mean is nearly all: what is left is brought to the strength that was asked for.
    left = (power * multiplicity(grid)).sum() / np.prod(grid.shape)
    smooth = spec.bias * np.sqrt(power / left)
    spectrum = fft.rfftn(rng.standard_normal(grid.shape, np.float32)) * smooth
    return np.asarray(np.exp(fft.irfftn(spectrum, s=grid.shape)), np.float32)


def draw_noise(spec: NoiseSpec, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array32 | Array64, ...]:
    """Draw the noise fields ``(*S)``.

    One if Gaussian, two (real, imaginary) if Rician; if Poisson, the quantile of each voxel in float64, so
    that a change of the picture changes the counts of its own voxels only.
    """
    if spec.kind == "poisson":
        return (rng.random(shape),)
    sd = np.float32(spec.sd)
    channels = 2 if spec.kind == "rician" else 1
    return tuple(sd * rng.standard_normal(shape, np.float32) for _ in range(channels))


def add_noise(spec: NoiseSpec, clean: Array32, noise: tuple[Array32 | Array64, ...], level: float) -> Array32:
    """Return the picture ``(*S)`` made of ``clean``: a sum, the magnitude of a complex sum, or counts.

    Counts are scaled back, so that their mean is ``clean`` and their standard deviation ``sd`` where ``clean``
    is ``level``.
    """
    if spec.kind == "poisson":
        mean = mean_counts(spec, clean, level)
        counts = np.ceil(np.maximum(np.nan_to_num(special.pdtrik(noise[0], mean)), 0))
        below = np.maximum(counts - 1, 0)
        counts = np.where(special.pdtr(below, mean) >= noise[0], below, counts)
        return np.asarray(counts / (level / spec.sd**2), np.float32)
    noisy = np.asarray(clean + noise[0], np.float32)
    return noisy if len(noise) == 1 else np.asarray(np.sqrt(noisy**2 + noise[1] ** 2), np.float32)


def mean_counts(spec: NoiseSpec, clean: Array32, level: float) -> Array64:
    """Return the mean of Poisson counts ``(*S)`` where the picture without noise is ``clean``."""
    return np.maximum(clean.astype(np.float64) * (level / spec.sd**2), 1e-9)
