"""Whether a probability means what it says: reliability, expected calibration error, Brier score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate, mean_estimate, per_subject, portion_of, resampled, undefined

if TYPE_CHECKING:
    from hrcam_lightning.metrics.estimate import Floats, Ints

BINS = 10


class ReliabilityBin(NamedTuple):
    """Cases whose probability lies in a bin.

    Attributes:
        low: From, not included but for 0.
        high: To, included.
        predicted: Mean probability of its cases.
        observed: Share of them that are of the class, with Wilson's interval where each subject has one case.
    """

    low: float
    high: float
    predicted: float
    observed: Estimate


def reliability(
    probability: Floats, label: Floats, subject: Ints | None = None, bins: int = BINS
) -> list[ReliabilityBin]:
    """Predicted against observed in bins of equal width; empty bins are left out.

    Args:
        probability: (n,), all finite.
        label: (n,), 0 or 1.
        subject: (n,) whose cases they are; each its own if not given.
        bins: How many between 0 and 1.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], probability)
    found = []
    for number in np.unique(place):
        inside = place == number
        own = None if subject is None else subject[inside]
        observed = mean_estimate(label[inside].astype(np.float64), np.ones(inside.sum()), "", subject=own)
        found.append(
            ReliabilityBin(float(edges[number]), float(edges[number + 1]), float(probability[inside].mean()), observed)
        )
    return found


def calibration_error(
    probability: Floats, label: Floats, subject: Ints | None = None, bins: int = BINS, resamples: int = 1000
) -> Estimate:
    """Expected calibration error (Naeini, AAAI 2015), of one class against the rest.

    ``Σ_b n_b / n · |observed_b − predicted_b|`` over bins of equal width. It is never below 0, and above it by chance
    even for a perfect network: the fewer the cases, the more. Resamples err upwards just so, hence the interval begins
    with the basic bootstrap's end (Davison & Hinkley 1997, section 5.2.1), which turns them round, or at 0 where a
    network that means what it says, with labels drawn from its own probabilities, comes as high once in twenty times;
    it ends with the higher of the basic and the percentile bootstrap's. In simulations 85 to 97 of 100 hold the truth.

    Args:
        probability: (n,).
        label: (n,), 0 or 1.
        subject: (n,) whose cases they are; each its own if not given.
        bins: How many between 0 and 1.
        resamples: Of the interval.
    """
    broken = _broken(probability)
    if broken is not None:
        return broken
    inside = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)[:, None] == np.arange(bins)
    gaps = per_subject(inside * (label - probability)[:, None], subject)  # n_b · (observed_b − predicted_b), in parts
    counts = per_subject(np.ones(len(label)), subject)

    def statistic(weights: Floats) -> Floats:
        return np.asarray(np.abs(weights @ gaps).sum(1) / (weights @ counts))

    value = float(statistic(np.ones((1, len(gaps))))[0])
    if not resamples or len(gaps) < 2:
        return Estimate(value, math.nan, math.nan, len(label))
    below, above = np.quantile(resampled(statistic, len(gaps), resamples), (0.025, 0.975))
    by_chance = np.quantile(_by_chance(probability, inside, resamples), 0.95)
    low = max(0.0, min(value, 2 * value - above)) if value > by_chance else 0.0
    return Estimate(value, float(low), float(max(value, above, 2 * value - below)), len(label))


def _by_chance(probability: Floats, inside: Floats, resamples: int) -> Floats:
    """The error (resamples,) of labels drawn from the probabilities (n,) themselves, in bins ``inside`` (n, bins)."""
    rng = np.random.default_rng(0)
    portion = portion_of(len(probability))
    sizes = [min(portion, resamples - done) for done in range(0, resamples, portion)]
    drawn = [(rng.random((size, len(probability))) < probability) - probability for size in sizes]
    return np.concatenate([np.abs(gaps @ inside).sum(1) for gaps in drawn]) / len(probability)


def brier_score(probability: Floats, label: Floats, subject: Ints | None = None, resamples: int = 1000) -> Estimate:
    """Mean squared difference of probability and label (Brier 1950), of one class against the rest: 0 to 1.

    Args:
        probability: (n,).
        label: (n,), 0 or 1.
        subject: (n,) whose cases they are; each its own if not given.
        resamples: Of the interval.
    """
    broken = _broken(probability)
    if broken is not None:
        return broken
    squares = np.square(probability - label)
    return mean_estimate(squares, np.ones(len(label)), "there are no cases", resamples, subject, signed=True)


def _broken(probability: Floats) -> Estimate | None:
    if not len(probability):
        return undefined(0, "there are no cases")
    count = int((~np.isfinite(probability)).sum())
    return (
        undefined(len(probability), f"{count} of {len(probability)} cases have no finite probability")
        if count
        else None
    )
