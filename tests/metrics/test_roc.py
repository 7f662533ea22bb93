"""AUROC, LROC and DeLong against scikit-learn, brute force and simulation."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from hrcam_lightning.metrics import auroc, auroc_difference, auroc_estimate, delong, lroc_estimate, wilson
from hrcam_lightning.metrics.roc import weighted_lroc_area

if TYPE_CHECKING:
    from hrcam_lightning.metrics.estimate import Floats


def _ratings(rng: np.random.Generator, positives: int, negatives: int, separation: float) -> tuple[Floats, Floats]:
    labels = np.r_[np.ones(positives), np.zeros(negatives)]
    return rng.normal(size=len(labels)) + separation * labels, labels


@pytest.mark.parametrize("digits", [6, 1])
def test_auroc_is_scikit_learns_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60).astype(float)
    scores = (rng.normal(size=60) + labels).round(digits)
    theirs = roc_auc_score(labels, scores)
    assert float(auroc(scores, labels)) == pytest.approx(theirs, abs=1e-12)
    assert delong(scores[None], labels)[0][0] == pytest.approx(theirs, abs=1e-12)
    assert weighted_lroc_area(scores, labels, np.ones(60), np.ones((1, 60)))[0] == pytest.approx(theirs, abs=1e-12)


def test_auroc_works_along_the_last_axis() -> None:
    rng = np.random.default_rng(1)
    labels = np.stack([rng.permutation([0.0] * 10 + [1.0] * 10) for _ in range(3)])
    scores = rng.normal(size=(3, 20))
    rows = [roc_auc_score(row_labels, row) for row_labels, row in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(auroc(scores, labels), rows)


def test_weights_stand_for_repeated_cases() -> None:
    rng = np.random.default_rng(2)
    scores, labels = _ratings(rng, 12, 15, 1)
    scores = scores.round(1)
    weights = rng.integers(0, 4, (5, 27)).astype(float)
    for row, area in zip(weights.astype(int), weighted_lroc_area(scores, labels, np.ones(27), weights), strict=True):
        assert area == pytest.approx(roc_auc_score(labels.repeat(row), scores.repeat(row)))


def test_auroc_of_several_classes_is_the_mean_of_those_that_have_both_kinds() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (50, 3)).astype(float)
    labels[:, 1] = 0
    scores = rng.random((50, 3))
    expected = np.mean([roc_auc_score(labels[:, k], scores[:, k]) for k in (0, 2)])
    assert auroc_estimate(scores, labels).value == pytest.approx(expected)


@pytest.mark.parametrize(("label", "kind"), [(0.0, "negative"), (1.0, "positive")])
def test_auroc_of_a_single_class_is_undefined_and_says_why(label: float, kind: str) -> None:
    estimate = auroc_estimate(np.random.default_rng(0).random((8, 1)), np.full((8, 1), label))
    assert math.isnan(estimate.value)
    assert kind in estimate.reason
    assert estimate.to_dict() == {"value": None, "low": None, "high": None, "n": 8, "reason": estimate.reason}


def test_lroc_area_is_the_share_of_pairs_that_are_in_order_and_located() -> None:
    rng = np.random.default_rng(3)
    scores, labels = _ratings(rng, 9, 11, 1)
    scores = scores.round(0)  # ties
    located = rng.integers(0, 2, 20).astype(float)
    pairs = [
        located[i] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
        for i, j in itertools.product(np.flatnonzero(labels == 1), np.flatnonzero(labels == 0))
    ]
    got = lroc_estimate(scores[:, None], labels[:, None], located[:, None])
    assert got.value == pytest.approx(np.mean(pairs))
    assert got.low < got.value < got.high
    assert got.value <= auroc(scores, labels)


def test_a_positive_without_a_mask_is_left_out_of_lroc() -> None:
    scores, labels = np.array([[3.0], [9.0], [1.0], [2.0]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    got = lroc_estimate(scores, labels, np.array([[1.0], [np.nan], [np.nan], [np.nan]]))
    assert (got.value, got.n) == (1, 3)
    nothing = lroc_estimate(scores, labels, np.full((4, 1), np.nan))
    assert nothing.reason.startswith("no class")


def test_delongs_variance_is_that_of_its_components() -> None:
    """Brute force over all pairs, equation by equation."""
    rng = np.random.default_rng(4)
    first, labels = _ratings(rng, 13, 17, 1)
    second = (first + rng.normal(size=30)).round(1)
    areas, covariance = delong(np.stack([first, second]), labels)
    components = []
    for scores in (first, second):
        x, y = scores[labels == 1], scores[labels == 0]
        wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        components.append((wins.mean(1), wins.mean(0)))
    v10, v01 = (np.stack(parts) for parts in zip(*components, strict=True))
    np.testing.assert_allclose(areas, v10.mean(1))
    np.testing.assert_allclose(covariance, np.cov(v10) / 13 + np.cov(v01) / 17)


def test_perfect_separation_has_an_interval_all_the_same() -> None:
    scores, labels = np.arange(20.0)[:, None], (np.arange(20) >= 10).astype(float)[:, None]
    estimate = auroc_estimate(scores, labels)
    assert estimate.value == estimate.high == 1
    assert 0.6 < estimate.low < 0.9


def test_perfect_areas_of_two_classes_or_of_subjects_have_an_interval_too() -> None:
    scores, labels = np.arange(40.0)[:, None], (np.arange(40) >= 25).astype(float)[:, None]
    two = auroc_estimate(scores.repeat(2, 1), labels.repeat(2, 1))
    assert (two.value, two.low, two.high) == (1, *wilson(15, 15))
    subject = np.arange(40) // 2  # 20 of them, one with images of both kinds: 13 have a negative one, 8 a positive one
    of_subjects = auroc_estimate(scores, labels, subject=subject)
    assert (of_subjects.low, of_subjects.high) == wilson(8, 8)
    nothing = lroc_estimate(scores, labels, np.zeros_like(labels))
    assert (nothing.value, nothing.low, nothing.high) == (0, *wilson(0, 15))


def test_subjects_with_several_images_widen_the_interval() -> None:
    scores, labels = _ratings(np.random.default_rng(5), 40, 40, 1)
    alone = auroc_estimate(scores[:, None], labels[:, None])
    subject = np.arange(80).repeat(4)
    together = auroc_estimate(scores.repeat(4)[:, None], labels.repeat(4)[:, None], subject=subject)
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_difference_that_has_no_variance_to_see_is_not_sure() -> None:
    few = auroc_difference(np.array([3.0, 1, 2, 4]), np.array([4.0, 3, 2, 1]), np.array([1.0, 0, 0, 0]))
    assert math.isnan(few.value)
    assert few.reason == "a difference of AUROC needs two positive and two negative cases"
    perfect = auroc_difference(np.array([3.0, 4, 1, 2]), np.zeros(4), np.array([1.0, 1, 0, 0]))
    assert perfect.value == 0.5
    assert all(math.isnan(number) for number in (perfect.low, perfect.high, perfect.p))


def test_a_difference_of_areas_is_zero_with_itself_and_sure_where_it_is_large() -> None:
    scores, labels = _ratings(np.random.default_rng(6), 50, 60, 2)
    noise = np.random.default_rng(7).normal(size=110)
    same = auroc_difference(scores, 3 * scores + 1, labels)
    assert (same.value, same.p) == (0, 1)
    apart = auroc_difference(scores, noise, labels)
    assert apart.p < 1e-6
    assert apart.low > 0
    assert apart.value == pytest.approx(float(auroc(scores, labels) - auroc(noise, labels)))


def _coverage(runs: int) -> float:
    truth = float(norm.cdf(1.5 / math.sqrt(2)))
    hits = []
    for run in range(runs):
        scores, labels = _ratings(np.random.default_rng([8, run]), 40, 60, 1.5)
        estimate = auroc_estimate(scores[:, None], labels[:, None])
        hits.append(estimate.low <= truth <= estimate.high)
    return float(np.mean(hits))


def test_delongs_interval_covers_the_truth() -> None:
    """Of 400 intervals that cover 95 %, 366 to 394 do so, but once in a thousand times."""
    assert 0.914 <= _coverage(400) <= 0.986


@pytest.mark.slow
def test_delongs_interval_covers_the_truth_in_93_to_97_of_100() -> None:
    assert 0.93 <= _coverage(4000) <= 0.97
