from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from synth import Phantoms
from synth.grid import Grid
from synth.parts import Component, NoiseSpec, TextureSpec
from synth.texture import Texture, texture_power

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from synth import PhantomSpec

TEXTURES = {
    "one": [{"sd": 0.05, "length_mm": 1.5}],
    "two": [{"sd": 0.04, "length_mm": 2.5}, {"sd": 0.03, "length_mm": 0.8}],
}


def full_power(spec: PhantomSpec) -> npt.NDArray[np.float64]:
    """Return the spectrum of texture and noise on all frequencies, written out without symmetries."""
    axes = [np.fft.fftfreq(n, step) for n, step in zip(spec.shape, spec.spacing_mm, strict=True)]
    squared = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    power = np.full(spec.shape, spec.noise.sd**2)
    for part in spec.texture.components:
        gaussian = np.exp(-2 * np.pi**2 * part.length_mm**2 * squared)
        power += part.sd**2 * gaussian / gaussian.mean()
    return power


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (4, 5, 6), (5, 4, 3)], ids=str)
def test_dprime_equals_that_of_the_dense_covariance_matrix(shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (1.0, 1.5, 2.0)[: len(shape)])
    parts = (Component(sd=0.3, length_mm=1.2), Component(sd=0.2, length_mm=0.6))
    texture = Texture(TextureSpec(components=parts), NoiseSpec(sd=0.1), grid)
    profile = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    covariance = np.fft.irfftn(texture.total_power, s=shape, axes=range(len(shape)))
    places = list(product(*map(range, shape)))
    dense = np.array([[covariance[tuple(np.subtract(a, b) % shape)] for a in places] for b in places])
    expected = np.sqrt(profile.ravel() @ np.linalg.solve(dense, profile.ravel()))
    assert texture.dprime(profile) == pytest.approx(expected, rel=1e-6)


def test_covariance_is_gaussian_of_the_stated_length_in_mm(dimensions: int) -> None:
    shape, spacing = (48, 40, 36)[:dimensions], (0.5, 1.0, 0.8)[:dimensions]
    parts = (Component(sd=0.3, length_mm=1.5), Component(sd=0.2, length_mm=2.0))
    power = texture_power(TextureSpec(components=parts), Grid(shape, spacing))
    covariance = np.fft.irfftn(power, s=shape, axes=range(dimensions))
    for lag in ((0, 0, 0), (1, 0, 0), (0, 2, 0), (3, 1, 2)):
        squared = sum((n * step) ** 2 for n, step in zip(lag[:dimensions], spacing, strict=True))
        expected = sum(part.sd**2 * np.exp(-squared / (2 * part.length_mm**2)) for part in parts)
        assert covariance[lag[:dimensions]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("texture", TEXTURES)
def test_measured_spectrum_equals_the_stated_one(
    make_spec: Callable[..., PhantomSpec], dimensions: int, texture: str
) -> None:
    draws = 400
    spec = make_spec(dimensions, prevalence=0, texture={"components": TEXTURES[texture]})
    phantoms, stated = Phantoms(spec, 3), full_power(spec)
    measured = np.zeros(spec.shape)
    for index in range(draws):
        measured += np.abs(np.fft.fftn(phantoms[index].image - 0.6)) ** 2 / measured.size / draws
    ratio = measured / stated
    # |DFT|² is exponential: its mean varies by 1/√draws, and conjugates halve the frequencies.
    assert ratio.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / draws / ratio.size))
    assert np.abs(ratio - 1).max() < 6 * np.sqrt(2 / draws)
    low = stated > np.median(stated)
    assert ratio[low].mean() == pytest.approx(1, abs=4 * np.sqrt(2 / draws / low.sum()))


@pytest.mark.parametrize("texture", TEXTURES)
def test_matched_filter_on_2000_draws_reaches_the_asked_dprime(
    make_spec: Callable[..., PhantomSpec], dimensions: int, texture: str
) -> None:
    draws, asked = 2000, 2.5
    lesion = {"radius_mm": [2.2, 3], "dprime": asked, "elongation": [1, 1.3]}
    field = {2: [24, 20], 3: [12, 12, 11]}[dimensions]
    spacing = [1.0] * dimensions
    parts = {"components": TEXTURES[texture]}
    whole = {"shape": field, "spacing_mm": spacing, "texture": parts}
    spec = make_spec(dimensions, **whole, prevalence=1, lesions={"lesion": lesion})
    phantoms, power = Phantoms(spec, 1), full_power(spec)
    present, absent = np.empty(draws), np.empty(draws)
    for index in range(draws):
        case, other = phantoms[index], phantoms.draw(index + draws, lesions=False)
        change = (case.image - case.twin().image).astype(np.float64)
        template = np.fft.ifftn(np.fft.fftn(change) / power).real
        present[index] = (template * (case.image - 0.6)).sum()
        absent[index] = (template * (other.image - 0.6)).sum()
    measured = (present.mean() - absent.mean()) / np.sqrt((present.var(ddof=1) + absent.var(ddof=1)) / 2)
    standard_error = np.sqrt(2 / draws + asked**2 / (4 * draws))
    assert abs(measured - asked) < 3 * standard_error


def test_standard_deviation_is_that_of_texture_and_noise_together(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    spec = make_spec(dimensions, prevalence=0)
    phantoms = Phantoms(spec, 0)
    assert phantoms.texture.sd == pytest.approx(0.05)
    values = np.stack([phantoms[index].image for index in range(300)])
    assert values.std() == pytest.approx(0.05, rel=0.02)
    assert values.mean() == pytest.approx(0.6, abs=0.002)


def test_no_component_leaves_noise_alone(make_spec: Callable[..., PhantomSpec]) -> None:
    phantoms = Phantoms(make_spec(texture={}), 0)
    assert not phantoms.texture.draw(np.random.default_rng(0)).any()
    profile = np.zeros(phantoms.spec.shape, np.float32)
    profile[3:5, 4] = 0.06
    assert phantoms.texture.dprime(profile) == pytest.approx(np.sqrt(2) * 2)
