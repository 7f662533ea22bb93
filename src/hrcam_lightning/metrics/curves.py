"""Curves: sensitivity against false positives (FROC, LROC), and shares of the lesions against d′ and size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hrcam_lightning.metrics.detection import sensitivity_at
from hrcam_lightning.metrics.lesions import recall_by_size_and_dprime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.metrics.estimate import Estimate, Floats, Ints

FROC_RATES = tuple(2 ** (step / 4) for step in range(-12, 13))
"""False positives per image at which FROC curves are drawn: from ⅛ to 8 in steps of a quarter octave."""
LROC_RATES = tuple(step / 100 for step in range(101))
"""False positive rates at which LROC curves are drawn."""
STEPS = (1.0, 2.0, 2.5, 5.0)  # widths of bins, and their decimal multiples
MOST_BINS = 8


class Bin(NamedTuple):
    """Lesions of a range of d′ or size, and the share of them that was found.

    Attributes:
        low: From, included.
        high: To, not included.
        share: Share found, with its interval.
    """

    low: float
    high: float
    share: Estimate


def lroc_curve(scores: Floats, labels: Floats, located: Floats, rates: Sequence[float] = LROC_RATES) -> Floats:
    """LROC curve: the share of positives that are rated above a threshold and located right (Swensson 1996).

    Args:
        scores: (n, K) ratings.
        labels: (n, K), 0 or 1.
        located: (n, K), 1 where a positive is located right; NaN where that is not known: such a positive is left out.
        rates: r false positive rates: shares of the negatives that are rated above the threshold.

    Returns:
        (r,) highest share at no more than each rate, on average over the classes that have cases of both kinds; NaN
        without one.
    """
    curves = []
    for score, label, hit in zip(scores.T, labels.T, located.T, strict=True):
        positive, negative = (label == 1) & np.isfinite(hit), label == 0
        if not positive.any() or not negative.any():
            continue
        candidates = np.unique(score[positive | negative])[::-1]
        false = negative.sum() - np.searchsorted(np.sort(score[negative]), candidates).astype(np.float64)
        rising = np.argsort(score[positive], kind="stable")
        above = np.append(hit[positive][rising][::-1].cumsum()[::-1], 0)  # hits of the positives from each one on
        true = above[np.searchsorted(score[positive][rising], candidates)]
        negatives, positives = (np.asarray(float(kind.sum())) for kind in (negative, positive))
        curves.append(sensitivity_at(false, true, negatives, positives, rates))
    return np.mean(curves, axis=0) if curves else np.full(len(rates), math.nan)


def bin_edges(values: Floats) -> list[float]:
    """Edges of bins of a round width, as few bins as 8 at most, that hold all values; a value on an edge lies above.

    Args:
        values: At least one, all finite.
    """
    low, high = float(values.min()), float(values.max())
    scale = 10.0 ** math.floor(math.log10((high - low) / MOST_BINS)) if high > low else 0.1
    widths = [step * unit for unit in (scale, 10 * scale) for step in STEPS]
    for width in widths:
        first, last = math.floor(low / width), math.floor(high / width) + 1
        if last - first <= MOST_BINS:
            break
    edges = [float(f"{width * number:.12g}") for number in range(first, last + 1)]
    edges[0] = min(edges[0], low)  # lest rounding leave out a value
    if edges[-1] <= high:
        edges[-1] = math.nextafter(high, math.inf)
    return edges


def shares_in_bins(found: Floats, values: Floats, edges: Sequence[float], subject: Ints | None = None) -> list[Bin]:
    """Share of the lesions found in each bin, with intervals as `mean_estimate` gives them; empty bins are left out.

    Args:
        found: (m,) 1 or 0; lesions of which it is not known, NaN, are left out.
        values: (m,) d′ or size; NaN is left out.
        edges: Of the bins, rising.
        subject: (m,) who bears the lesion; each its own subject if not given.
    """
    known = np.isfinite(found) & np.isfinite(values)
    subject = None if subject is None else subject[known]
    anything = (-math.inf, math.inf)
    cells = recall_by_size_and_dprime(found[known], values[known], np.zeros(known.sum()), edges, anything, subject)
    return [Bin(*cell.size, cell.recall) for cell in cells if cell.recall.n]
