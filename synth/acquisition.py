"""What the scanner adds: noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from synth.grid import Array32
    from synth.parts import NoiseSpec


def draw_noise(spec: NoiseSpec, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array32, ...]:
    """Draw the noise fields, float32 ``(*S)``: one if Gaussian, two (real, imaginary) if Rician."""
    sd = np.float32(spec.sd)
    channels = 2 if spec.kind == "rician" else 1
    return tuple(sd * rng.standard_normal(shape, np.float32) for _ in range(channels))


def add_noise(clean: Array32, noise: tuple[Array32, ...]) -> Array32:
    """Return the picture ``(*S)`` made of ``clean``: a sum, or the magnitude of a complex sum."""
    noisy = clean + noise[0]
    return noisy if len(noise) == 1 else np.sqrt(noisy**2 + noise[1] ** 2)
