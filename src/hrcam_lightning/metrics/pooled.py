"""Scores of the pixels of all images together: PxAP, AUPRO, mean Dice over thresholds, FROC.

What is kept is a sparse histogram over map values: the 2^16 bins are the values of bfloat16 (float32 cut to 8
significant bits), so that they fit maps of any scale, are the same in every process, and a map in bfloat16 loses
nothing. Memory does not grow with the images. Groups of subjects are kept apart for the intervals.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrcam_lightning.metrics.detection import RATES, sensitivity_at
from hrcam_lightning.metrics.estimate import Estimate, Floats, Ints, jackknife, undefined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

BINS = 2**16
GROUPS = 20  # of subjects, left out in turn
NO_THRESHOLD = "no threshold: it is set on validation cases with masks, by maps of the same kind"
COLUMNS = ("outside", "inside", "per_lesion", "dice", "masks", "images", "false", "true", "images_by_parts",
           "false_by_parts", "true_by_parts")  # fmt: skip


def bins_of(values: Tensor) -> Tensor:
    """Bin of each value, int64 in 0..2^16 − 1, in the order of the values; NaN has no sensible one."""
    bits = (values.float() + 0.0).view(torch.int32) >> 16  # + 0: minus zero is zero
    return (torch.where(bits < 0, bits ^ 0x7FFF, bits) + 2**15).long()


def lowest_of(bins: Ints) -> Floats:
    """Lowest float32 of each bin: a value reaches it if and only if its bin reaches the bin."""
    signed = np.asarray(bins, np.int64) - 2**15
    bits = np.where(signed < 0, ((signed ^ 0x7FFF) << 16) | 0xFFFF, signed << 16).astype(np.int32)
    return bits.view(np.float32).astype(np.float64)


def histogram(values: Tensor, lesions: Tensor, peaks: Tensor | None, parts: Tensor | None) -> tuple[Ints, Floats]:
    """Histogram of one map against one mask.

    Args:
        values: (*S) finite map.
        lesions: (*S) number of the lesion at each pixel, 0 outside.
        peaks: bool (*S), detections by local maxima; None if there are none to be counted.
        parts: bool (*S), detections by connected parts; None if there is no threshold for them.

    Returns:
        Occupied bins (r,), from the highest, and (r, 11) in the order of `COLUMNS`: pixels outside and inside the
        lesions; pixels inside, each over the size of its lesion; by how much the map's Dice changes where the
        threshold falls to this bin; 1 in the first row if there is a mask; 1 in the first row, detections on no lesion
        and lesions found, by local maxima; the same by parts.
    """
    bins, numbers = bins_of(values).flatten().cpu().numpy(), lesions.flatten().cpu().numpy()
    lowest = bins.min()
    bins -= lowest  # a few thousand bins in place of 2^16
    pixels = np.bincount(bins)
    occupied = np.flatnonzero(pixels)[::-1]
    row_of = np.zeros(len(pixels), np.int64)
    row_of[occupied] = np.arange(len(occupied))
    rows = np.zeros((len(occupied), len(COLUMNS)))

    def count(chosen: Ints, weights: Floats | None = None) -> Floats:
        return np.bincount(row_of[chosen], weights, minlength=len(occupied)).astype(np.float64)

    on = numbers > 0
    if on.any():
        sizes = np.bincount(numbers)
        rows[:, 1], rows[:, 2] = count(bins[on]), count(bins[on], 1 / sizes[numbers[on]])
        true, predicted = rows[:, 1].cumsum(), pixels[occupied].cumsum()
        rows[:, 3] = np.diff(2 * true / (predicted + true[-1]), prepend=0)
        rows[0, 4] = 1
    rows[:, 0] = pixels[occupied] - rows[:, 1]
    for start, detections in ((5, peaks), (8, parts)):
        if detections is not None:
            rows[0, start] = 1
            chosen = detections.flatten().cpu().numpy()
            scores, lesion = bins[chosen], numbers[chosen]
            best = np.full(int(lesion.max(initial=0)) + 1, -1)
            np.maximum.at(best, lesion, scores)
            rows[:, start + 1] = count(scores[lesion == 0])
            rows[:, start + 2] = count(best[1:][best[1:] >= 0])
    return occupied + lowest, rows


def merge(codes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the rows of equal codes: (r,) and (r, 11), codes rising."""
    unique, place = torch.unique(codes, return_inverse=True)
    return unique, torch.zeros(len(unique), rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(
        0, place, rows
    )


def pooled_pixel_ap(outside: Floats, inside: Floats) -> Floats:
    """PxAP (Choe et al., CVPR 2020): average precision of the pixels of all images together.

    Args:
        outside: (..., n) pixels off the lesions at each value, values falling.
        inside: (..., n) pixels on them.

    Returns:
        (...); NaN without a pixel on a lesion.
    """
    true = inside.cumsum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = true / (true + outside.cumsum(-1))
        return np.asarray(np.nansum(precision * inside, -1) / true[..., -1])


def aupro(outside: Floats, per_lesion: Floats, limit: float = 0.3) -> Floats:
    """Area under the per-region overlap (Bergmann et al., IJCV 2021), up to a false positive rate, over that rate.

    The share of each lesion above a threshold, averaged over lesions, so that each counts the same whatever its size,
    against the share of all other pixels above it; straight lines between thresholds.

    Args:
        outside: (..., n) pixels off the lesions at each value, values falling.
        per_lesion: (..., n) pixels on them, each over the size of its lesion.
        limit: False positive rate.

    Returns:
        (...) in 0..1; NaN without a lesion or without a pixel off the lesions.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (
            np.concatenate([np.zeros_like(part[..., :1]), part.cumsum(-1)], -1) / part.sum(-1, keepdims=True)
            for part in (outside, per_lesion)
        )
        width = np.diff(x, axis=-1)
        used = np.clip(limit - x[..., :-1], 0, width)
        rise = np.where(width > 0, np.diff(y, axis=-1) * used / width, 0)
    return np.asarray((used * (y[..., :-1] + rise / 2)).sum(-1) / limit + 0 * y[..., -1])


def exact_columns(maps: Tensor, lesions: Tensor) -> tuple[Floats, Floats, Floats]:
    """What `pooled_pixel_ap` and `aupro` need, at every distinct value of maps that are all held: to check bins by.

    Args:
        maps: (B, *S) of one class.
        lesions: (B, *S) as `label_lesions` numbers them.

    Returns:
        (n,) outside, inside and per_lesion, values falling.
    """
    values, place = np.unique(-maps.double().cpu().numpy().reshape(-1), return_inverse=True)
    numbers = lesions.cpu().numpy().reshape(len(lesions), -1)
    weight = np.concatenate([np.where(row > 0, 1 / np.bincount(row)[row], 0) for row in numbers])
    on = numbers.reshape(-1) > 0
    outside, inside = (np.bincount(place[chosen], minlength=len(values)).astype(np.float64) for chosen in (~on, on))
    return outside, inside, np.bincount(place, weight, len(values)).astype(np.float64)


class PooledScores:
    """The figures of a merged histogram, each with a jackknife interval over groups of subjects.

    Each class has its own scale, so each is pooled by itself; figures are means over the classes that have lesions.

    Args:
        codes: (r,) ``(group · K + class) · 2^16 + bin``, each once.
        rows: (r, 11), see `histogram`.
        classes: K.
    """

    def __init__(self, codes: Ints, rows: Floats, classes: int) -> None:
        group, k = np.divmod(codes // BINS, classes)
        groups = np.unique(group)
        self._columns: list[dict[str, Floats]] = []  # a class: by name, of all and without each group, (1 + G, bins)
        self._bins: list[Ints] = []
        for number in range(classes):
            here = k == number
            bins, place = np.unique(-(codes[here] % BINS), return_inverse=True)
            table = np.zeros((1 + len(groups), len(bins), rows.shape[1]))
            table[1 + np.searchsorted(groups, group[here]), place] = rows[here]
            table[0] = table.sum(0)
            table[1:] = table[0] - table[1:]
            self._columns.append(dict(zip(COLUMNS, np.moveaxis(table, -1, 0), strict=True)))
            self._bins.append(-bins)

    def dice_thresholds(self) -> list[float]:
        """For each class the threshold of the highest mean Dice; NaN without masks. An oracle on its own cases."""
        return [
            float(lowest_of(bins[_mean_dice(columns)[0].argmax()])) if columns["masks"][0].any() else math.nan
            for columns, bins in zip(self._columns, self._bins, strict=True)
        ]

    def estimates(self, intervals: bool = True) -> dict[str, Estimate]:
        """``pxap``, ``aupro``, ``oracle/dice``, ``lesion/recall@…fp`` and ``lesion/froc``, the last two by parts too.

        Args:
            intervals: Whether to work them out.
        """
        statistics: dict[str, Callable[[dict[str, Floats]], Floats]] = {
            "pxap": lambda columns: pooled_pixel_ap(columns["outside"], columns["inside"]),
            "aupro": lambda columns: aupro(columns["outside"], columns["per_lesion"]),
            "oracle/dice": lambda columns: _mean_dice(columns).max(-1, initial=0),
        }
        for ending in ("", "_by_parts"):
            for rate in RATES:
                statistics[f"lesion/recall@{rate:g}fp{ending}"] = partial(_recall, ending=ending, rates=(rate,))
            statistics[f"lesion/froc{ending}"] = partial(_recall, ending=ending, rates=RATES)
        return {name: self._estimate(statistic, intervals) for name, statistic in statistics.items()}

    def froc_curve(self, rates: Sequence[float], ending: str = "") -> Floats:
        """Sensitivity (r,) at no more than so many false positives per image, on average over the classes with masks.

        Args:
            rates: r of them.
            ending: ``_by_parts`` for detections by connected parts.
        """
        curves = [_sensitivity(columns, ending, rates)[0] for columns in self._columns if columns["masks"][0].any()]
        curves = [curve for curve in curves if np.isfinite(curve).all()]
        return np.mean(curves, axis=0) if curves else np.full(len(rates), math.nan)

    def _estimate(self, statistic: Callable[[dict[str, Floats]], Floats], intervals: bool) -> Estimate:
        found = [statistic(columns) for columns in self._columns if columns["masks"][0].any()]
        if not found:
            return undefined(0, "no positive case has a mask")
        found = [values for values in found if math.isfinite(values[0])]
        if not found:
            return undefined(0, NO_THRESHOLD)
        value, without = float(np.mean(found, axis=0)[0]), np.mean(found, axis=0)[1:]
        low, high = jackknife(value, without) if intervals else (math.nan, math.nan)
        images = int(max(columns["images"][0].sum() for columns in self._columns))
        return Estimate(value, float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1)), images)


def _mean_dice(columns: dict[str, Floats]) -> Floats:
    """Mean Dice at each threshold, (1 + G, bins)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(columns["dice"].cumsum(-1) / columns["masks"].sum(-1, keepdims=True))


def _recall(columns: dict[str, Floats], ending: str, rates: Sequence[float]) -> Floats:
    """Sensitivity at the rates, on average, (1 + G,)."""
    return np.asarray(_sensitivity(columns, ending, rates).mean(-1))


def _sensitivity(columns: dict[str, Floats], ending: str, rates: Sequence[float]) -> Floats:
    """Sensitivity at each of the rates, (1 + G, r)."""
    false, true = (columns[f"{name}{ending}"].cumsum(-1) for name in ("false", "true"))
    images, lesions = columns[f"images{ending}"].sum(-1), columns["per_lesion"].sum(-1)
    return sensitivity_at(false, true, images, lesions, rates)
