"""PAN: pyramid attention at the bottom, gated features on the way up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.attention import PyramidAttention
from hrcam_lightning.decoders.blocks import (
    ConvNormReLU,
    ScoreHead,
    check_positive,
    initialize,
    last_levels,
    spatial_mean,
)
from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.geometry import Level, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PAN(Decoder):
    """Pyramid attention network (Li et al., BMVC 2018) on a classifier's levels, as PYLON's paper compares with it.

    Feature pyramid attention (FPA) on the deepest level; then each finer level's features after a 3×3 convolution,
    gated by the mean over the image of the deeper map (GAU), plus that map; a 3×3 convolution to the classes. Global
    pooling is what PYLON's paper blames for poor localization: without `global_pooling` the FPA loses its pooling
    branch and the GAUs their gates.

    Args:
        levels: The backbone's levels, of which the last four are read, or all there are.
        num_classes: Number of maps K.
        width: Channels.
        global_pooling: Whether the mean over the image is used.

    Raises:
        InputError: If the width is below 1, or the backbone has fewer than two levels.
    """

    def __init__(
        self, levels: Sequence[Level], num_classes: int, width: int = 128, global_pooling: bool = True
    ) -> None:
        super().__init__()
        check_positive("PAN", width=width)
        self.used = last_levels("PAN", levels, 2, 4)
        *finer, deepest = self.used
        dims = len(deepest.stride)
        self.attention = PyramidAttention(deepest, width, global_pooling)
        self.skips = nn.ModuleList(ConvNormReLU(level.channels, width, 3, dims, bias=True) for level in finer)
        self.gates = (
            nn.ModuleList(ConvNormReLU(width, width, 1, dims, bias=True, activation=nn.Sigmoid) for _ in finer)
            if global_pooling
            else None
        )
        self.head = ScoreHead(width, num_classes, dims, kernel=3)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (self.used[0],)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S_l) at the finest level that is read."""
        *finer, deepest = features[-len(self.used) :]
        x = self.attention(deepest, self.resampling)
        for number in reversed(range(len(finer))):
            skip = self.skips[number](finer[number])
            if self.gates is not None:
                skip = skip * self.gates[number](spatial_mean(x))
            here = self.used[number]
            x = skip + resample(x, self.used[number + 1], skip.shape[2:], self.resampling, onto=here)
        return [self.head(x)]
