"""The contract of a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from hrcam_lightning.geometry import Level


class Decoder(nn.Module, ABC):
    """A module that turns a pyramid of features into class score maps.

    The class map is the sum of the returned maps, each resampled to the image; the model does that.

    Attributes:
        levels: Where the cells of each returned map lie.
        bias: (K,) added to every logit, a parameter.
    """

    levels: tuple[Level, ...]
    bias: Tensor

    @abstractmethod
    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Score maps (B, K, *S_i), one for each of `levels`, without the bias."""
