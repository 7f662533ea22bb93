"""Lesions one by one: connected parts of a mask, corners included."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from hrcam_lightning.metrics.estimate import Estimate, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.metrics.estimate import Floats, Ints


def label_lesions(masks: Tensor) -> Tensor:
    """Number the lesions of each mask from 1; 0 is background.

    Args:
        masks: bool (B, K, *S).

    Returns:
        (B, K, *S) int32.
    """
    labels = np.zeros(tuple(masks.shape), np.int32)
    corners = np.ones((3,) * (masks.ndim - 2))
    for b, k in masks.flatten(2).any(-1).nonzero().tolist():
        ndimage.label(masks[b, k].cpu().numpy(), structure=corners, output=labels[b, k])
    return torch.from_numpy(labels).to(masks.device)


class LesionPeaks(NamedTuple):
    """What a map says of each lesion, one entry a lesion.

    Attributes:
        row: Which case of the batch.
        column: Which class.
        number: Which lesion of that case and class, from 1.
        voxels: How many it has.
        centre: (m, D) centre of mass along the stored axes, in voxels.
        peak: The highest map value on it.
    """

    row: Tensor
    column: Tensor
    number: Tensor
    voxels: Tensor
    centre: Tensor
    peak: Tensor


def lesion_peaks(maps: Tensor, masks: Tensor, labels: Tensor | None = None) -> LesionPeaks:
    """Size, place and highest map value of each lesion.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        labels: What `label_lesions` makes of the masks, if that is known already.
    """
    labels = label_lesions(masks) if labels is None else labels
    rows: list[tuple[int, int, int, int]] = []
    values: list[list[float]] = []
    for b, k in masks.flatten(2).any(-1).nonzero().tolist():
        sizes, centres = centres_of(labels[b, k])
        numbers, on = labels[b, k][masks[b, k]].cpu().numpy(), maps[b, k][masks[b, k]].float().cpu().numpy()
        peaks = np.full(len(sizes) + 1, -np.inf)
        np.maximum.at(peaks, numbers, on)
        rows += [(b, k, number, int(size)) for number, size in enumerate(sizes, 1)]
        values += [[*centre, peak] for centre, peak in zip(centres.tolist(), peaks[1:].tolist(), strict=True)]
    axes = maps.ndim - 2
    index = torch.tensor(rows, dtype=torch.long, device=maps.device).reshape(-1, 4)
    found = torch.tensor(values, dtype=torch.float64, device=maps.device).reshape(-1, axes + 1)
    row, column, number, voxels = index.unbind(1)
    return LesionPeaks(row, column, number, voxels, found[:, :axes], found[:, axes].float())


def centres_of(labels: Tensor) -> tuple[Ints, Floats]:
    """Size (m,) and centre of mass (m, D) of the lesions of one mask (*S), numbered by `label_lesions`."""
    places = labels.nonzero()
    numbers = labels[tuple(places.unbind(1))].cpu().numpy()
    sizes = np.bincount(numbers)[1:].astype(np.int64)
    sums = [np.bincount(numbers, axis.cpu().numpy())[1:] for axis in places.unbind(1)]
    return sizes, np.asarray(np.stack(sums, -1) / sizes[:, None])


class RecallCell(NamedTuple):
    """Lesions of a range of sizes and of detectabilities, and the share of them that was found.

    Attributes:
        size: From, included, and to, not included; voxels or mm, as the sizes were given.
        dprime: The same for d′.
        recall: Share found.
    """

    size: tuple[float, float]
    dprime: tuple[float, float]
    recall: Estimate


def recall_by_size_and_dprime(
    found: Floats,
    size: Floats,
    dprime: Floats,
    size_edges: Sequence[float],
    dprime_edges: Sequence[float],
    subject: Ints | None = None,
    resamples: int = 1000,
) -> list[RecallCell]:
    """Recall of the lesions in each cell of a grid of size and d′, with intervals over subjects.

    Args:
        found: (m,) 1 or 0 for each lesion, at a threshold or a detection score fixed on other cases.
        size: (m,).
        dprime: (m,) detectability of the lesion known exactly.
        size_edges: Rising; a lesion on an edge belongs above it, lesions beyond the ends to no cell.
        dprime_edges: Rising.
        subject: (m,) who bears the lesion; each lesion its own subject if not given.
        resamples: Of the intervals; 0 for none.

    Returns:
        Cells by size, then by d′; one without lesions is undefined.
    """
    cells = []
    for sizes in itertools.pairwise(size_edges):
        for dprimes in itertools.pairwise(dprime_edges):
            here = (size >= sizes[0]) & (size < sizes[1]) & (dprime >= dprimes[0]) & (dprime < dprimes[1])
            recall = mean_estimate(
                np.where(here, found, 0.0), here.astype(np.float64), "no lesion is in this cell", resamples, subject
            )
            cells.append(RecallCell(sizes, dprimes, recall))
    return cells
