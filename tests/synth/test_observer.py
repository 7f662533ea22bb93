from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import integrate, stats

from synth import Phantoms
from synth.lesion import draw_shape, place
from synth.observer import Observer, make_template, quadrature
from synth.shape import Placed, render

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from synth import PhantomSpec

SMALL = {
    2: {"shape": [9, 8], "spacing_mm": [1.0, 1.25]},
    3: {"shape": [6, 7, 6], "spacing_mm": [1.0, 1.0, 1.25]},
}
TINY = {"radius_mm": [1.1, 1.4], "edge_mm": 0.6, "elongation": [1, 1.2]}


def shapes(phantoms: Phantoms, number: int, seed: int = 0) -> list[Placed]:
    rng, grid = np.random.default_rng(seed), phantoms.grid
    spec = phantoms.spec.lesions["lesion"]
    free = (np.ones(grid.shape, bool) for _ in range(number))
    return [place(draw_shape(spec, len(grid.shape), "lesions", rng), every, grid, "lesions", rng) for every in free]


def bank(phantoms: Phantoms, placed: list[Placed]) -> Observer:
    spec = phantoms.spec.lesions["lesion"]
    return Observer([make_template(spec, one, phantoms.texture, phantoms.grid) for one in placed], phantoms.grid)


def field(phantoms: Phantoms, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    noise = np.float32(phantoms.spec.noise.sd) * rng.standard_normal(phantoms.spec.shape, np.float32)
    return phantoms.texture.draw(rng) + noise


def dense_inverse(phantoms: Phantoms) -> npt.NDArray[np.float64]:
    shape = phantoms.spec.shape
    covariance = np.fft.irfftn(phantoms.texture.total_power, s=shape, axes=range(len(shape)))
    places = list(product(*map(range, shape)))
    return np.linalg.inv(np.array([[covariance[tuple(np.subtract(a, b) % shape)] for a in places] for b in places]))


def mean_ratio(output: float, squared: float, low: float, high: float) -> float:
    def ratio(amplitude: float) -> float:
        return float(np.exp(amplitude * output - amplitude**2 * squared / 2))

    return ratio(low) if low == high else float(integrate.quad(ratio, low, high)[0]) / (high - low)


@pytest.mark.parametrize("control", [{"dprime": [1, 4]}, {"cnr": [0.5, 2]}, {"delta": 0.08}], ids=str)
@pytest.mark.parametrize("polarity", ["bright", "dark"])
@pytest.mark.parametrize("confined", [False, True])
def test_unknown_place_equals_the_sum_over_all_places(
    make_spec: Callable[..., PhantomSpec],
    dimensions: int,
    control: dict[str, object],
    polarity: str,
    confined: bool,
) -> None:
    lesion = {**TINY, **control, "polarity": polarity}
    phantoms = Phantoms(make_spec(dimensions, **SMALL[dimensions], lesions={"lesion": lesion}))
    spec, grid, rng = phantoms.spec.lesions["lesion"], phantoms.grid, np.random.default_rng(1)
    tissue = rng.random(grid.shape) < 0.97 if confined else np.ones(grid.shape, bool)
    placed = shapes(phantoms, 3)
    residual = field(phantoms, rng)
    residual[placed[0].box] += np.float32(0.1 if polarity == "bright" else -0.1) * placed[0].profile

    inverse, seen = dense_inverse(phantoms), residual.astype(np.float64).ravel()
    averages, insides = [], []
    for one in placed:
        shift = one.centre_voxel - np.floor(one.centre_voxel + 0.5)
        ratios, masks = [], []
        for voxel in product(*map(range, grid.shape)):
            moved = render(one.shape, np.array(voxel) + shift, grid)
            if moved is None or not tissue[voxel] or not tissue[moved.box][moved.profile > 0].all():
                continue
            profile, mask = np.zeros(grid.shape), np.zeros(grid.shape)
            profile[moved.box], mask[moved.box] = moved.profile, moved.mask
            unit = profile.ravel() * (1 if polarity == "bright" else -1)
            output, squared = float(unit @ inverse @ seen), float(unit @ inverse @ unit)
            per_unit = {"dprime": squared**-0.5, "cnr": phantoms.texture.sd, "delta": 1.0}[spec.control]
            ratios.append(mean_ratio(output * per_unit, squared * per_unit**2, *spec.amplitude))
            masks.append(mask)
        if ratios:
            averages.append(np.mean(ratios))
            insides.append(np.tensordot(ratios, masks, 1) / len(ratios))
    reading = bank(phantoms, placed).read(residual, tissue if confined else None)
    assert len(averages) == 3
    assert reading.log_ratio == pytest.approx(np.log(np.mean(averages)), abs=1e-4)
    assert reading.inside == pytest.approx(np.sum(insides, axis=0) / np.sum(averages), abs=1e-4)


@pytest.mark.parametrize("asked", [1.0, 2.0, 3.0])
def test_known_place_reaches_the_auroc_of_its_dprime(
    make_spec: Callable[..., PhantomSpec], dimensions: int, asked: float
) -> None:
    draws = 1000
    phantoms = Phantoms(make_spec(dimensions, lesions={"lesion": {"radius_mm": [2.2, 3], "dprime": asked}}))
    (placed,) = shapes(phantoms, 1)
    tissue = np.zeros(phantoms.spec.shape, bool)
    tissue[placed.box] = placed.profile > 0  # leaves one place
    unit = np.zeros(phantoms.spec.shape, np.float32)
    unit[placed.box] = placed.profile
    change = unit * np.float32(asked / phantoms.texture.dprime(unit))
    reader, rng = bank(phantoms, [placed]), np.random.default_rng(2)
    absent = np.array([reader.read(field(phantoms, rng), tissue).log_ratio for _ in range(draws)])
    present = np.array([reader.read(field(phantoms, rng) + change, tissue).log_ratio for _ in range(draws)])
    measured = (present[:, np.newaxis] > absent).mean()
    expected = stats.norm.cdf(asked / np.sqrt(2))
    assert abs(measured - expected) < 3 * np.sqrt(expected * (1 - expected) / draws)
    # Of a Gaussian log likelihood ratio, mean and variance are tied: ± d′²/2 and d′².
    error = asked / np.sqrt(draws)
    assert [absent.mean(), present.mean()] == pytest.approx([-(asked**2) / 2, asked**2 / 2], abs=4 * error)
    assert present.std() == pytest.approx(asked, rel=4 / np.sqrt(2 * draws))


def test_posterior_holds_what_it_promises(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    cases = 500
    spec = make_spec(dimensions, lesions={"lesion": {"radius_mm": [2, 3], "dprime": [2, 5], "elongation": [1, 1.3]}})
    phantoms = Phantoms(spec, 3)
    rng = np.random.default_rng(4)
    reader = Observer.of(spec.lesions["lesion"], phantoms.texture, phantoms.grid, "lesions", 48, rng)
    odds, labels, promised, hits = [], [], [], []
    for index in range(cases):
        case = phantoms[index]
        reading = reader.read(case.image - np.float32(0.6))
        odds.append(reading.log_ratio)
        labels.append(case.label)
        if case.label:
            promised.append(reading.inside.max())
            hits.append(case.masks[0].flat[reading.inside.argmax()])
    # Half of the cases have a lesion: the posterior probability is that of the ratio alone.
    probability = 1 / (1 + np.exp(-np.array(odds)))
    for low, high in ((0, 0.5), (0.5, 0.9), (0.9, 1)):
        within = (probability >= low) & (probability <= high)
        error = np.sqrt((probability * (1 - probability))[within].sum())
        assert abs(np.array(labels)[within].sum() - probability[within].sum()) < 3.5 * error
    expected = np.array(promised)
    assert abs(np.sum(hits) - expected.sum()) < 3.5 * np.sqrt((expected * (1 - expected)).sum())


def test_a_clear_lesion_does_not_overflow(make_spec: Callable[..., PhantomSpec]) -> None:
    spec = make_spec(prevalence=1, lesions={"lesion": {"radius_mm": 3, "delta": [1, 1.4]}})
    phantoms, rng = Phantoms(spec, 0), np.random.default_rng(5)
    reader = Observer.of(spec.lesions["lesion"], phantoms.texture, phantoms.grid, "lesions", 16, rng)
    case = phantoms[0]
    reading = reader.read(case.image - np.float32(0.6))
    assert case.lesions[0].dprime ** 2 / 8 < reading.log_ratio < case.lesions[0].dprime ** 2
    assert case.masks[0].flat[reading.inside.argmax()]
    assert 0.5 < reading.inside.max() < 1.001


@pytest.mark.parametrize(("low", "high"), [(0, 2), (3, 6), (1, 15)])
def test_quadrature_over_strengths_is_exact(low: float, high: float) -> None:
    nodes, weights = quadrature(low, high)
    for z in np.linspace(-3, high + 4, 15):
        normal = stats.norm(z)
        expected = np.exp(z**2 / 2) * np.sqrt(2 * np.pi) * (normal.cdf(high) - normal.cdf(low)) / (high - low)
        if normal.cdf(high) - normal.cdf(low) > 1e-6:
            assert weights @ np.exp(nodes * z - nodes**2 / 2) == pytest.approx(expected, rel=1e-3)


def test_no_room_is_named(make_spec: Callable[..., PhantomSpec]) -> None:
    phantoms = Phantoms(make_spec())
    reader = bank(phantoms, shapes(phantoms, 2))
    residual = np.zeros(phantoms.spec.shape, np.float32)
    with pytest.raises(ValueError, match=r"lesions\.radius_mm leaves no room"):
        reader.read(residual, np.zeros(residual.shape, bool))
    with pytest.raises(ValueError, match="no template"):
        Observer([], phantoms.grid)


def test_the_centre_of_a_hollow_lesion_must_lie_in_the_tissue_too(make_spec: Callable[..., PhantomSpec]) -> None:
    phantoms = Phantoms(make_spec())
    (solid,) = shapes(phantoms, 1)
    profile = np.ones((3, 3), np.float32)
    profile[1, 1] = 0
    hollow = Placed(solid.shape, np.array([11.2, 9.9]), (slice(10, 13), slice(9, 12)), profile, profile, 8.0)
    reader, residual = bank(phantoms, [hollow]), field(phantoms, np.random.default_rng(0))
    tissue = np.zeros(residual.shape, bool)
    tissue[10:13, 9:12] = True
    assert reader.read(residual, tissue).inside[hollow.box] == pytest.approx(profile, abs=1e-4)
    tissue[11, 10] = False
    with pytest.raises(ValueError, match="leaves no room"):
        reader.read(residual, tissue)
