"""The contract of a decoder, and the class mixing that all decoders end with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.geometry import Level, Resampling


class Decoder(nn.Module, ABC):
    """A module that turns a pyramid of features into class score maps.

    The class map is the sum of the returned maps, each resampled to the image; the model does that.

    Under autocast the features and what a decoder makes of them are in half precision, which is enough for features. It
    is too coarse for evidence, where ties decide the peak: the mixing into class maps, and all after it, is in float32
    (`score`, `in_float32`).

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
            (B, K, *S_i) float32, one for each of `levels`.
        """


def score(feature: Tensor, weight: Tensor) -> Tensor:
    """Mix channels into class maps, in float32 even under autocast.

    Args:
        feature: (B, C, *S).
        weight: (K, C) for a mixing of channels alone, or (K, C, *kernel) of odd kernel sizes.

    Returns:
        (B, K, *S), a convolution with same padding and no bias, which keeps the memory format.
    """
    conv = F.conv2d if feature.ndim == 4 else F.conv3d
    if weight.ndim == 2:
        weight = weight.view(*weight.shape, *(1,) * (feature.ndim - 2))
    with in_float32(feature):
        return conv(feature.float(), weight.float(), padding=[size // 2 for size in weight.shape[2:]])


def in_float32(like: Tensor) -> torch.autocast:
    """A context without autocast on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)
