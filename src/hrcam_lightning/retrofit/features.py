"""Pooled features of a frozen network: what the head is fitted to, kept on disk a few KB a case."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrcam_lightning.geometry import resampled_mean, sample
from hrcam_lightning.neighbours import around, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from hrcam_lightning.geometry import Level, Resampling
    from hrcam_lightning.model import LocalizationModel

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
CHUNK = 8_000_000
"""Numbers that are brought to double precision at a time: 64 MB."""


@dataclass(frozen=True)
class Reading:
    """Which levels of a frozen network are read, and where their cells are taken to lie.

    Its channels are those of one level after the other. Where neighbours are read a level has D + 2 times as many: its
    own, and as many for each term of `hrcam_lightning.neighbours.around`.

    Attributes:
        model: The network with its own head, in evaluation mode.
        taps: Levels by index, none of them negative.
        resampling: See `hrcam_lightning.geometry`.
        neighbours: Those of the taps of which neighbours are read.
        precision: Context in which the network runs; what follows is always in single precision.
    """

    model: LocalizationModel
    taps: Sequence[int]
    resampling: Resampling
    neighbours: Sequence[int] = ()
    precision: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels of the backbone, read or not."""
        return self.model.backbone.levels

    @property
    def channels(self) -> int:
        """Number C of channels of all levels that are read."""
        return len(self.owners)

    @cached_property
    def owners(self) -> Ints:
        """For each channel the number of the one of which it is a term; its own number for those themselves (C,)."""
        parts, first = [], 0
        for tap in self.taps:
            own, terms = self.levels[tap].channels, self._terms(tap)
            parts.append(np.tile(np.arange(first, first + own), terms))
            first += own * terms
        return np.concatenate(parts)

    def features(self, images: Tensor) -> list[Tensor]:
        """What the network makes of images (B, C, *S): (B, C_l, *S_l) float32 for every level.

        Raises:
            InputError: If the images do not fit the network.
        """
        with self.precision():
            return [feature.float() for feature in self.model.features(images)]

    def pooled(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Mean over the image of every channel as resampled, (B, C): the head's logit is linear in it.

        Pooled features of HR-CAM (Shinde et al., MICCAI 2019) are means over the cells. With half-pixel resampling and
        sizes that the strides divide the two agree; here the logit is the mean of the map at any size.

        Args:
            features: (B, C_l, *S_l) of every level of the backbone.
            size: Image size ``S``.
        """
        parts: list[Tensor] = []
        for tap in self.taps:
            read = partial(resampled_mean, features[tap], self.levels[tap], size, self.resampling)
            parts += around(read, len(size)) if tap in self.neighbours else [read()]
        return torch.cat(parts, 1)

    def logits(self, features: Sequence[Tensor], size: torch.Size) -> Tensor:
        """Logits (B, K) of the network's own head, in the precision of its weights."""
        own = self.model.decoder.bias.dtype
        return self.model.read_logits([feature.to(own) for feature in features], size)

    def at(self, pixels: Tensor, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Every channel as resampled, at some pixels of the image: (B, C, P).

        Args:
            pixels: (B, P, D) int64, coordinates.
            features: (B, C_l, *S_l) of every level of the backbone.
            size: Image size ``S``.
        """
        parts: list[Tensor] = []
        for tap in self.taps:
            read = partial(sample, features[tap], self.levels[tap], pixels, size, self.resampling)
            if tap not in self.neighbours:
                parts.append(read())
                continue
            steps = list(reach(len(size)))
            found = read(steps)  # one call for all of them

            def look_up(step: Sequence[int], found: Tensor = found, steps: list[tuple[int, ...]] = steps) -> Tensor:
                return found[:, :, steps.index(tuple(step))]

            parts += around(look_up, len(size))
        return torch.cat(parts, 1)

    def _terms(self, tap: int) -> int:
        return 2 + len(self.levels[tap].stride) if tap in self.neighbours else 1


@dataclass(frozen=True)
class Pooled:
    """Pooled features of the cases of a split.

    Attributes:
        values: (N, C) float32, on disk.
        labels: (N,) class numbers, or (N, K) findings.
    """

    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        """Rows in double precision, a portion at a time, whatever N."""
        cases, channels = self.values.shape
        rows = max(1, CHUNK // channels)
        if cases <= rows:
            yield slice(0, cases), self._doubled
            return
        for start in range(0, cases, rows):
            part = slice(start, min(start + rows, cases))
            yield part, np.asarray(self.values[part], dtype=np.float64)

    @cached_property
    def _doubled(self) -> Floats:
        """All rows, where one portion holds them: the solver reads them hundreds of times."""
        return np.asarray(self.values, dtype=np.float64)

    def moments(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation (C,) over the cases. A channel that does not vary has an infinite one.

        Divided by it, it is 0 everywhere, and so is its weight.
        """
        mean = sum((chunk.sum(0) for _, chunk in self.chunks()), np.zeros(self.values.shape[1])) / len(self.values)
        square = sum((((chunk - mean) ** 2).sum(0) for _, chunk in self.chunks()), np.zeros_like(mean))
        deviation = np.sqrt(square / len(self.values))
        # float32 features that do not vary still differ in their last bits
        return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)


@contextmanager
def on_disk(folder: Path, cases: int, channels: int) -> Iterator[np.memmap[tuple[int, ...], np.dtype[np.float32]]]:
    """An array (N, C) float32 in a file without a name, which is gone when the block ends, however it ends."""
    with TemporaryFile(dir=folder) as file:
        yield np.memmap(file, dtype=np.float32, mode="w+", shape=(cases, channels))
