from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from synth import Phantoms, PhantomSpec, SpecError
from synth.acquisition import AcquisitionSpec, add_noise, draw_bias, draw_noise, pass_through, transfer
from synth.grid import Grid
from synth.parts import NoiseSpec

if TYPE_CHECKING:
    from collections.abc import Callable

GRIDS = {2: Grid((48, 40), (1.0, 1.25)), 3: Grid((32, 32, 24), (1.0, 1.0, 1.5))}


def point(grid: Grid) -> np.ndarray[Any, np.dtype[np.float32]]:
    picture = np.zeros(grid.shape, np.float32)
    picture[tuple(n // 2 for n in grid.shape)] = 1
    return picture


def seen(spec: AcquisitionSpec, grid: Grid) -> np.ndarray[Any, np.dtype[np.float32]]:
    return pass_through(point(grid), transfer(spec, grid))


def test_point_spread_has_the_stated_width_and_keeps_the_total(dimensions: int) -> None:
    grid = GRIDS[dimensions]
    spread = seen(AcquisitionSpec(blur_mm=2.0, gain=1.5), grid)
    assert spread.sum() == pytest.approx(1.5, rel=1e-4)
    for axis, (n, step) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        along = spread.sum(tuple(set(range(dimensions)) - {axis})) / 1.5
        places = (np.arange(n) - n // 2) * step
        assert np.sqrt((along * places**2).sum()) == pytest.approx(2.0, rel=0.02)


def test_slices_average_over_their_thickness() -> None:
    grid = GRIDS[3]
    spread = seen(AcquisitionSpec(slice_mm=4.5), grid)
    profile = spread[16, 16]
    assert profile[12] == pytest.approx(1 / 3, abs=0.02)  # a box of three slices
    assert profile[[11, 13]] == pytest.approx(1 / 3, abs=0.05)
    assert np.abs(np.delete(profile, [11, 12, 13])).max() < 0.05
    assert np.abs(np.delete(spread, 16, 0)).max() < 1e-6


def test_truncated_kspace_rings_beside_an_edge() -> None:
    grid = Grid((64, 64), (1.0, 1.0))
    step = np.zeros(grid.shape, np.float32)
    step[20:44] = 1
    rung = pass_through(step, transfer(AcquisitionSpec(kspace=0.5), grid))
    assert rung.max() == pytest.approx(1.09, abs=0.05)  # the Gibbs overshoot
    assert rung.min() == pytest.approx(-0.09, abs=0.05)
    power = np.abs(np.fft.rfftn(rung)) ** 2
    assert power[17:48].max() < 1e-3 < power[13].max()


def test_ghost_lies_half_a_field_away_along_the_second_axis(dimensions: int) -> None:
    grid = GRIDS[dimensions]
    doubled = seen(AcquisitionSpec(ghost=0.3), grid)
    assert doubled == pytest.approx(point(grid) + 0.3 * np.roll(point(grid), grid.shape[1] // 2, 1), abs=1e-5)


def test_bias_field_is_smooth_positive_and_of_the_stated_strength(dimensions: int) -> None:
    grid = GRIDS[dimensions]
    spec, rng = AcquisitionSpec(bias=0.2, bias_mm=12), np.random.default_rng(0)
    drawn = [draw_bias(spec, grid, rng) for _ in range(200)]
    logs = np.stack([np.log(field) for field in drawn if field is not None])
    assert len(logs) == 200
    assert logs.mean() == pytest.approx(0, abs=1e-3)
    assert logs.std() == pytest.approx(0.2, rel=0.05)
    assert np.abs(logs.reshape(200, -1).mean(1)).max() < 1e-5  # the mean is left to the gain
    assert np.abs(np.diff(logs, axis=1)).max() < 0.15
    assert draw_bias(AcquisitionSpec(), grid, rng) is None


@pytest.mark.parametrize("share", [0.05, 0.5, 1])
def test_bias_field_is_as_strong_however_long_its_correlation(dimensions: int, share: float) -> None:
    grid, rng = GRIDS[dimensions], np.random.default_rng(0)
    spec = AcquisitionSpec(bias=0.3, bias_mm=share * float(grid.field_mm.max()))
    logs = np.stack([np.log(field) for _ in range(400) if (field := draw_bias(spec, grid, rng)) is not None])
    assert logs.std() == pytest.approx(0.3, rel=0.08)


def test_poisson_noise_is_that_of_counts() -> None:
    spec, rng = NoiseSpec(kind="poisson", sd=0.1), np.random.default_rng(0)
    for level in (0.02, 0.3, 0.6):
        clean = np.full((120, 120), level, np.float32)
        image = add_noise(spec, clean, draw_noise(spec, clean.shape, rng), level=0.6)
        counts = image.astype(np.float64) * 60  # level / sd²
        assert counts == pytest.approx(np.rint(counts), abs=1e-4)
        assert counts.mean() == pytest.approx(60 * level, rel=0.05)
        assert counts.var() == pytest.approx(60 * level, rel=0.05)
    uniform = rng.random((50, 60))
    means = rng.uniform(0, 80, (50, 60)).astype(np.float32)
    expected = stats.poisson.ppf(uniform, means.astype(np.float64))
    assert add_noise(NoiseSpec(kind="poisson", sd=1), means, (uniform,), level=1) == pytest.approx(expected)


def test_dprime_is_that_of_what_the_scanner_leaves(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    scanner = {"blur_mm": 1.5, "kspace": 0.8, "ghost": 0.1, "gain": 0.7}
    lesion = {"radius_mm": [2.2, 3], "dprime": 5}
    spec = make_spec(dimensions, prevalence=1, acquisition=scanner, lesions={"lesion": lesion})
    phantoms, grid = Phantoms(spec, 0), Grid(spec.shape, spec.spacing_mm)
    # Measured in the picture: what changed there, against the spectrum of pictures without a lesion.
    power = np.zeros(spec.shape)
    draws = 400
    for index in range(draws):
        power += np.abs(np.fft.fftn(phantoms.draw(index, lesions=False).image - 0.7 * 0.6 * 1.1)) ** 2 / draws
    for index in range(5):
        case = phantoms[index]
        change = np.fft.fftn(case.image.astype(np.float64) - case.twin().image)
        assert np.sqrt((np.abs(change) ** 2 / power).sum()) == pytest.approx(5, rel=0.05)
    assert grid.shape == spec.shape


def test_nothing_asked_changes_nothing(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    plain, asked = make_spec(dimensions), make_spec(dimensions, acquisition={"bias_mm": 20})
    assert np.array_equal(Phantoms(plain, 0)[1].image, Phantoms(asked, 0)[1].image)


def test_twin_differs_on_the_support_alone_behind_bias_and_poisson_noise(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    noise = {"kind": "poisson", "sd": 0.03}
    lesion = {"radius_mm": [2.2, 3], "delta": 0.3}
    spec = make_spec(
        dimensions, prevalence=1, noise=noise, acquisition={"bias": 0.1, "bias_mm": 18}, lesions={"lesion": lesion}
    )
    case = Phantoms(spec, 0)[0]
    changed = case.image != case.twin().image
    assert changed[case.masks[0]].mean() > 0.8
    centre = np.moveaxis(np.indices(spec.shape), 0, -1) - np.array(case.lesions[0].centre_voxel)
    assert np.linalg.norm(centre * spec.spacing_mm, axis=-1)[changed].max() < 4.1


def test_each_site_is_as_likely_and_seen_in_its_cases(make_spec: Callable[..., PhantomSpec]) -> None:
    sites = {"dim": {"gain": 0.5}, "plain": {}, "bright": {"gain": 1.5}}
    phantoms = Phantoms(make_spec(prevalence=0, sites=sites), 0)
    cases = [phantoms[index] for index in range(300)]
    for name, gain in (("dim", 0.5), ("plain", 1), ("bright", 1.5)):
        own = [case for case in cases if case.site == name]
        assert len(own) == pytest.approx(100, abs=4 * np.sqrt(300 * 2 / 9))
        assert np.mean([case.image.mean() for case in own]) == pytest.approx(0.6 * gain, rel=0.02)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"acquisition": {"kspace": 1.5}}, "acquisition.kspace is 1.5 but must lie between 0.1 and 1"),
        ({"acquisition": {"blur_mm": -1}}, "acquisition.blur_mm is -1.0 but must be at least 0"),
        ({"acquisition": {"slice_mm": 3}}, "acquisition.slice_mm is 3.0 but must be 0 in a field of 2 axes"),
        ({"acquisition": {"ghost": 1}}, "acquisition.ghost is 1.0 but must lie at 0 or above and below 1"),
        ({"acquisition": {"bias": 0.1, "bias_mm": 36}}, "acquisition.bias_mm is 36.0 but must be at most the field's"),
        ({"sites": {"a": {}}}, "sites is ['a'] but must name at least two sites"),
        ({"sites": {"a": {}, "b": {"gain": 0}}}, "sites.b.gain is 0.0 but must be above 0"),
        ({"sites": {"a": {}, "b": {}}, "acquisition": {}}, "sites is ['a', 'b'] but must replace acquisition"),
    ],
)
def test_an_impossible_scanner_is_refused(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(2, **changed)
    assert str(caught.value).startswith(sentence)
