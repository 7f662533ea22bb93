"""Dice of a map's mask at many thresholds, and at four that are chosen in different ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.explain.null import otsu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hrcam_lightning.filtered.maps import Bools, Maps
    from hrcam_lightning.metrics.estimate import Floats

GRID = np.linspace(0.01, 1, 100)
"""Strengths among which a threshold is looked for."""

RULES = ("fixed", "validation", "otsu", "oracle")
"""Ways to a threshold: given; best on validation cases; each image's own by Otsu; best on the cases scored."""


def dice_at(strength: Maps, truth: Bools, thresholds: Floats) -> Floats:
    """Dice of ``strength ≥ threshold`` with a mask, (T,).

    A mask without a pixel has no score, NaN; a prediction without a pixel scores 0, having missed the lesion.

    Args:
        strength: (*S).
        truth: (*S) bool.
        thresholds: (T,).
    """
    inside = np.sort(strength[truth])
    if not inside.size:
        return np.full(len(thresholds), np.nan)
    everything = np.sort(strength, axis=None)
    limits = thresholds.astype(strength.dtype)  # as the filters compare them
    size = everything.size - np.searchsorted(everything, limits)
    shared = inside.size - np.searchsorted(inside, limits)
    return np.asarray(2 * shared / (size + inside.size))


def dice_curves(cases: Iterable[tuple[Maps, Bools]], fixed: float) -> Floats:
    """Dice of each case at the fixed threshold, at its own by Otsu, and at all of `GRID`, (n, 2 + 100)."""
    rows = []
    for strength, truth in cases:
        limits = np.concatenate([[fixed, otsu(strength)], GRID])
        rows.append(dice_at(strength, truth, limits))
    return np.array(rows).reshape(len(rows), 2 + len(GRID))


def best(curves: Floats) -> int:
    """Number in `GRID` of the threshold of the highest mean Dice; the lowest of equal ones, 0 without any score."""
    scored = curves[np.isfinite(curves[:, 0]), 2:]
    return int(scored.mean(0).argmax()) if len(scored) else 0


def four(curves: Floats, validation: Floats) -> tuple[dict[str, Floats], dict[str, float]]:
    """Dice (n,) by each of `RULES`, and the thresholds that are one number for all cases, without the fixed one.

    Args:
        curves: (n, 2 + 100) of the cases that are scored, as of `dice_curves`.
        validation: Those of validation cases.
    """
    tuned, oracle = best(validation), best(curves)
    scores = {
        "fixed": curves[:, 0],
        "validation": curves[:, 2 + tuned],
        "otsu": curves[:, 1],
        "oracle": curves[:, 2 + oracle],
    }
    return scores, {"validation": float(GRID[tuned]), "oracle": float(GRID[oracle])}
