"""Scores of the ideal observer on the cases that a map is scored on, and the share of them that the map reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate, bootstrap, mean_estimate, per_subject, undefined
from hrcam_lightning.metrics.roc import area_statistic, auroc_estimate, lroc_estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.metrics.estimate import Floats
    from hrcam_lightning.metrics.table import ScoreTable

NO_PLACE = "the ideal observer is told where lesions lie"


@dataclass(frozen=True)
class ObserverScores:
    """What the ideal observer makes of n cases and K classes, in the order of a `ScoreTable`.

    Attributes:
        rating: (n, K); NaN in the column of a class that it does not read, such as "normal".
        located: (n, K) rating of case and place together, for LROC; NaN where it is told places.
        hit: (n, K) whether it points at the lesion; NaN where it is told places.
    """

    rating: Floats
    located: Floats
    hit: Floats

    def hits(self, table: ScoreTable) -> Floats:
        """Hits where the table has a mask, (n, K), NaN elsewhere."""
        return np.where(np.isfinite(table.pointing), self.hit, math.nan)


def ceiling_estimates(table: ScoreTable, observer: ObserverScores, *, auroc: bool) -> dict[str, Estimate]:
    """Scores of the ideal observer, by the code that scores the maps, on the same cases.

    Args:
        table: Scores of a map: its cases, labels and which of them have a mask are taken.
        observer: Of the same cases.
        auroc: Whether the task has an AUROC.

    Returns:
        ``auroc`` if asked for, ``pointing`` and ``lroc``.
    """
    hits = observer.hits(table)
    known = np.isfinite(hits)
    count = known.sum(1).astype(np.float64)
    found = {"auroc": auroc_estimate(observer.rating, table.label, subject=table.subject)} if auroc else {}
    found["pointing"] = mean_estimate(np.nan_to_num(hits).sum(1), count, NO_PLACE, subject=table.subject)
    told = undefined(0, NO_PLACE)
    found["lroc"] = lroc_estimate(observer.located, table.label, hits, subject=table.subject) if known.any() else told
    return found


def efficiency_estimates(table: ScoreTable, observer: ObserverScores, *, auroc: bool) -> dict[str, Estimate]:
    """Share of the ceiling: a map's score over that of the ideal observer, case by case the same cases.

    The interval is a BCa bootstrap of the ratio, in which subjects are drawn for both at once; none where all
    resamples agree, as of two readers that never miss.

    Args:
        table: Scores of a map.
        observer: Of the same cases.
        auroc: Whether the task has an AUROC.
    """
    hits = observer.hits(table)
    both = np.isfinite(hits)
    own = np.where(both, table.pointing, math.nan)
    n = len(table.case)
    ones = np.ones_like(table.label)
    found = {}
    if auroc:
        found["auroc"] = _ratio(
            area_statistic(table.probability, table.label, ones, table.subject),
            area_statistic(observer.rating, table.label, ones, table.subject),
            n,
        )
    if not both.any():
        return {**found, **dict.fromkeys(("pointing", "lroc"), undefined(0, NO_PLACE))}
    subjects = len(np.unique(table.subject))
    sums = [per_subject(np.nan_to_num(scores).sum(1), table.subject) for scores in (own, hits)]
    pointing = [((lambda weights, total=total: weights @ total), subjects) for total in sums]  # of as many pairs
    found["pointing"] = _ratio(pointing[0], pointing[1], int(both.any(1).sum()))
    found["lroc"] = _ratio(
        area_statistic(table.probability, table.label, own, table.subject),
        area_statistic(observer.located, table.label, hits, table.subject),
        n,
    )
    return found


def _ratio(
    first: tuple[Callable[[Floats], Floats], int] | None, second: tuple[Callable[[Floats], Floats], int] | None, n: int
) -> Estimate:
    if first is None or second is None:
        return undefined(n, "no class has cases of both kinds")
    (score, units), (ceiling, _) = first, second
    whole = np.ones((1, units))
    if not ceiling(whole)[0] > 0:
        return undefined(n, "the ideal observer scores 0")

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = score(weights) / ceiling(weights)
        return np.asarray(np.where(np.isfinite(ratio), ratio, math.nan))

    low, high = bootstrap(statistic, units)
    if low == high:
        low = high = math.nan
    return Estimate(float(statistic(whole)[0]), low, high, n)
