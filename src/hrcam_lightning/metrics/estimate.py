"""A figure with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Estimate:
    """A score over a set of cases.

    Attributes:
        value: The score; NaN where it is undefined, never a stand-in.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Cases that it rests on.
        reason: Why the value is NaN.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    def to_dict(self) -> dict[str, float | int | str | None]:
        """For JSON, which knows no NaN: undefined values become None, with the reason beside them."""
        numbers = {name: _none_if_nan(getattr(self, name)) for name in ("value", "low", "high")}
        return {**numbers, "n": self.n, **({"reason": self.reason} if self.reason else {})}


def undefined(n: int, reason: str) -> Estimate:
    """An estimate that is not there, and why."""
    return Estimate(math.nan, math.nan, math.nan, n, reason)


def bootstrap(
    statistic: Callable[[Ints], Floats], cases: int, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic over cases drawn with replacement (Efron).

    Args:
        statistic: From case numbers (R, cases) to values (R,). A resample may be undefined, NaN; it is left out.
        cases: Number of cases.
        resamples: Number R of resamples in all; with 0 there is no interval.
        seed: The same seed gives the same interval.

    Returns:
        Lower and upper end; NaN without a resample that is defined.
    """
    if not resamples:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    # In portions: 1,000 resamples of 20,000 cases at once would take gigabytes.
    portion = max(1, min(resamples, 2_000_000 // cases))
    values = np.concatenate(
        [
            statistic(rng.integers(0, cases, size=(min(portion, resamples - done), cases)))
            for done in range(0, resamples, portion)
        ]
    )
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def mean_estimate(total: Floats, count: Floats, reason: str, resamples: int = 1000) -> Estimate:
    """Mean over (case, class) pairs, with cases as the unit of resampling.

    Args:
        total: (n,) sum of the values of a case's pairs.
        count: (n,) number of the case's pairs; 0 for a case that has none.
        reason: What to say if no case has any.
        resamples: Of the interval.
    """
    used = count > 0
    total, count = total[used], count[used]
    if not used.any():
        return undefined(0, reason)

    def statistic(index: Ints) -> Floats:
        return np.asarray(total[index].sum(-1) / count[index].sum(-1))

    low, high = bootstrap(statistic, len(total), resamples)
    return Estimate(float(total.sum() / count.sum()), low, high, len(total))


def auroc(scores: Floats, labels: Floats) -> Floats:
    """Area under the ROC curve (Mann-Whitney, ties count half) along the last axis; NaN with a single class."""
    positives = labels.sum(-1)
    negatives = labels.shape[-1] - positives
    rank_sum = (rankdata(scores, axis=-1) * labels).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def auroc_estimate(scores: Floats, labels: Floats, resamples: int = 1000) -> Estimate:
    """AUROC, averaged over the classes that have cases of both kinds.

    Args:
        scores: (n, K).
        labels: (n, K), 0 or 1.
        resamples: Of the interval.
    """
    both = (labels.min(0) == 0) & (labels.max(0) == 1)
    if not both.any():
        kind = {1.0: "every case is positive", 0.0: "every case is negative"}.get(
            float(labels.mean()), "no class has both"
        )
        return undefined(len(labels), f"{kind}: AUROC needs positive and negative cases")
    columns = np.flatnonzero(both)

    def statistic(index: Ints) -> Floats:
        return np.asarray(np.mean([auroc(scores[index, k], labels[index, k]) for k in columns], axis=0))

    low, high = bootstrap(statistic, len(labels), resamples)
    return Estimate(float(statistic(np.arange(len(labels))[None])[0]), low, high, len(labels))


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
