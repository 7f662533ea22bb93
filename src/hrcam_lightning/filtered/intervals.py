"""Scores of several trainings on the same cases, with intervals over both: which cases, and which trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate
from hrcam_lightning.metrics.roc import weighted_lroc_area

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.metrics.estimate import Floats, Ints


def weighted_auroc(logits: Floats, labels: Floats, weights: Floats) -> Floats:
    """AUROC (R,) of cases that count several times, weights (R, n); NaN where a kind has no weight."""
    return weighted_lroc_area(logits, labels, np.ones_like(labels), weights)


def weighted_accuracy(logits: Floats, labels: Floats, weights: Floats) -> Floats:
    """Share (R,) of cases on the right side of a probability of one half, weights (R, n)."""
    right = (logits > 0) == (labels == 1)
    return np.asarray(weights @ right / weights.sum(1))


def resampled(
    score: Callable[[Floats, Floats, Floats], Floats],
    logits: Floats,
    labels: Floats,
    subject: Ints,
    resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """Mean score over trainings, on all cases and on resamples of both subjects and trainings, (E, 1 + R).

    Subjects and trainings are drawn with replacement, each by itself (a crossed bootstrap: Owen, AOAS 2007), the same
    draws for all E, so that differences of rows are paired.

    Args:
        score: One of the two above.
        logits: (E, T, n) of E kinds, T trainings each, training by training of the same seeds.
        labels: (n,) 0 or 1.
        subject: (n,) whose cases they are.
        resamples: R.
        seed: Of the draws.
    """
    kinds, trainings, cases = logits.shape
    _, place = np.unique(subject, return_inverse=True)
    units = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    means = np.empty((kinds, 1 + resamples))
    portion = max(1, 2_000_000 // cases)
    for start in range(0, 1 + resamples, portion):
        size = min(portion, 1 + resamples - start)
        of_units = rng.multinomial(units, np.full(units, 1 / units), size).astype(np.float64)
        of_trainings = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size) / trainings
        if start == 0:  # the cases and trainings as they are
            of_units[0], of_trainings[0] = 1, 1 / trainings
        weights = of_units[:, place]
        for kind in range(kinds):
            values = np.stack([score(one, labels, weights) for one in logits[kind]], axis=1)
            means[kind, start : start + size] = (values * of_trainings).sum(1)
    return means


def estimate(draws: Floats, cases: int) -> Estimate:
    """A score with its 95 % percentile interval, of a row (1 + R,) of `resampled` or the difference of two."""
    again = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(again, [0.025, 0.975]) if again.size else (np.nan, np.nan)
    return Estimate(float(draws[0]), float(low), float(high), cases)
