"""Localization by the map of the class that the network predicts, beside that of the true class ("GT-known").

Top-1 localization (ILSVRC; Choe et al., CVPR 2020): a case counts as a hit only if its class is predicted and the map
of that class finds the lesion.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate, mean_estimate, undefined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.metrics.estimate import Floats, Ints

NO_DECISION = "no threshold of the probability: it is set on validation cases with and without the class"


def youden_thresholds(probability: Floats, label: Floats) -> list[float]:
    """For each class the probability from which on it is called, of the highest sensitivity + specificity.

    The highest of equal ones; NaN for a class without cases of both kinds, or with a probability that is not finite.

    Args:
        probability: (n, K).
        label: (n, K), 0 or 1.
    """
    found = []
    for scores, there in zip(probability.T, label.T, strict=True):
        if not np.isfinite(scores).all() or len(np.unique(there)) < 2:
            found.append(math.nan)
            continue
        candidates = np.unique(scores)[::-1]
        sensitivity, false_alarms = (
            (len(own) - np.searchsorted(own, candidates)) / len(own)
            for own in (np.sort(scores[there == kind]) for kind in (1, 0))
        )
        found.append(float(candidates[(sensitivity - false_alarms).argmax()]))
    return found


def predicted_classes(
    probability: Floats,
    task: Literal["binary", "multiclass", "multilabel"],
    thresholds: Sequence[float] | None,
) -> Floats:
    """Which classes the network calls, (n, K): 1 or 0, NaN without a threshold or a finite probability.

    Args:
        probability: (n, K).
        task: Of a multiclass task it is the class of the highest probability; else each that reaches its threshold.
        thresholds: (K,) of the probabilities, found on other cases.
    """
    if task == "multiclass":
        called = np.eye(probability.shape[1])[probability.argmax(1)]
        return np.asarray(np.where(np.isfinite(probability).all(1, keepdims=True), called, math.nan))
    limits = np.asarray(thresholds if thresholds is not None else [math.nan] * probability.shape[1])
    known = np.isfinite(probability) & np.isfinite(limits)
    return np.where(known, (probability >= limits).astype(np.float64), math.nan)


def predicted_estimates(
    called: Floats, pointing: Floats, pixel_ap: Floats, no_mask: str, resamples: int = 1000, subject: Ints | None = None
) -> dict[str, Estimate]:
    """``predicted/pointing`` and ``predicted/pixel_ap``: the scores of the true class's map, 0 where it is not called.

    The map of a class that the case is not of has an empty mask, on which nothing can be found.

    Args:
        called: (n, K) of `predicted_classes`.
        pointing: (n, K), NaN without a mask.
        pixel_ap: (n, K).
        no_mask: What to say where nothing has a mask.
        resamples: Of the intervals; 0 for none.
        subject: (n,) whose cases they are.
    """
    found = {}
    for name, scores in (("predicted/pointing", pointing), ("predicted/pixel_ap", pixel_ap)):
        masked = np.isfinite(scores)
        known = masked & np.isfinite(called)
        if masked.any() and not known.any():
            found[name] = undefined(0, NO_DECISION)
            continue
        total = np.where(known, np.nan_to_num(scores) * np.nan_to_num(called), 0).sum(1)
        found[name] = mean_estimate(total, known.sum(1).astype(np.float64), no_mask, resamples, subject)
    return found
