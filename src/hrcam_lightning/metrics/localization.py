"""Scores of one map against one mask, by themselves: pointing, pixel average precision, relevance on the lesion.

A mask without a pixel has no score, and nor has a map that holds NaN: NaN, to be left out and counted by whoever
averages. Maps are taken raw, in logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PAIRS = 50_000
"""Pairs of a peak and a pixel of the lesion from which on a distance transform of the image is quicker, and smaller."""


def pointing_hits(
    maps: Tensor, masks: Tensor, tolerance: float = 0.0, spacing: Sequence[float] | None = None
) -> Tensor:
    """Pointing game (Zhang et al., IJCV 2018): is the map's peak on the lesion, or no farther from it than tolerated?

    A tie between a pixel that hits and one that does not is a miss, and so is a flat map: neither points anywhere.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        tolerance: Distance from the centre of the peak's pixel to that of the nearest one of the mask. In pixels, or,
            with a spacing, in its unit. Zhang's 15 pixels are meant for photographs: say which one you used.
        spacing: Size of a pixel along each axis, as in mm; 1 if not given.

    Returns:
        (B, K) float32: 1 hit, 0 miss, NaN where the mask is empty.

    Raises:
        ValueError: If the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}, but a distance must not be negative")
    if tolerance:
        distance = _distances(maps, masks, spacing)
        # A distance of 0.7 mm is within 0.7 mm, whatever its last bit.
        return torch.where(distance.isnan(), torch.nan, (distance <= tolerance * (1 + 1e-9)).float())
    values, inside = maps.flatten(2), masks.flatten(2)
    lowest = torch.full_like(values, -torch.inf)
    peak_inside = torch.where(inside, values, lowest).amax(-1)
    peak_outside = torch.where(inside, lowest, values).amax(-1)
    hit = (peak_inside > peak_outside) & (values.amax(-1) > values.amin(-1))
    return torch.where(_scored(maps, masks), hit.float(), torch.nan)


def peak_distances(maps: Tensor, masks: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """Distance from the map's peak to the nearest pixel of the mask; of tied peaks, that of the farthest.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        spacing: Size of a pixel along each axis; 1 if not given.

    Returns:
        (B, K) float32: 0 on the mask, infinity for a flat map, NaN where the mask is empty or the map holds NaN.
    """
    return _distances(maps, masks, spacing).float()


def _distances(maps: Tensor, masks: Tensor, spacing: Sequence[float] | None) -> Tensor:
    """`peak_distances` in double precision."""
    found = torch.full(maps.shape[:2], torch.nan, dtype=torch.float64)
    scale = np.asarray(spacing or [1.0] * (maps.ndim - 2), dtype=np.float64)
    for b, k in _scored(maps, masks).nonzero().tolist():
        values = maps[b, k]
        highest, inside = (values == values.amax()).cpu().numpy(), masks[b, k].cpu().numpy()
        if highest.all():
            found[b, k] = torch.inf
        elif highest.sum() * inside.sum() < PAIRS:
            gaps = (np.argwhere(highest)[:, None] - np.argwhere(inside)) * scale
            found[b, k] = float(np.sqrt((gaps**2).sum(-1).min(1).max()))
        else:
            found[b, k] = float(ndimage.distance_transform_edt(~inside, sampling=scale)[highest].max())
    return found.to(maps.device)


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
    found = torch.full(maps.shape[:2], torch.nan)
    for b, k in _scored(maps, masks).nonzero().tolist():
        values = maps[b, k].float().cpu().numpy()
        inside = np.sort(values[masks[b, k].cpu().numpy()])
        # At the value of each pixel of the lesion: how many of all pixels, and of the lesion's, are as high.
        all_as_high = values.size - np.searchsorted(np.sort(values, axis=None), inside)
        inside_as_high = inside.size - np.searchsorted(inside, inside)
        found[b, k] = float((inside_as_high / all_as_high).mean())
    return found.to(maps.device)


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the positive relevance that lies on the mask: ``Σ_G max(M, 0) / Σ max(M, 0)``.

    The energy pointing game (Score-CAM, Wang et al., CVPRW 2020) on a mask, relevance mass accuracy (CLEVR-XAI, Arras
    et al., Inf Fusion 2022). Relevance is the map above 0: logits below speak against the class. It changes with an
    offset of the map, unlike the scores by rank.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S): of the lesion, or of a spurious cue.

    Returns:
        (B, K) float32 in 0..1; 0 for a map that is nowhere above 0, since it has put nothing on the mask; NaN where the
        mask is empty.
    """
    found = torch.full(maps.shape[:2], torch.nan, device=maps.device)
    known = _scored(maps, masks)
    relevance = maps.flatten(2)[known].double().clamp(min=0)
    total = relevance.sum(-1)
    mass = (relevance * masks.flatten(2)[known]).sum(-1) / torch.where(total == 0, 1.0, total)
    found[known] = mass.float()
    return found


def relevance_rank(maps: Tensor, masks: Tensor) -> Tensor:
    """Relevance rank accuracy (CLEVR-XAI): the share of the lesion's |G| pixels among the map's |G| highest.

    Of pixels tied at the last place each takes its share of what is left, so that a flat map scores the lesion's share
    of the image, whatever the order in memory.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).

    Returns:
        (B, K) float32 in 0..1, NaN where the mask is empty.
    """
    found = torch.full(maps.shape[:2], torch.nan, device=maps.device)
    for b, k in _scored(maps, masks).nonzero().tolist():
        values, inside = maps[b, k].flatten(), masks[b, k].flatten()
        area = int(inside.sum())
        last = values.topk(area).values[-1]
        above, tied = values > last, values == last
        share = (area - above.sum()) / tied.sum()
        found[b, k] = ((above & inside).sum() + share * (tied & inside).sum()) / area
    return found


def overlaps(maps: Tensor, masks: Tensor, thresholds: Tensor) -> dict[str, Tensor]:
    """Dice, IoU and IoBB (IoR) of ``map ≥ threshold`` with the mask.

    ``dice = 2|P∩G| / (|P| + |G|)``, ``iou = |P∩G| / |P∪G|``, ``iobb = |P∩G| / |P|`` (Wang et al., CVPR 2017, with the
    pixels of the prediction in place of a box). A prediction without a pixel scores 0: it has missed the lesion.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        thresholds: In the maps' units, found on other cases: (K,), or (B, K) to threshold each map by itself.

    Returns:
        By name, (B, K) float32 in 0..1; NaN where the mask is empty, or the threshold NaN.
    """
    limits = torch.as_tensor(thresholds, device=maps.device).expand(maps.shape[:2])
    predicted, truth = maps.flatten(2) >= limits[..., None], masks.flatten(2)
    shared = (predicted & truth).sum(-1).double()
    size, area = predicted.sum(-1), truth.sum(-1)
    known = _scored(maps, masks) & limits.isfinite()
    scores = {
        "dice": 2 * shared / (size + area).clamp(min=1),
        "iou": shared / (size + area - shared).clamp(min=1),
        "iobb": shared / size.clamp(min=1),
    }
    return {name: torch.where(known, score, torch.nan).float() for name, score in scores.items()}


def _scored(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether there is anything to score, (B, K)."""
    return masks.flatten(2).any(-1) & ~maps.flatten(2).isnan().any(-1)
