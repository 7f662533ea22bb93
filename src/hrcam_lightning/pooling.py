"""Pooling of a class map into the class's logit.

Every pooling here commutes with adding a constant, ``pool(maps + b) = pool(maps) + b``, so that a class bias can stand
inside or outside of the map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Pooling(nn.Module, ABC):
    """Turns maps (B, K, *S) into logits (B, K)."""

    additive: ClassVar[bool] = False
    """Whether the logit is the mean of the map, so that it can be had at the levels' own resolution."""

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""


class MeanPooling(Pooling):
    """Average: every pixel's evidence counts alike, as in CAM and HR-CAM."""

    additive = True

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return maps.flatten(2).mean(-1)


class MaxPooling(Pooling):
    """Maximum: the strongest pixel speaks for the image, as in PYLON. The map's peak is the logit."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return maps.flatten(2).amax(-1)


class LogSumExpPooling(Pooling):
    """Smooth maximum ``(1/r) log mean exp(r · map)`` (Pinheiro & Collobert, CVPR 2015).

    While the map is flat every pixel learns; once it has a peak, the peak does. With the maximum one pixel an image
    learns from the start, and some seeds take half the run to begin.

    Args:
        sharpness: ``r`` > 0 per logit. Towards 0 it is the mean, towards infinity the maximum.

    Raises:
        InputError: If `sharpness` is not positive.
    """

    def __init__(self, sharpness: float = 3.0) -> None:
        super().__init__()
        if not sharpness > 0:
            raise InputError(f"LogSumExpPooling: sharpness is {sharpness}, but must be above 0")
        self.sharpness = sharpness

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        flat = maps.flatten(2)
        return (torch.logsumexp(self.sharpness * flat, -1) - math.log(flat.shape[-1])) / self.sharpness
