"""Scores of readings, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synth.grid import Array64

Bools = npt.NDArray[np.bool_]
RESAMPLES = 1000
Z = 1.959964  # of 95 %


class Rated(NamedTuple):
    """A case as a reader rates it, by class ``(K,)``.

    Attributes:
        present: the classes of the case.
        ratios: log of the likelihood ratio of the class, against none.
        peaks: probability that the voxel most likely to be in the lesion is; None where the reader is told places.
        hits: whether it is; None where the reader is told places.
    """

    present: tuple[str, ...]
    ratios: Sequence[float]
    peaks: Sequence[float] | None = None
    hits: Sequence[bool] | None = None


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % bootstrap interval, NaN where no resample differs, over ``n`` cases."""

    value: float
    low: float
    high: float
    n: int

    def plain(self) -> dict[str, float | None]:
        """Return it for JSON, which has no NaN."""
        return {name: None if np.isnan(value) else value for name, value in vars(self).items()}


def against_the_rest(ratios: Array64, prevalence: float) -> Array64:
    """Return the log odds of each class up to a constant ``(N, K)`` from its log likelihood ratio to normal."""
    classes = ratios.shape[1]
    with np.errstate(divide="ignore"):
        normal, lesion = np.log([1 - prevalence, prevalence / classes])
    odds = np.empty_like(ratios)
    for number in range(classes):
        others = np.delete(ratios, number, axis=1) + lesion
        rest = np.logaddexp.reduce(np.column_stack([np.full(len(ratios), normal), others]), axis=1)
        odds[:, number] = ratios[:, number] - np.where(np.isfinite(rest), rest, 0)
    return odds


def area(ratings: Array64, present: Bools, credit: Array64, rng: np.random.Generator) -> Estimate | None:
    """Return the mean credit of the cases with the class that are rated above one without; ties count half.

    It has no interval where no resample differs, as where every case with the class is above every one without.
    """
    high, low = ratings[present, np.newaxis], ratings[~present]
    if not high.size or not low.size:
        return None
    wins = credit[:, np.newaxis] * ((high > low) + 0.5 * (high == low))
    first, second = (_resample(len(axis), rng) for axis in (high, low))
    return _estimate(float(wins.mean()), ((first @ wins) * second).sum(axis=1) / wins.size, len(ratings))


def share(hit: Bools, rng: np.random.Generator) -> Estimate | None:
    """Return the share of hits; where all are, or none, with Wilson's interval."""
    if not hit.size:
        return None
    estimate = _estimate(float(hit.mean()), _resample(len(hit), rng) @ hit / len(hit), len(hit))
    if not np.isnan(estimate.low):
        return estimate
    reach = Z**2 / (len(hit) + Z**2)
    return replace(estimate, low=1 - reach, high=1.0) if hit.all() else replace(estimate, low=0.0, high=reach)


def _resample(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how often each of ``n`` cases is in each bootstrap resample ``(R, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)


def _estimate(value: float, resampled: Array64, n: int) -> Estimate:
    if np.ptp(resampled) < 1e-9:  # what never differs, rounding apart, tells nothing of other cases
        return Estimate(value, np.nan, np.nan, n)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
