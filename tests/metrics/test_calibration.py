"""Calibration, against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from hrcam_lightning.metrics import wilson
from hrcam_lightning.metrics.calibration import brier_score, calibration_error, reliability

RNG = np.random.default_rng(0)
PROBABILITY = np.concatenate([RNG.random(300), [0.0, 0.1, 0.3, 0.5, 1.0]])
LABEL = (RNG.random(305) < PROBABILITY**2).astype(np.float64)


def test_bins_are_those_of_scikit_learn_edges_included() -> None:
    for bins in (10, 7):
        observed, predicted = calibration_curve(LABEL, PROBABILITY, n_bins=bins)
        found = reliability(PROBABILITY, LABEL, bins=bins)
        np.testing.assert_allclose([one.observed.value for one in found], observed)
        np.testing.assert_allclose([one.predicted for one in found], predicted)
        assert sum(one.observed.n for one in found) == 305
        assert all(one.low <= one.predicted <= one.high for one in found)


def test_brier_is_that_of_scikit_learn() -> None:
    found = brier_score(PROBABILITY, LABEL)
    assert found.value == pytest.approx(brier_score_loss(LABEL, PROBABILITY))
    assert found.low < found.value < found.high


def test_the_error_is_the_weighted_gap_of_the_bins() -> None:
    observed, predicted = calibration_curve(LABEL, PROBABILITY, n_bins=10)
    counts = np.histogram(PROBABILITY, np.nextafter(np.linspace(0, 1, 11), 2))[0] + [1, *[0] * 9]  # 0 is in the first
    found = calibration_error(PROBABILITY, LABEL)
    assert found.value == pytest.approx((counts * abs(observed - predicted)).sum() / 305)
    assert found.low < found.value < found.high


def test_by_hand() -> None:
    probability, label = np.array([0.95, 0.95, 0.05, 0.05]), np.array([1.0, 0, 0, 0])
    first, last = reliability(probability, label)
    assert [first.low, first.high] == pytest.approx([0, 0.1])
    assert last.observed.value == 0.5
    assert (last.observed.low, last.observed.high) == wilson(1, 2)
    assert calibration_error(probability, label).value == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    assert brier_score(probability, label).value == pytest.approx((0.0025 * 3 + 0.9025) / 4)


def test_subjects_are_drawn_whole() -> None:
    """The same cases three times over say no more than once: one interval, and not that of three times as many."""
    many, label = np.tile(PROBABILITY, 3), np.tile(LABEL, 3)
    subject = np.tile(np.arange(305), 3)
    for figure in (calibration_error, brier_score):
        once, thrice = figure(PROBABILITY, LABEL), figure(many, label, subject)
        assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
        apart = figure(many, label)
        assert apart.high - apart.low < 0.8 * (thrice.high - thrice.low)
    shares = [one.observed for one in reliability(many, label, subject)]
    assert sum(share.n for share in shares) == 915


def test_the_interval_of_the_error_covers_the_truth_at_0_and_beyond() -> None:
    """200 cases; BCa's interval held the first never and the second in 45 of 100."""
    rng = np.random.default_rng(0)
    for slope in (1.0, 0.8, 0.4):  # of a class's probability against the network's, around a half
        edges = np.linspace(0, 1, 11)
        truth = float(np.abs((1 - slope) * ((edges[1:] + edges[:-1]) / 2 - 0.5)).mean())
        held = []
        for _ in range(60):
            probability = rng.random(200)
            label = (rng.random(200) < 0.5 + slope * (probability - 0.5)).astype(np.float64)
            found = calibration_error(probability, label, resamples=300)
            assert found.low <= found.value <= found.high
            held.append(found.low <= truth + 1e-12 and truth <= found.high)
        assert np.mean(held) >= 0.88, slope


def test_what_is_not_finite_is_no_score() -> None:
    for figure in (calibration_error, brier_score):
        found = figure(np.array([0.5, math.nan]), np.array([0.0, 1]))
        assert math.isnan(found.value)
        assert found.reason == "1 of 2 cases have no finite probability"
        assert figure(np.array([]), np.array([])).reason == "there are no cases"


def test_a_perfect_network_has_no_error() -> None:
    label = np.array([0.0, 1, 0, 1])
    assert calibration_error(label, label).value == 0
    assert brier_score(label, label).value == 0
