"""Maps on disk, and how strong they are in 0..1.

Raw maps are in logits, and each network has its own: one trained a little longer is a little surer everywhere. The
**strength** ``h`` of a map is

    ``h = clip((map − low) / (high − low), 0, 1)``

with one `Scale` a network, over all cases that it explains and never one an image: ``low`` is the median over cases of
a map's median (tissue that says nothing), ``high`` the median over positive cases of a map's highest value. Neither
depends on how large lesions are or on single pixels, and both make sense of maps that are not in logits. A sigmoid
does not: a Grad-CAM is nowhere below 0, so that its sigmoid is nowhere below a half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.judging import ranking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.metrics.estimate import Ints

Maps = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Scale:
    """Map values that are strength 0 and 1."""

    low: float
    high: float

    def strength(self, values: Maps) -> Maps:
        """Strength of map values, in 0..1."""
        return np.asarray(np.clip((values - self.low) / (self.high - self.low), 0, 1), dtype=np.float32)


def scale_of(path: Path, labels: Ints) -> Scale:
    """The scale of a network by the maps in a file.

    Args:
        path: (n, *S) maps, as `numpy.save` writes them.
        labels: (n,) 0 or 1.

    Raises:
        InputError: If maps hold NaN, or are flat.
    """
    maps = np.load(path, mmap_mode="r")
    middles = np.array([np.median(one) for one in maps], dtype=np.float64)
    peaks = np.array([one.max() for one in maps], dtype=np.float64)
    if not (np.isfinite(middles).all() and np.isfinite(peaks).all()):
        raise InputError(f"{path}: a map holds NaN or infinity: training has diverged; lower the learning rate")
    low, high = float(np.median(middles)), float(np.median(peaks[labels == 1]))
    if not high > low:
        raise InputError(f"{path}: the maps of positive cases are flat, and show nothing to filter by; train longer")
    return Scale(low, high)


@dataclass(frozen=True)
class CaseMaps:
    """The map of each case of a split, by a network that has not been trained on it.

    Attributes:
        places: (n) file and row in it.
        scales: (n) scale of the network that made it.
    """

    places: Sequence[tuple[Path, int]]
    scales: Sequence[Scale]

    def raw(self, index: int) -> Maps:
        """The map of a case (*S), in logits."""
        path, row = self.places[index]
        # Opened anew each time: a map held open would be copied whole into every loader process.
        return np.array(np.load(path, mmap_mode="r")[row])

    def strength(self, index: int) -> Maps:
        """How strong it is (*S), 0..1 on the scale of its network."""
        return self.scales[index].strength(self.raw(index))

    def own_strength(self, index: int) -> Maps:
        """How strong it is (*S) from its own median to its own highest value; 0 for a flat map."""
        raw = self.raw(index)
        low, high = float(np.median(raw)), float(raw.max())
        return Scale(low, high).strength(raw) if high > low else np.zeros_like(raw)

    def highest(self, index: int, area: int) -> Bools:
        """Its `area` highest pixels (*S); of equal ones those that come first in a random order, the same for all."""
        raw = torch.from_numpy(self.raw(index))
        return np.asarray((ranking(raw[None, None]) < area).view(raw.shape).numpy())
