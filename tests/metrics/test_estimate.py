"""Intervals: BCa against scipy and theory, Wilson, jackknife, subjects, coverage; undefined ones with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from hrcam_lightning.metrics import bootstrap, wilson
from hrcam_lightning.metrics.estimate import Estimate, Floats, jackknife, mean_estimate, undefined

Draw = Callable[[np.random.Generator], Estimate]


def _mean(values: Floats) -> Callable[[Floats], Floats]:
    return lambda weights: np.asarray(weights @ values / weights.sum(1))


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(3).normal(size=2000)
    low, high = bootstrap(_mean(values), len(values), resamples=4000)
    expected = 1.96 * values.std() / math.sqrt(len(values))
    assert high - values.mean() == pytest.approx(expected, rel=0.08)
    assert values.mean() - low == pytest.approx(expected, rel=0.08)


def test_the_interval_of_a_skewed_sample_is_scipys_bca() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose(bootstrap(_mean(values), 40, resamples=20_000), theirs, atol=0.01)
    low, high = bootstrap(_mean(values), 40, resamples=20_000)
    assert high - values.mean() > 1.1 * (values.mean() - low)  # skewed as the sample is


def test_the_interval_does_not_depend_on_how_the_resamples_are_portioned() -> None:
    values = np.random.default_rng(4).random(3000)
    sizes = []

    def statistic(weights: Floats) -> Floats:
        sizes.append(len(weights))
        return _mean(values)(weights)

    first = bootstrap(statistic, 3000, resamples=1000)
    assert max(sizes) == 2_000_000 // 3000
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 3000, size=(1000, 3000))
    percentiles = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    np.testing.assert_allclose(first, percentiles, atol=6e-4)  # of a symmetric sample BCa is near the percentiles


def test_a_single_subject_has_no_interval() -> None:
    assert all(map(math.isnan, bootstrap(_mean(np.ones(1)), 1)))


def test_a_share_has_wilsons_interval() -> None:
    # Brown, Cai & DasGupta 2001; by scipy for an inner one
    theirs = stats.binomtest(17, 40).proportion_ci(method="wilson")
    assert wilson(17, 40) == pytest.approx((theirs.low, theirs.high))
    estimate = mean_estimate(np.ones(20), np.ones(20), "none")
    assert estimate.low == pytest.approx(1 / (1 + 1.96**2 / 20), abs=1e-4)
    assert estimate.high == 1
    assert estimate.low < 0.9 < estimate.high


def test_hits_alone_are_not_sure_where_a_subject_has_several_pairs() -> None:
    count = np.ones(40)
    count[3] = 2
    for share, expected in ((1.0, wilson(40, 40)), (0.0, wilson(0, 40))):
        estimate = mean_estimate(share * count, count, "")
        assert (estimate.value, estimate.low, estimate.high) == (share, *expected)
    together = mean_estimate(np.ones(60), np.ones(60), "", subject=np.arange(60) // 2)
    assert (together.low, together.high) == wilson(30, 30)


def test_a_difference_of_zeros_and_ones_is_no_share() -> None:
    gaps = np.array([0.0] * 10 + [1.0] * 10)
    share, difference = (mean_estimate(gaps, np.ones(20), "none", signed=signed) for signed in (False, True))
    assert (share.low, share.high) == pytest.approx(wilson(10, 20))
    assert (difference.low, difference.high) != (share.low, share.high)


def test_pairs_are_averaged_and_cases_resampled() -> None:
    total, count = np.array([2.0, 0.0, 1.0]), np.array([2.0, 0.0, 2.0])
    estimate = mean_estimate(total, count, "none")
    assert estimate.value == pytest.approx(3 / 4)
    assert estimate.n == 2
    assert 0.5 <= estimate.low <= estimate.high <= 1.0


def test_images_of_a_subject_are_resampled_together() -> None:
    """Ten copies of each subject's image carry no more than one: the interval must not shrink."""
    values = np.random.default_rng(5).random(40)
    single = mean_estimate(values, np.ones(40), "none")
    copies = mean_estimate(np.repeat(values, 10), np.ones(400), "none", subject=np.repeat(np.arange(40), 10))
    assert copies.value == pytest.approx(single.value)
    assert (copies.low, copies.high) == pytest.approx((single.low, single.high))
    naive = mean_estimate(np.repeat(values, 10), np.ones(400), "none")
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.random.default_rng(6).normal(size=20)
    without = (values.sum() - values) / 19
    half = stats.t.ppf(0.975, 19) * values.std(ddof=1) / math.sqrt(20)
    assert jackknife(values.mean(), without) == pytest.approx((values.mean() - half, values.mean() + half))
    assert all(map(math.isnan, jackknife(0.5, np.array([0.5] * 4))))
    assert all(map(math.isnan, jackknife(0.5, np.array([0.4] * 9 + [math.nan]))))
    assert all(map(math.isnan, jackknife(1.0, np.ones(20))))  # a perfect map: no spread to go by


def test_a_mean_of_nothing_is_undefined() -> None:
    estimate = mean_estimate(np.zeros(3), np.zeros(3), "no masks")
    assert math.isnan(estimate.value)
    assert estimate.to_dict() == undefined(0, "no masks").to_dict()
    assert estimate.to_dict()["value"] is None


def _beta_mean(rng: np.random.Generator) -> Estimate:
    """Scores like average precision, piled up near 1: mean 0.8."""
    return mean_estimate(rng.beta(4, 1, 60), np.ones(60), "none", 500)


def _share(rng: np.random.Generator) -> Estimate:
    return mean_estimate((rng.random(100) < 0.8).astype(float), np.ones(100), "none")


def _clustered(rng: np.random.Generator) -> Estimate:
    """60 subjects of 1 to 4 images that are alike; mean 0.8."""
    images = rng.integers(1, 5, 60)
    subject = np.repeat(np.arange(60), images)
    values = np.clip(np.repeat(rng.normal(0.8, 0.1, 60), images) + rng.normal(0, 0.03, len(subject)), -9, 9)
    return mean_estimate(values, np.ones(len(values)), "none", 500, subject)


CASES = pytest.mark.parametrize(("draw", "truth"), [(_beta_mean, 0.8), (_share, 0.8), (_clustered, 0.8)])


def _coverage(draw: Draw, truth: float, runs: int) -> float:
    found = [draw(np.random.default_rng([7, run])) for run in range(runs)]
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in found]))


@CASES
def test_intervals_cover_the_truth(draw: Draw, truth: float) -> None:
    """Of 300 intervals that cover 95 %, 272 to 297 do so, but once in a thousand times."""
    assert 0.907 <= _coverage(draw, truth, 300) <= 0.99


@pytest.mark.slow
@CASES
def test_intervals_cover_the_truth_in_93_to_97_of_100(draw: Draw, truth: float) -> None:
    assert 0.93 <= _coverage(draw, truth, 4000) <= 0.97
