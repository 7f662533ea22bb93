"""Estimates: the value against scikit-learn, the interval against theory, undefined ones with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hrcam_lightning.metrics import auroc, bootstrap
from hrcam_lightning.metrics.estimate import auroc_estimate, mean_estimate, undefined


@pytest.mark.parametrize("digits", [6, 1])
def test_auroc_is_scikit_learns_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60).astype(float)
    scores = (rng.normal(size=60) + labels).round(digits)
    assert float(auroc(scores, labels)) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_works_along_the_last_axis() -> None:
    rng = np.random.default_rng(1)
    labels = np.stack([rng.permutation([0.0] * 10 + [1.0] * 10) for _ in range(3)])
    scores = rng.normal(size=(3, 20))
    rows = [roc_auc_score(row_labels, row) for row_labels, row in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(auroc(scores, labels), rows)


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


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(3).normal(size=2000)
    low, high = bootstrap(lambda index: values[index].mean(-1), len(values), resamples=4000)
    expected = 1.96 * values.std() / math.sqrt(len(values))
    assert high - values.mean() == pytest.approx(expected, rel=0.08)
    assert values.mean() - low == pytest.approx(expected, rel=0.08)


def test_the_interval_does_not_depend_on_how_the_resamples_are_portioned() -> None:
    values = np.random.default_rng(4).random(50)

    def statistic(
        index: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        assert index.shape[1] == 50
        return np.asarray(values[index].mean(-1))

    rng = np.random.default_rng(0)
    reference = np.quantile(values[rng.integers(0, 50, size=(1000, 50))].mean(-1), [0.025, 0.975])
    np.testing.assert_allclose(bootstrap(statistic, 50), reference)


def test_cases_are_resampled_and_pairs_are_averaged() -> None:
    total, count = np.array([2.0, 0.0, 1.0]), np.array([2.0, 0.0, 2.0])
    estimate = mean_estimate(total, count, "none")
    assert estimate.value == pytest.approx(3 / 4)
    assert estimate.n == 2
    assert (estimate.low, estimate.high) == (0.5, 1.0)


def test_a_mean_of_nothing_is_undefined() -> None:
    estimate = mean_estimate(np.zeros(3), np.zeros(3), "no masks")
    assert math.isnan(estimate.value)
    assert estimate.to_dict() == undefined(0, "no masks").to_dict()
