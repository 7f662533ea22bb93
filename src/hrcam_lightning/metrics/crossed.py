"""Intervals over both the cases and the trainings that a score rests on: a crossed bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hrcam_lightning.metrics.estimate import Floats


def crossed_weights(
    units: int, trainings: int, cases: int, resamples: int = 1000, seed: int = 0
) -> Iterator[tuple[slice, Floats, Floats]]:
    """Draw subjects and trainings with replacement, each by itself (Owen, AOAS 2007), in portions.

    Args:
        units: Number of subjects.
        trainings: Number of trainings.
        cases: Number of cases, by which the size of a portion is chosen.
        resamples: Number R of resamples.
        seed: Of the draws.

    Yields:
        Which of the 1 + R resamples these r are, how often each subject counts (r, units) and how often each
        training (r, trainings). The first of all is no resample: subjects and trainings as they are.
    """
    rng = np.random.default_rng(seed)
    portion = max(1, 2_000_000 // cases)
    for start in range(0, 1 + resamples, portion):
        size = min(portion, 1 + resamples - start)
        of_units = rng.multinomial(units, np.full(units, 1 / units), size).astype(np.float64)
        of_trainings = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size).astype(np.float64)
        if start == 0:
            of_units[0], of_trainings[0] = 1, 1
        yield slice(start, start + size), of_units, of_trainings


def percentile_estimate(draws: Floats, cases: int) -> Estimate:
    """A score with its 95 % percentile interval, of the values (1 + R,) that follow from `crossed_weights`.

    The difference of two rows of the same draws is paired. A resample that is undefined, NaN, is left out.
    """
    again = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(again, [0.025, 0.975]) if again.size else (np.nan, np.nan)
    return Estimate(float(draws[0]), float(low), float(high), cases)
