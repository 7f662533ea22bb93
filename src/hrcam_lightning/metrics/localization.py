"""Scores of one map against one mask: pointing, pixel average precision, the peak on each lesion.

A mask without a pixel has no score: NaN, to be left out and counted by whoever averages. Maps are taken raw; only
the order of their values matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game with tolerance 0 (Zhang et al., IJCV 2018): is the map's peak on the lesion?

    A tie between a pixel inside and one outside is a miss, and so is a flat map: neither points anywhere.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).

    Returns:
        (B, K) float32: 1 hit, 0 miss, NaN where the mask is empty.
    """
    values, inside = maps.flatten(2), masks.flatten(2)
    lowest = torch.full_like(values, -torch.inf)
    peak_inside = torch.where(inside, values, lowest).amax(-1)
    peak_outside = torch.where(inside, lowest, values).amax(-1)
    hit = (peak_inside > peak_outside) & (values.amax(-1) > values.amin(-1))
    return torch.where(inside.any(-1), hit.float(), torch.nan)


def pixel_average_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Average precision of the pixels of each map, by itself.

    ``AP = Σ (R_n − R_{n−1}) P_n`` over the map's distinct values, as in scikit-learn: tied pixels are taken together,
    so that their order cannot matter, and a flat map scores the lesion's share of the image.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).

    Returns:
        (B, K) float32 in 0..1, NaN where the mask is empty.
    """
    values, order = maps.flatten(2).sort(-1, descending=True)
    inside = masks.flatten(2).gather(-1, order)
    count = values.shape[-1]
    rank = torch.arange(count, device=values.device)
    precision = inside.cumsum(-1).double() / (rank + 1)
    last_of_tie = torch.ones_like(inside)
    last_of_tie[..., :-1] = values[..., 1:] != values[..., :-1]
    end_of_tie = torch.where(last_of_tie, rank, count).flip(-1).cummin(-1).values.flip(-1)
    total = (precision.gather(-1, end_of_tie) * inside).sum(-1)
    return (total / inside.sum(-1)).float()


class LesionPeaks(NamedTuple):
    """The highest map value on each lesion, one entry a lesion.

    Attributes:
        row: Which case of the batch.
        column: Which class.
        number: Which lesion of that case and class, from 1.
        peak: The value.
    """

    row: Tensor
    column: Tensor
    number: Tensor
    peak: Tensor


def lesion_peaks(maps: Tensor, masks: Tensor) -> LesionPeaks:
    """Highest map value on each lesion; a lesion is a connected part of a mask, corners included.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
    """
    rows: list[tuple[int, int, int]] = []
    peaks: list[float] = []
    corners = np.ones((3,) * (maps.ndim - 2))
    for b, k in masks.flatten(2).any(-1).nonzero().tolist():
        labels, count = ndimage.label(masks[b, k].cpu().numpy(), structure=corners)
        numbers = range(1, count + 1)
        peaks += np.atleast_1d(ndimage.maximum(maps[b, k].cpu().numpy(), labels, numbers)).tolist()
        rows += [(b, k, number) for number in numbers]
    index = torch.tensor(rows, dtype=torch.long, device=maps.device).reshape(-1, 3)
    row, column, number = index.unbind(1)
    return LesionPeaks(row, column, number, torch.tensor(peaks, dtype=torch.float32, device=maps.device))
