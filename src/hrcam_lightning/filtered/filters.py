"""Images of which a part is shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from hrcam_lightning.data.module import Sample
from hrcam_lightning.explain.judging import BLUR, filled

if TYPE_CHECKING:
    from torch import Tensor

    from hrcam_lightning.filtered.facts import Facts
    from hrcam_lightning.filtered.maps import Bools, CaseMaps, Maps

Kind = Literal[
    "original", "inside", "outside", "soft", "truth_inside", "truth_outside", "random_inside", "random_outside"
]
Fill = Literal["mean", "blur"]
Negatives = Literal["own", "positive"]

KINDS: list[Kind] = list(get_args(Kind))


@dataclass(frozen=True)
class Rule:
    """How images are filtered.

    Attributes:
        threshold: Strength from which a pixel is of the map's mask.
        area: Pixels of every mask, the highest of each map; None to take those that reach the threshold.
        fill: What stands for a pixel that is not shown.
        mean: (C,) mean of the training images.
        negatives: Whose map filters a negative case: its own, or that of a positive case, as with true masks.
    """

    threshold: float
    area: int | None
    fill: Fill
    mean: Tensor
    negatives: Negatives

    def mask(self, maps: CaseMaps, index: int) -> Bools:
        """The mask that the map of a case makes, (*S)."""
        if self.area is not None:
            return maps.highest(index, self.area)
        return maps.strength(index) >= self.threshold

    def soft(self, maps: CaseMaps, index: int) -> Maps:
        """The map of a case as weights (*S) in 0..1."""
        return maps.own_strength(index) if self.area is not None else maps.strength(index)

    def apply(self, image: Tensor, shown: Tensor) -> Tensor:
        """``shown · image + (1 − shown) · fill``, of an image (C, *S) and weights (*S)."""
        if self.fill == "blur":
            other = filled(image[None], "blur", BLUR)[0]
        else:
            other = self.mean.to(image).view(-1, *(1,) * (image.ndim - 1)).expand_as(image)
        return torch.where(shown == 1, image, shown * image + (1 - shown) * other)


class FilteredDataset(Dataset[Sample]):
    """The cases of a split, filtered as they are read.

    Args:
        cases: The cases.
        facts: What is known of them.
        maps: Their maps, of the positive class for negative cases too.
        rule: How they are filtered.
        kind: What is shown.
    """

    def __init__(self, cases: Dataset[Sample], facts: Facts, maps: CaseMaps, rule: Rule, kind: Kind) -> None:
        self.cases, self.facts, self.maps, self.rule, self.kind = cases, facts, maps, rule, kind
        self._donors = np.flatnonzero(facts.labels == 1)

    def __len__(self) -> int:
        return len(self.facts.names)

    def __getitem__(self, index: int) -> Sample:
        sample = self.cases[index]
        if self.kind == "original":
            return sample
        shown = torch.from_numpy(self.shown(index, sample).astype(np.float32))
        return {**sample, "image": self.rule.apply(sample["image"], shown)}

    def shown(self, index: int, sample: Sample) -> Maps | Bools:
        """How much of each pixel of a case is shown, (*S) in 0..1."""
        own = self.facts.labels[index] == 1 or self.rule.negatives == "own"
        source = index if own else self.donor(index)
        if self.kind == "soft":
            return self.rule.soft(self.maps, source)
        what, _, side = self.kind.rpartition("_")
        if what == "truth":
            mask = self._truth(index, sample)
        else:
            mask = self.rule.mask(self.maps, source)
            if what == "random":
                mask = moved(mask, self.facts.names[index])
        return mask if side == "inside" else ~mask

    def _truth(self, index: int, sample: Sample) -> Bools:
        """The true mask of a positive case; that of a positive case drawn by the name of a negative one."""
        if self.facts.labels[index] == 0:
            sample = self.cases[self.donor(index)]
        return np.asarray(sample["mask"][0].numpy())

    def donor(self, index: int) -> int:
        """The positive case whose mask or map a negative case is given."""
        return int(_generator("donor", self.facts.names[index]).choice(self._donors))


def moved(mask: Bools, name: str) -> Bools:
    """A mask shifted around the edges and flipped by chance: of the same area and, but for the edges, shape.

    What is drawn follows from the case's name, so that it is the same in whatever order or process, and for all seeds.
    """
    rng = _generator("moved", name)
    axes = tuple(range(mask.ndim))
    flips = tuple(axis for axis in axes if rng.integers(2))
    return np.roll(np.flip(mask, flips), [int(rng.integers(size)) for size in mask.shape], axes)


def _generator(what: str, name: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(f"{what} {name}".encode()).digest()))
