"""PYLON: pyramid attention, and 1×1 convolutions all the way up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from hrcam_lightning.decoders.attention import PyramidAttention
from hrcam_lightning.decoders.blocks import ConvNormReLU, ScoreHead, check_positive, initialize, last_levels
from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import Level, Resampling, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PYLON(Decoder):
    """Class map at the resolution of the fourth level from below (Preechakul et al., iScience 25(3):103933, 2022).

    Pyramid attention on the deepest level, then `n_up` steps, each of which brings the map to the next finer level and
    adds that level's features after 1×1 convolutions, then a 1×1 convolution to the classes. Nothing mixes space on
    the way up, and there is no global pooling. On a ResNet (strides 4, 8, 16, 32) the map has a quarter of the image's
    resolution. In the paper the pooling is the maximum (`MaxPooling`).

    Unlike the published code it takes any image size, works in 3D, and resamples by either convention of
    `hrcam_lightning.geometry`: the published one aligns corners inside the network. The model pools the map at image
    resolution, the published code at the map's own; where the cells lie on pixels the two have the same maximum.

    Args:
        levels: The backbone's levels, of which the last ``n_up + 1`` are read.
        num_classes: Number of maps K.
        width: Channels of the decoder.
        n_up: Steps up, 0 to 3.
        up_layers: Convolutions on a level's features in each step: 2 in the iScience version, 1 in the first one
            (arXiv:2010.11475v1).
        use_pa: Use pyramid attention; without it the deepest level is reduced by a 1×1 convolution alone.

    Raises:
        InputError: If an argument is out of range, or the backbone has too few levels.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        width: int = 128,
        n_up: int = 3,
        up_layers: Literal[1, 2] = 2,
        use_pa: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= n_up <= 3:
            raise InputError(f"PYLON: n_up is {n_up}, but must be 0 to 3")
        check_positive("PYLON", width=width)
        self.used = last_levels(f"PYLON with n_up {n_up}", levels, n_up + 1, n_up + 1)
        *finer, deepest = self.used
        dims = len(deepest.stride)
        self.attention = PyramidAttention(deepest, width) if use_pa else None
        self.reduce = None if use_pa else ConvNormReLU(deepest.channels, width, 1, dims, bias=True)
        self.ups = nn.ModuleList(_Up(level, width, up_layers) for level in finer)  # fine to coarse, as the levels
        self.head = ScoreHead(width, num_classes, dims)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (self.used[0],)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S_l) at the finest level that is read."""
        *finer, x = features[-len(self.used) :]
        x = self.attention(x, self.resampling) if self.attention is not None else self.reduce(x)  # type: ignore[misc]
        for number in reversed(range(len(finer))):
            x = self.ups[number](finer[number], x, self.used[number + 1], self.resampling)
        return [self.head(x)]


class _Up(nn.Module):
    """Features of a finer level after 1×1 convolutions, plus the deeper map."""

    def __init__(self, level: Level, width: int, layers: int) -> None:
        super().__init__()
        channels, dims = level.channels, len(level.stride)
        self.level = level
        self.layers = nn.Sequential(
            *(ConvNormReLU(channels, channels, 1, dims, bias=True) for _ in range(layers - 1)),
            ConvNormReLU(channels, width, 1, dims, bias=True),
        )

    def forward(self, feature: Tensor, deeper: Tensor, deeper_level: Level, resampling: Resampling) -> Tensor:
        own: Tensor = self.layers(feature)
        return own + resample(deeper, deeper_level, feature.shape[2:], resampling, onto=self.level)
