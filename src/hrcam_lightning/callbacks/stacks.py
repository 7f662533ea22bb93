"""Slices put back into their volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from hrcam_lightning.callbacks.prediction_files import Prediction

if TYPE_CHECKING:
    from hrcam_lightning.data.contract import SlicePlace

SliceScore = Literal["max", "mean"]


class SliceStacks:
    """Gathers what is found of slices until a volume is whole.

    Args:
        score: The volume's probability: the highest of its slices, or their mean.
    """

    def __init__(self, score: SliceScore) -> None:
        self.score: SliceScore = score
        self._open: dict[str, list[tuple[int, Prediction]]] = {}

    def add(self, place: SlicePlace, found: Prediction) -> Prediction | None:
        """Add a slice; the volume, once it has all of them."""
        slices = self._open.setdefault(place.case, [])
        slices.append((place.index, found))
        if len(slices) < place.count:
            return None
        slices = sorted(self._open.pop(place.case), key=lambda pair: pair[0])
        probabilities = np.stack([one.probabilities for _, one in slices])
        return Prediction(
            case=place.case,
            image=np.stack([one.image for _, one in slices], place.axis),
            maps=np.stack([one.maps for _, one in slices], 1 + place.axis),
            bias=found.bias,
            probabilities=probabilities.max(0) if self.score == "max" else probabilities.mean(0),
            frame=found.frame,
        )
