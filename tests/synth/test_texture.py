from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from synth import Phantoms
from synth.grid import Grid
from synth.parts import ClusteredLumpySpec, Component, LumpySpec, NoiseSpec, PowerLawSpec, TextureSpec
from synth.texture import Texture, texture_power

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from synth import PhantomSpec

TEXTURES: dict[str, dict[str, object]] = {
    "one": {"components": [{"sd": 0.05, "length_mm": 1.5}]},
    "two": {"components": [{"sd": 0.04, "length_mm": 2.5}, {"sd": 0.03, "length_mm": 0.8}]},
    "power law": {"power_law": {"sd": 0.05, "beta": 3}},
    "lumpy": {"lumpy": {"sd": 0.05, "length_mm": 1.5, "density": 0.6}},
    "clustered lumpy": {"clustered_lumpy": {"sd": 0.05, "blob_mm": [1, 2.5], "spread_mm": 3, "blobs": 8}},
}


def full_power(spec: PhantomSpec) -> npt.NDArray[np.float64]:
    """Return the spectrum of texture and noise on all frequencies, written out without symmetries."""
    axes = [np.fft.fftfreq(n, step) for n, step in zip(spec.shape, spec.spacing_mm, strict=True)]
    squared = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    power = np.full(spec.shape, spec.noise.sd**2)
    for part in spec.texture.components:
        gaussian = np.exp(-2 * np.pi**2 * part.length_mm**2 * squared)
        power += part.sd**2 * gaussian / gaussian.mean()
    if law := spec.texture.power_law:
        lowest = 1 / max(n * step for n, step in zip(spec.shape, spec.spacing_mm, strict=True))
        falling = np.maximum(np.sqrt(squared), lowest) ** -law.beta
        power += law.sd**2 * falling / falling.mean()
    if lumpy := spec.texture.lumpy:
        lump = np.exp(-4 * np.pi**2 * lumpy.length_mm**2 * squared)
        power += lumpy.sd**2 * lump / lump.mean()
    if spec.texture.clustered_lumpy:
        half = Texture(spec.texture, spec.noise, Grid(spec.shape, spec.spacing_mm)).power
        power += np.fft.fftn(np.fft.irfftn(half, s=spec.shape, axes=range(len(spec.shape)))).real
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
    spec = make_spec(dimensions, prevalence=0, texture=TEXTURES[texture])
    phantoms, stated = Phantoms(spec, 3), full_power(spec)
    measured = np.zeros(spec.shape)
    for index in range(draws):
        measured += np.abs(np.fft.fftn(phantoms[index].image - 0.6)) ** 2 / measured.size / draws
    ratio = measured / stated
    # |DFT|² is exponential: its mean varies by 1/√draws, and conjugates halve the frequencies. Lumps brighten
    # and darken whole cases, at all frequencies together.
    shared = 0.0 if phantoms.texture.gaussian else 0.06
    assert ratio.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / draws / ratio.size) + shared)
    assert np.abs(ratio - 1).max() < 6 * np.sqrt(2 / draws) * (1 + 5 * shared)
    low = stated > np.median(stated)
    assert ratio[low].mean() == pytest.approx(1, abs=4 * np.sqrt(2 / draws / low.sum()) + shared)


@pytest.mark.parametrize("texture", TEXTURES)
def test_matched_filter_on_many_draws_reaches_the_asked_dprime(
    make_spec: Callable[..., PhantomSpec], dimensions: int, texture: str
) -> None:
    draws, asked = 2000 if texture in ("one", "two") else 800, 2.5
    lesion = {"radius_mm": [2.2, 3], "dprime": asked, "elongation": [1, 1.3]}
    field = {2: [24, 20], 3: [12, 12, 11]}[dimensions]
    spacing = [1.0] * dimensions
    whole = {"shape": field, "spacing_mm": spacing, "texture": TEXTURES[texture]}
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
    # The filter's output has heavier tails than a Gaussian's where the texture is made of few lumps.
    assert abs(measured - asked) < (3 if phantoms.texture.gaussian else 5) * standard_error


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


@pytest.mark.parametrize("texture", TEXTURES)
def test_every_texture_has_the_stated_sd_and_mean_0(
    make_spec: Callable[..., PhantomSpec], dimensions: int, texture: str
) -> None:
    # Wide enough a field that the mean of a case says little about the next voxel.
    wide = {2: [64, 64], 3: [32, 32, 24]}[dimensions]
    spec = make_spec(dimensions, shape=wide, prevalence=0, texture=TEXTURES[texture])
    drawn = Texture(spec.texture, spec.noise, Grid(spec.shape, spec.spacing_mm))
    rng = np.random.default_rng(0)
    fields = np.stack([drawn.draw(rng) for _ in range(200)])
    assert fields.dtype == np.float32
    assert np.sqrt((fields**2).mean()) == pytest.approx(0.05, rel=0.05)
    assert fields.mean() == pytest.approx(0, abs=4 * fields.mean(tuple(range(1, fields.ndim))).std() / np.sqrt(200))
    assert drawn.sd == pytest.approx(np.hypot(0.05, 0.03))
    assert drawn.power[(0,) * dimensions] > 0


@pytest.mark.parametrize("density", [0.05, 0.5, 5])
def test_skewness_of_lumpy_texture_is_that_of_shot_noise(dimensions: int, density: float) -> None:
    # Campbell's theorem: the nth cumulant is rate · ∫ lumpⁿ, so the skewness is (2π/3)^(D/2) / π^(3D/4) / √density.
    grid = Grid((48, 48, 32)[:dimensions], (1.0, 1.0, 1.5)[:dimensions])
    spec = TextureSpec(lumpy=LumpySpec(sd=1, length_mm=3, density=density))
    rng, drawn = np.random.default_rng(0), Texture(spec, NoiseSpec(sd=0.1), grid)
    fields = np.stack([drawn.draw(rng) for _ in range({2: 400, 3: 60}[dimensions])]).astype(np.float64)
    expected = (2 * np.pi / 3) ** (dimensions / 2) / np.pi ** (3 * dimensions / 4) / np.sqrt(density)
    assert (fields**3).mean() == pytest.approx(expected, rel=0.1, abs=0.07)
    assert not drawn.gaussian


def test_blobs_of_a_cluster_point_the_same_way() -> None:
    # One long thin blob: its field is elongated along one of 8 directions.
    grid = Grid((64, 64), (1.0, 1.0))
    cluster = ClusteredLumpySpec(sd=1, blob_mm=(1, 6), spread_mm=4, blobs=40, density=4**2 / 64**2)
    drawn, rng = Texture(TextureSpec(clustered_lumpy=cluster), NoiseSpec(sd=0.1), grid), np.random.default_rng(2)
    power = np.mean([np.abs(np.fft.rfftn(drawn.draw(rng))) ** 2 for _ in range(600)], 0) / 64**2
    low = slice(1, 6)
    assert power[low, low] == pytest.approx(drawn.power[low, low], rel=0.5)
    assert power[1:, 1:].sum() == pytest.approx(drawn.power[1:, 1:].sum(), rel=0.1)


def test_power_law_falls_with_the_stated_exponent() -> None:
    grid = Grid((64, 48), (1.0, 0.5))
    power = texture_power(TextureSpec(power_law=PowerLawSpec(sd=2, beta=2.5)), grid)
    assert power[4, 0] / power[8, 0] == pytest.approx(2**2.5)
    assert power[0, 3] / power[8, 0] == pytest.approx(1)  # 3 / 24 mm and 8 / 64 mm are one frequency
    assert power[0, 0] == power[1, 0]
