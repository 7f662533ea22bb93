"""The contract of a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.geometry import Level, Resampling


class Decoder(nn.Module, ABC):
    """A module that turns a pyramid of features into class score maps.

    The class map is the sum of the returned maps, each resampled to the image; the model does that.

    Attributes:
        levels: Where the cells of each returned map lie.
        bias: (K,) added to every logit, a parameter.
        resampling: Where cells are taken to lie when a decoder resamples one level to another; set by the model,
            which resamples its maps in the same way.
    """

    levels: tuple[Level, ...]
    bias: Tensor
    resampling: Resampling = "receptive_field"

    @abstractmethod
    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Score maps without the bias.

        Args:
            features: (B, C_l, *S_l) of every level of the backbone, fine to coarse.
            size: Image size ``S``.

        Returns:
            (B, K, *S_i), one for each of `levels`.
        """
