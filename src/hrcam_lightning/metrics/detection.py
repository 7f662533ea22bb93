"""Detections: points that a map offers as lesions, and FROC, how many lesions they find at how many false ones.

A detection on a lesion finds it; further ones on the same lesion are neither right nor wrong; one on no lesion is false
(CAMELYON16; Ehteshami Bejnordi et al., JAMA 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.metrics.estimate import Floats

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image


def local_maxima(maps: Tensor, radius: int = 3) -> Tensor:
    """Local maxima after non-maximum suppression: pixels with no higher one within `radius` along every axis.

    A plateau, equal ones that touch, corners included, is one detection, at its first pixel in memory order, and of
    equal ones within reach of each other the first stays. The lowest value of a map is none: a flat map offers no
    detection.

    Args:
        maps: (B, K, *S).
        radius: Pixels; two detections are farther apart than this along some axis.

    Returns:
        bool (B, K, *S).

    Raises:
        ValueError: If the radius is not at least 1.
    """
    if radius < 1:
        raise ValueError(f"radius is {radius}, but must be at least 1 pixel")
    values = maps.float()
    lowest = values.flatten(2).amin(-1).reshape(*maps.shape[:2], *[1] * (maps.ndim - 2))
    highest = (values == _window_maximum(values, radius)) & (values > lowest)
    highest = _first_of_plateaus(highest)
    size = highest[0, 0].numel()
    exact = torch.float32 if size < 2**24 else torch.float64
    rank = torch.arange(size, 0, -1, device=maps.device, dtype=exact).reshape(highest.shape[2:])
    first = torch.where(highest, rank, 0.0)
    return highest & (first == _window_maximum(first, radius))


def component_peaks(maps: Tensor, thresholds: Tensor) -> Tensor:
    """The highest pixel of each connected part of ``map ≥ threshold``, corners included; of equal ones the first.

    Args:
        maps: (B, K, *S).
        thresholds: (K,) in the maps' units, found on other cases; NaN for a class without one, which offers nothing.

    Returns:
        bool (B, K, *S).
    """
    limits = torch.as_tensor(thresholds).reshape(-1, *[1] * (maps.ndim - 2))
    values = maps.float().cpu()
    shown = values >= limits
    inside = torch.where(shown, values, -torch.inf)
    # No neighbour of a part's peak is higher: on smooth maps few pixels are left to look at.
    candidates = (shown & (inside == _window_maximum(inside, 1))).numpy()
    found = np.zeros(candidates.shape, bool)
    corners = np.ones((3,) * (maps.ndim - 2))
    for b, k in np.argwhere(candidates.any(tuple(range(2, maps.ndim)))).tolist():
        labels, count = ndimage.label(shown[b, k].numpy(), structure=corners)
        places = np.flatnonzero(candidates[b, k])
        part, height = labels.ravel()[places], values[b, k].numpy().ravel()[places]
        highest = np.full(count + 1, -np.inf)
        np.maximum.at(highest, part, height)
        peaks = np.flatnonzero(height == highest[part])[::-1]
        first = np.empty(count + 1, np.int64)
        first[part[peaks]] = places[peaks]  # the last one written is the first in memory
        found[b, k].ravel()[first[1:]] = True
    return torch.from_numpy(found).to(maps.device)


def froc(
    false_scores: Floats, lesion_scores: Floats, images: int, rates: Sequence[float] = RATES
) -> tuple[Floats, Floats, Floats]:
    """FROC curve, and the sensitivity at given numbers of false positives per image.

    Args:
        false_scores: Scores of all detections that are on no lesion.
        lesion_scores: (m,) highest score of a detection on each lesion; minus infinity for one without.
        images: Number of images, with and without lesions.
        rates: False positives per image.

    Returns:
        False positives per image and sensitivity at each distinct score, from the highest; sensitivity at `rates`.

    Raises:
        ValueError: If there is no image or no lesion.
    """
    if not images or not len(lesion_scores):
        raise ValueError(f"FROC needs images and lesions, but there are {images} and {len(lesion_scores)}")
    scores = np.unique(np.concatenate([false_scores, lesion_scores[np.isfinite(lesion_scores)]]))[::-1]
    false = (false_scores[:, None] >= scores).sum(0).astype(np.float64)
    true = (lesion_scores[:, None] >= scores).sum(0).astype(np.float64)
    count = np.asarray(len(lesion_scores), np.float64)
    at_rates = sensitivity_at(false, true, np.asarray(images, np.float64), count, rates)
    return false / images, true / len(lesion_scores), at_rates


def sensitivity_at(
    false: Floats, true: Floats, images: Floats, lesions: Floats, rates: Sequence[float] = RATES
) -> Floats:
    """Highest sensitivity at no more than the given false positives per image.

    Args:
        false: (..., n) false detections at or above each score, scores falling.
        true: (..., n) lesions found.
        images: (...) number of images.
        lesions: (...) number of lesions.
        rates: r of them.

    Returns:
        (..., r) in 0..1; NaN without a lesion or an image.
    """
    allowed = np.asarray(rates) * images[..., None] * (1 + 1e-12)  # 0.29 of 100 is 29, not a little less
    found = np.stack([np.where(false <= limit[..., None], true, 0).max(-1, initial=0) for limit in
                      np.moveaxis(allowed, -1, 0)], -1)  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(images[..., None] > 0, found / lesions[..., None], np.nan))


def _first_of_plateaus(places: Tensor) -> Tensor:
    """The first pixel in memory order of each connected part of ``places`` (B, K, *S), corners included."""
    numbers = torch.arange(1, places[0, 0].numel() + 1, device=places.device, dtype=torch.float64)
    ranked = torch.where(places, numbers.reshape(places.shape[2:]), 0.0)
    joined = places & (ranked != _window_maximum(ranked, 1))
    kept = places.clone()
    corners = np.ones((3,) * (places.ndim - 2))
    for b, k in joined.flatten(2).any(-1).nonzero().tolist():  # few maps have any
        labels, _ = ndimage.label(places[b, k].cpu().numpy(), structure=corners)
        numbers_of, first = np.unique(labels, return_index=True)
        alone = np.zeros(labels.size, bool)
        alone[first[numbers_of > 0]] = True
        kept[b, k] = torch.from_numpy(alone.reshape(labels.shape)).to(places.device)
    return kept


def _window_maximum(values: Tensor, radius: int) -> Tensor:
    """Maximum over a window of 2 radius + 1 along every axis, axis by axis."""
    for axis in range(2, values.ndim):
        moved = values.movedim(axis, -1)
        lines = moved.reshape(-1, 1, moved.shape[-1])
        values = F.max_pool1d(lines, 2 * radius + 1, 1, radius).reshape(moved.shape).movedim(-1, axis)
    return values
