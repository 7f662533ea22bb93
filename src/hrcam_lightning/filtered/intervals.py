"""Scores of several trainings on the same cases, with intervals over both: which cases, and which trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.metrics.crossed import crossed_weights
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

    The draws of `crossed_weights` are the same for all E, so that differences of rows are paired.

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
    means = np.empty((kinds, 1 + resamples))
    for part, of_units, of_trainings in crossed_weights(units, trainings, cases, resamples, seed):
        weights = of_units[:, place]
        for kind in range(kinds):
            values = np.stack([score(one, labels, weights) for one in logits[kind]], axis=1)
            means[kind, part] = (values * of_trainings).sum(1) / trainings
    return means
