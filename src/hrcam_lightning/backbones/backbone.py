"""The contract of a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from hrcam_lightning.geometry import Level


class Backbone(nn.Module, ABC):
    """A network that returns a pyramid of features and says where their cells lie.

    Attributes:
        channels: Number of image channels C.
        levels: What `forward` returns, fine to coarse.
        brings_weights: Whether it was made with weights of its own, so that it may be read without training.
    """

    channels: int
    levels: tuple[Level, ...]
    brings_weights: bool = False

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.levels[0].stride)

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, levels[i].channels, *S_i) of images (B, C, *S), fine to coarse."""
