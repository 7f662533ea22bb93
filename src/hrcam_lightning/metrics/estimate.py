"""A figure with its interval, or the reason why there is none.

The unit of resampling is the subject: images of one subject are alike, and so are the lesions of one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

Z = 1.959963984540054  # 97.5 % of a normal distribution lie below
JACKKNIFE_GROUPS = 200  # enough for a skewness; leaving out 20,000 subjects one by one would take minutes


@dataclass(frozen=True)
class Estimate:
    """A score over a set of cases.

    Attributes:
        value: The score; NaN where it is undefined, never a stand-in.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Cases that it rests on.
        reason: Why the value is NaN.
        p: Of a difference: two-sided permutation p.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""
    p: float = math.nan

    def to_dict(self) -> dict[str, float | int | str | None]:
        """For JSON, which knows no NaN: undefined values become None, with the reason beside them."""
        numbers = {name: _none_if_nan(getattr(self, name)) for name in ("value", "low", "high")}
        chance = {} if math.isnan(self.p) else {"p": self.p}
        return {**numbers, "n": self.n, **chance, **({"reason": self.reason} if self.reason else {})}


def undefined(n: int, reason: str) -> Estimate:
    """An estimate that is not there, and why."""
    return Estimate(math.nan, math.nan, math.nan, n, reason)


def bootstrap(
    statistic: Callable[[Floats], Floats], units: int, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a statistic over units drawn with replacement: BCa (Efron, JASA 1987).

    Args:
        statistic: From weights (R, units), how often each unit was drawn, to values (R,). A resample may be undefined,
            NaN; it is left out.
        units: Number of units, which are subjects.
        resamples: Number R of resamples in all; with 0 there is no interval.
        seed: The same seed gives the same interval.

    Returns:
        Lower and upper end; NaN for a single unit, and without a resample that is defined.
    """
    if not resamples or units < 2:
        return math.nan, math.nan
    with np.errstate(invalid="ignore", divide="ignore"):  # undefined resamples
        value = float(statistic(np.ones((1, units)))[0])
        values = resampled(statistic, units, resamples, seed)
        values = values[np.isfinite(values)]
        if not values.size:
            return math.nan, math.nan
        below = (values < value).mean() + (values == value).mean() / 2
        bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
        reach = bias + np.array([-Z, Z])
        shares = ndtr(bias + reach / np.maximum(1 - _acceleration(statistic, units) * reach, 1e-9))
    low, high = np.quantile(values, shares)
    return float(low), float(high)


def resampled(statistic: Callable[[Floats], Floats], units: int, resamples: int, seed: int = 0) -> Floats:
    """A statistic of units drawn with replacement, (resamples, ...).

    Args:
        statistic: From weights (R, units), how often each unit was drawn, to values (R, ...).
        units: Number of units.
        resamples: How many, at least 1.
        seed: The same seed gives the same draws.
    """
    rng = np.random.default_rng(seed)
    # In portions: 1,000 resamples of 20,000 cases at once would take gigabytes.
    portion = portion_of(units)
    sizes = [min(portion, resamples - done) for done in range(0, resamples, portion)]
    return np.concatenate([statistic(_draw(rng, size, units)) for size in sizes])


def portion_of(units: int) -> int:
    """How many resamples of so many units are held at a time: 16 MB."""
    return max(1, 2_000_000 // units)


def _draw(rng: np.random.Generator, resamples: int, units: int) -> Floats:
    """How often each unit is drawn, (R, units)."""
    drawn = rng.integers(0, units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def _acceleration(statistic: Callable[[Floats], Floats], units: int) -> float:
    """Sixth of the skewness of the statistic, by leaving out each unit, or each of 200 groups of them."""
    groups = min(units, JACKKNIFE_GROUPS)
    kept = (np.arange(units) % groups != np.arange(groups)[:, None]).astype(np.float64)
    values = statistic(kept)
    values = values[np.isfinite(values)]
    gaps = values.mean() - values if values.size else values
    spread = float((gaps**2).sum())
    return float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def jackknife(value: float, without: Floats) -> tuple[float, float]:
    """95 % interval by leaving out each of G random groups of subjects (Shao & Tu 1995, section 2.3).

    For figures of pooled pixels, of which no case keeps its own: only G partial sums need to be held.

    Args:
        value: The figure.
        without: (G,) figures without each group; NaN where undefined.

    Returns:
        Lower and upper end by Student's t; NaN unless all are defined and not all the same, as for a perfect map,
        and with fewer than 5 groups.
    """
    if len(without) < 5 or not np.isfinite(without).all() or np.ptp(without) < 1e-12:
        return math.nan, math.nan
    count = len(without)
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(student.ppf(0.975, count - 1)) * error
    return value - half, value + half


def wilson(hits: float, trials: float) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, JASA 1927): not a single point where all or none are hits."""
    share = hits / trials
    centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2)) / (1 + Z**2 / trials)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def per_subject(values: Floats, subject: Ints | None) -> Floats:
    """Sum of the values (n, ...) of each subject's cases; the values themselves without subjects."""
    if subject is None:
        return values
    _, place = np.unique(subject, return_inverse=True)
    total = np.zeros((int(place.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(total, place, values)
    return total


def mean_estimate(
    total: Floats,
    count: Floats,
    reason: str,
    resamples: int = 1000,
    subject: Ints | None = None,
    *,
    signed: bool = False,
) -> Estimate:
    """Mean over (case, class) pairs, with subjects as the unit of resampling.

    A share of subjects, one pair each that is hit or missed, has Wilson's interval, and so has one of several pairs a
    subject where all are hit or none is, of as many trials as there are subjects: resamples of 200 hits would be 200
    hits, always.

    Args:
        total: (n,) sum of the values of a case's pairs.
        count: (n,) number of the case's pairs; 0 for a case that has none.
        reason: What to say if no case has any.
        resamples: Of the interval.
        subject: (n,) whose cases they are; each its own if not given.
        signed: The values are differences: 0 and 1 are no hits and misses.
    """
    used = count > 0
    if not used.any():
        return undefined(0, reason)
    subjects = None if subject is None else subject[used]
    cases = int(used.sum())
    total, count = per_subject(total[used], subjects), per_subject(count[used], subjects)
    value = float(total.sum() / count.sum())
    hit_or_missed = bool((count == 1).all() and np.isin(total, (0, 1)).all())
    if resamples and not signed and (hit_or_missed or (total == 0).all() or (total == count).all()):
        return Estimate(value, *wilson(value * len(total), len(total)), cases)

    def statistic(weights: Floats) -> Floats:
        return np.asarray(weights @ total / (weights @ count))

    return Estimate(value, *bootstrap(statistic, len(total), resamples), cases)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
