"""Boxes around what a map shows: MaxBoxAcc and MaxBoxAccV2 (Choe et al., CVPR 2020), in 2D and 3D.

Each map is scaled from its lowest to its highest value first, as published. The published threshold is the best one
for the test set itself: an oracle. Here it is called so, and one that was chosen on validation cases stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor

    from hrcam_lightning.metrics.estimate import Floats, Ints

THRESHOLDS = tuple(step / 10 for step in range(10))  # of the scaled map; published in steps of 0.001
OVERLAPS = (0.3, 0.5, 0.7)  # IoU at which a box is right, for V2; the first version has 0.5 alone
MANY_PARTS = 200  # noise has thousands, which are quicker boxed all at once

Boxes = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class BoxOverlaps(NamedTuple):
    """Highest IoU of a predicted with a true box at each threshold, (B, K, T); NaN without a mask or of a map with NaN.

    Attributes:
        largest: Of the box around the largest part of the map alone (MaxBoxAcc).
        every: Of the boxes around all parts (MaxBoxAccV2).
    """

    largest: Tensor
    every: Tensor


def box_overlaps(maps: Tensor, masks: Tensor, thresholds: tuple[float, ...] = THRESHOLDS) -> BoxOverlaps:
    """IoU of the boxes around ``scaled map > threshold`` with those around the lesions.

    Parts are connected, corners included; pixels are counted, so that a box of one pixel has area 1. A flat map shows
    no box and overlaps nothing.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        thresholds: T of them, of maps scaled to 0..1.
    """
    largest, every = (np.full((*maps.shape[:2], len(thresholds)), np.nan) for _ in range(2))
    scored = masks.flatten(2).any(-1) & ~maps.flatten(2).isnan().any(-1)
    for b, k in scored.nonzero().tolist():
        true, _ = _boxes(masks[b, k].cpu().numpy())
        values = maps[b, k].double().cpu().numpy()
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
        corner: Ints = np.zeros(values.ndim, np.int64)
        for t in np.argsort(thresholds):
            scaled, corner = _crop(scaled, corner, thresholds[t])
            boxes, sizes = _boxes(scaled > thresholds[t])
            best = box_iou(boxes + corner[None, :, None], true).max(1) if len(boxes) else np.zeros(0)
            largest[b, k, t] = best[sizes.argmax()] if len(boxes) else 0
            every[b, k, t] = best.max(initial=0)
    return BoxOverlaps(*(torch.from_numpy(found).to(maps.device) for found in (largest, every)))


def box_iou(first: Boxes, second: Boxes) -> Floats:
    """IoU of each of n boxes with each of m: (n, D, 2) and (m, D, 2), first pixel and one past the last, to (n, m)."""
    start = np.maximum(first[:, None, :, 0], second[None, :, :, 0])
    end = np.minimum(first[:, None, :, 1], second[None, :, :, 1])
    shared = np.clip(end - start, 0, None).prod(-1)
    size = [(boxes[..., 1] - boxes[..., 0]).prod(-1) for boxes in (first, second)]
    return np.asarray(shared / (size[0][:, None] + size[1][None] - shared))


def best_threshold(overlaps: Floats, wanted: float) -> int:
    """Which threshold gives most cases a box of the wanted IoU; the lowest of equals.

    On the cases that it is then scored on it is an oracle.

    Args:
        overlaps: (n, T) of cases with a mask.
        wanted: IoU.
    """
    return int((overlaps >= wanted).mean(0).argmax())


def _crop(values: Floats, corner: Ints, threshold: float) -> tuple[Floats, Ints]:
    """What lies above a threshold lies in the box of what lies above a lower one: the part of the map around it."""
    above = values > threshold
    for axis in range(values.ndim):
        lines = np.flatnonzero(above.any(tuple(other for other in range(values.ndim) if other != axis)))
        first, last = (lines[0], lines[-1] + 1) if len(lines) else (0, 1)
        chosen = (slice(None),) * axis + (slice(first, last),)
        values, above = values[chosen], above[chosen]
        corner = corner + np.eye(len(corner), dtype=np.int64)[axis] * first
    return values, corner


def _boxes(shown: Bools) -> tuple[Boxes, Boxes]:
    """Box (n, D, 2) and number of pixels (n,) of each connected part."""
    labels, count = ndimage.label(shown, structure=np.ones((3,) * shown.ndim))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64)
    if count < MANY_PARTS:
        parts = ndimage.find_objects(labels, count)
        ends = [(axis.start, axis.stop) for part in parts for axis in part]
        return np.array(ends, np.int64).reshape(count, shown.ndim, 2), sizes
    places = np.nonzero(labels)
    part = labels[places] - 1
    boxes = np.empty((count, shown.ndim, 2), np.int64)
    for axis, place in enumerate(places):
        boxes[:, axis] = shown.shape[axis], 0
        np.minimum.at(boxes[:, axis, 0], part, place)
        np.maximum.at(boxes[:, axis, 1], part, place + 1)
    return boxes, sizes
