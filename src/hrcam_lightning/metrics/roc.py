"""Area under the ROC curve, under the LROC curve, and how sure they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit, ndtr
from scipy.stats import rankdata

from hrcam_lightning.metrics.estimate import Estimate, Z, bootstrap, undefined, wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.metrics.estimate import Floats, Ints


def auroc(scores: Floats, labels: Floats) -> Floats:
    """Area under the ROC curve (Mann-Whitney, ties count half) along the last axis; NaN with a single class."""
    positives = labels.sum(-1)
    negatives = labels.shape[-1] - positives
    rank_sum = (rankdata(scores, axis=-1) * labels).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def weighted_lroc_area(scores: Floats, labels: Floats, located: Floats, weights: Floats) -> Floats:
    """Area under the LROC curve (Swensson, Med Phys 1996) of cases that count several times.

    The share of (positive, negative) pairs in which the positive is rated higher and its lesion located right; ties
    count half. With all located it is the AUROC, and it never exceeds it.

    Args:
        scores: (n,) ratings.
        labels: (n,) 0 or 1.
        located: (n,) 1 where the lesion of a positive is located right.
        weights: (R, n).

    Returns:
        (R,); NaN where either kind has no weight.
    """
    order = np.argsort(scores, kind="stable")
    start = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # first of each run of ties
    weights, labels, located = weights[:, order], labels[order], located[order]
    negative = np.add.reduceat(weights * (1 - labels), start, axis=1)
    credit = np.add.reduceat(weights * labels * located, start, axis=1)
    below = negative.cumsum(1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((credit * below).sum(1) / ((weights @ labels) * negative.sum(1)))


def delong(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """AUROC of E ratings of the same cases, and their covariance (DeLong et al., Biometrics 1988).

    By mid-ranks (Sun & Xu, IEEE SPL 2014), so in n log n.

    Args:
        scores: (E, n).
        labels: (n,) 0 or 1; at least two of each.

    Returns:
        (E,) areas and (E, E) covariance.
    """
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    m, n = positive.shape[1], negative.shape[1]
    ranks = rankdata(scores, axis=1)
    of_positives = (ranks[:, labels == 1] - rankdata(positive, axis=1)) / n
    of_negatives = 1 - (ranks[:, labels == 0] - rankdata(negative, axis=1)) / m
    covariance = np.atleast_2d(np.cov(of_positives)) / m + np.atleast_2d(np.cov(of_negatives)) / n
    return of_positives.mean(1), covariance


def auroc_estimate(scores: Floats, labels: Floats, resamples: int = 1000, subject: Ints | None = None) -> Estimate:
    """AUROC, averaged over the classes that have cases of both kinds.

    The interval of one class and one case a subject is DeLong's on the logit scale, else BCa over subjects. Where
    all pairs are in order there is no variance to see: the interval is then Wilson's of as many hits as the smaller
    class has cases, a cautious one.

    Args:
        scores: (n, K).
        labels: (n, K), 0 or 1.
        resamples: Of the interval; 0 for none.
        subject: (n,) whose cases they are; each its own if not given.
    """
    both = (labels.min(0) == 0) & (labels.max(0) == 1)
    if not both.any():
        kind = {1.0: "every case is positive", 0.0: "every case is negative"}.get(
            float(labels.mean()), "no class has both"
        )
        return undefined(len(labels), f"{kind}: AUROC needs positive and negative cases")
    columns = np.flatnonzero(both)
    alone = subject is None or len(np.unique(subject)) == len(labels)
    if resamples and len(columns) == 1 and alone and 1 < labels[:, columns[0]].sum() < len(labels) - 1:
        k = columns[0]
        area, covariance = delong(scores[None, :, k], labels[:, k])
        smaller = min(labels[:, k].sum(), (1 - labels[:, k]).sum())
        return Estimate(float(area[0]), *_delong_interval(float(area[0]), covariance[0, 0], smaller), len(labels))
    return lroc_estimate(scores, labels, np.ones_like(labels), resamples, subject)


def lroc_estimate(
    scores: Floats, labels: Floats, located: Floats, resamples: int = 1000, subject: Ints | None = None
) -> Estimate:
    """LROC area, averaged over the classes that have cases of both kinds, with a BCa interval over subjects.

    Where all resamples agree, as with all pairs in order, it is Wilson's of the subjects that show the smaller kind.

    Args:
        scores: (n, K) ratings.
        labels: (n, K), 0 or 1.
        located: (n, K), 1 where a positive's lesion is located right; NaN where that is not known: such a positive is
            left out.
        resamples: Of the interval; 0 for none.
        subject: (n,) whose cases they are; each its own if not given.
    """
    found = area_statistic(scores, labels, located, subject)
    if found is None:
        return undefined(0, "no class has both positive cases with a mask and negative cases")
    statistic, units = found
    columns = _columns(labels, located)
    known = (np.isfinite(located) | (labels == 0))[:, columns]
    value = float(statistic(np.ones((1, units)))[0])
    low, high = bootstrap(statistic, units, resamples)
    if low == high:
        whose = np.arange(len(labels)) if subject is None else subject
        kinds = [(labels[:, columns] == kind) & known for kind in (0, 1)]
        smaller = min(len(np.unique(whose[rows])) for kind in kinds for rows in kind.T)
        low, high = wilson(value * smaller, smaller)
    return Estimate(value, low, high, int(known.any(1).sum()))


def area_statistic(
    scores: Floats, labels: Floats, located: Floats, subject: Ints | None = None
) -> tuple[Callable[[Floats], Floats], int] | None:
    """What `lroc_estimate` resamples: from weights (R, units) to areas (R,), and the number of units, the subjects.

    None where no class has cases of both kinds. Two of them of the same cases, of which the same positives are located
    or not, have the same units.
    """
    columns = _columns(labels, located)
    if not columns:
        return None
    known = np.isfinite(located) | (labels == 0)
    used = known[:, columns].any(1)
    scores, labels, located, known = scores[used], labels[used], np.nan_to_num(located[used]), known[used]
    _, place = np.unique(np.arange(len(labels)) if subject is None else subject[used], return_inverse=True)

    def statistic(weights: Floats) -> Floats:
        of_cases = weights[:, place]
        areas = [
            weighted_lroc_area(scores[rows, k], labels[rows, k], located[rows, k], of_cases[:, rows])
            for k, rows in zip(columns, known[:, columns].T, strict=True)
        ]
        return np.asarray(np.mean(areas, axis=0))

    return statistic, int(place.max()) + 1


def _columns(labels: Floats, located: Floats) -> list[int]:
    """Classes that have negative cases, and positive ones of which it is known whether they are located."""
    return [
        k
        for k in range(labels.shape[1])
        if ((labels[:, k] == 1) & np.isfinite(located[:, k])).any() and (labels[:, k] == 0).any()
    ]


def auroc_difference(first: Floats, second: Floats, labels: Floats) -> Estimate:
    """How much higher the AUROC of `first` is than that of `second`, two ratings (n,) of the same cases.

    Interval and two-sided p by DeLong's test; neither where it sees no variance, as between ratings that are perfect
    and constant. Undefined with fewer than two cases of either kind.
    """
    if not 1 < labels.sum() < len(labels) - 1:
        return undefined(len(labels), "a difference of AUROC needs two positive and two negative cases")
    areas, covariance = delong(np.stack([first, second]), labels)
    gap = float(areas[0] - areas[1])
    error = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    if not error > 0 and gap:
        return Estimate(gap, math.nan, math.nan, len(labels))
    p = 2 * float(ndtr(-abs(gap) / error)) if error > 0 else 1.0
    return Estimate(gap, gap - Z * error, gap + Z * error, len(labels), p=p)


def _delong_interval(area: float, variance: float, smaller: float) -> tuple[float, float]:
    if not variance > 0 or not 0 < area < 1:
        return wilson(area * smaller, smaller)
    half = Z * math.sqrt(variance) / (area * (1 - area))
    return float(expit(logit(area) - half)), float(expit(logit(area) + half))
