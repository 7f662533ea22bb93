"""Paired differences: exact permutations, calibrated p, what cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hrcam_lightning.metrics import paired_difference
from hrcam_lightning.metrics.paired import permutation_p


def test_few_subjects_are_permuted_exactly() -> None:
    # of the 8 signs of (1, 2, 3) the sums are ±6, ±4, ±2, 0, 0: two are as far as 6, four as 4
    assert permutation_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert permutation_p(np.array([-1.0, 2.0, 3.0])) == pytest.approx(4 / 8)
    assert permutation_p(np.zeros(3)) == 1


def test_random_permutations_agree_with_exact_ones() -> None:
    gaps = np.random.default_rng(0).normal(0.3, 1, 12)
    assert permutation_p(gaps, permutations=4000) == pytest.approx(permutation_p(gaps, permutations=5000), abs=0.02)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    p = [permutation_p(np.random.default_rng([1, run]).standard_t(3, 25), 199) for run in range(600)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3.3 * math.sqrt(level * (1 - level) / 600))


def test_p_is_never_zero() -> None:
    assert permutation_p(np.ones(100), 999) == pytest.approx(1 / 1000)


def test_the_difference_of_a_table_with_itself_is_nothing() -> None:
    scores = np.random.default_rng(2).random((30, 2))
    same = paired_difference(scores, scores)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_pairs_are_those_that_both_know_and_the_sign_follows_the_order() -> None:
    rng = np.random.default_rng(3)
    better = rng.random((50, 2))
    worse = better - 0.1 + rng.normal(0, 0.05, (50, 2))
    worse[0], better[1, 0] = np.nan, np.nan
    ahead, behind = paired_difference(better, worse), paired_difference(worse, better)
    assert ahead.value == pytest.approx(np.nanmean(better - worse))
    assert ahead.n == 49
    assert (behind.value, behind.p) == pytest.approx((-ahead.value, ahead.p))
    assert ahead.low > 0
    assert ahead.p == pytest.approx(1 / 10_000)


def test_pairing_is_narrower_than_two_intervals_apart() -> None:
    rng = np.random.default_rng(4)
    common = rng.random((80, 1))
    first, second = (common + rng.normal(0, 0.02, (80, 1)) for _ in range(2))
    gap = paired_difference(first, second)
    assert gap.high - gap.low < 0.25 * 2 * 1.96 * common.std() / math.sqrt(80) * math.sqrt(2)


def test_subjects_are_permuted_as_wholes() -> None:
    """Four copies of three differences are three differences."""
    gaps = np.array([1.0, 2.0, 3.0]).repeat(4)[:, None]
    assert paired_difference(gaps, np.zeros_like(gaps), subject=np.arange(3).repeat(4)).p == pytest.approx(2 / 8)


def test_scores_of_other_cases_are_refused_and_none_in_common_is_undefined() -> None:
    with pytest.raises(ValueError, match="not of the same cases"):
        paired_difference(np.zeros((3, 1)), np.zeros((4, 1)))
    assert paired_difference(np.full((3, 1), np.nan), np.zeros((3, 1))).reason == "no case is scored by both"
