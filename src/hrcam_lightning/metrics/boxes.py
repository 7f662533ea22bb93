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
SPECKS = 32  # pixels of a part on average, below which, as in noise, parts are quicker boxed all at once

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
    scored = (masks.flatten(2).any(-1) & ~maps.flatten(2).isnan().any(-1)).cpu()
    rows = scored.nonzero(as_tuple=True)
    true, _, of_map = _boxes(masks.cpu()[scored].numpy())
    scaled = _scaled(maps.cpu()[scored].double().numpy())
    found = np.zeros((2, len(scaled), len(thresholds)))
    for t, threshold in enumerate(thresholds):
        boxes, sizes, owner = _boxes(scaled > threshold)
        best = _best_overlap(boxes, owner, true, of_map)
        order = np.lexsort((-np.arange(len(sizes)), sizes))  # the last one written is the largest, of equals the first
        found[0, owner[order], t] = best[order]
        np.maximum.at(found[1, :, t], owner, best)
    largest[rows], every[rows] = found
    return BoxOverlaps(*(torch.from_numpy(values).to(maps.device) for values in (largest, every)))


def box_iou(first: Boxes, second: Boxes) -> Floats:
    """IoU of boxes (..., D, 2), first pixel and one past the last, each with its partner; shapes broadcast."""
    start = np.maximum(first[..., 0], second[..., 0])
    end = np.minimum(first[..., 1], second[..., 1])
    shared = np.clip(end - start, 0, None).prod(-1)
    size = [(boxes[..., 1] - boxes[..., 0]).prod(-1) for boxes in (first, second)]
    return np.asarray(shared / (size[0] + size[1] - shared))


def best_threshold(overlaps: Floats, wanted: float) -> int:
    """Which threshold gives most cases a box of the wanted IoU; the lowest of equals.

    On the cases that it is then scored on it is an oracle.

    Args:
        overlaps: (n, T) of cases with a mask.
        wanted: IoU.
    """
    return int((overlaps >= wanted).mean(0).argmax())


def _scaled(values: Floats) -> Floats:
    """Maps (n, *S), each from 0 to 1; a flat one is 0 everywhere."""
    axes = tuple(range(1, values.ndim))
    low = values.min(axes, keepdims=True)
    height = values.max(axes, keepdims=True) - low
    return np.asarray((values - low) / np.where(height > 0, height, 1))


def _best_overlap(boxes: Boxes, owner: Ints, true: Boxes, of_map: Ints) -> Floats:
    """Highest IoU of each of n boxes with a true box of its own map."""
    best = np.zeros(len(boxes))
    first = np.searchsorted(of_map, owner)  # true boxes are sorted by map
    last = np.searchsorted(of_map, owner, side="right")
    for further in range(int((last - first).max(initial=0))):
        there = np.flatnonzero(first + further < last)
        best[there] = np.maximum(best[there], box_iou(boxes[there], true[first[there] + further]))
    return best


def _boxes(shown: Bools) -> tuple[Boxes, Ints, Ints]:
    """Connected parts of n maps (n, *S): box (m, D, 2), number of pixels (m,) and which map (m,), map by map."""
    corners = np.zeros((3,) * shown.ndim)
    corners[1] = 1  # neighbours are of the same map
    labels, count = ndimage.label(shown, structure=corners)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64)
    if count and sizes.sum() >= SPECKS * count:
        ends = [(axis.start, axis.stop) for part in ndimage.find_objects(labels, count) for axis in part]
        boxes = np.array(ends, np.int64).reshape(count, shown.ndim, 2)
    else:
        places = np.nonzero(labels)
        part = labels[places] - 1
        boxes = np.empty((count, shown.ndim, 2), np.int64)
        for axis, place in enumerate(places):
            boxes[:, axis] = shown.shape[axis], 0
            np.minimum.at(boxes[:, axis, 0], part, place)
            np.maximum.at(boxes[:, axis, 1], part, place + 1)
    return boxes[:, 1:], sizes, boxes[:, 0, 0]
