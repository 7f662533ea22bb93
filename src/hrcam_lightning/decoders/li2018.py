"""The patch grid of Li et al. 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.blocks import ConvNormReLU, ScoreHead, check_positive, initialize
from hrcam_lightning.decoders.decoder import Decoder, in_float32
from hrcam_lightning.geometry import Level, image_grid, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Li2018(Decoder):
    """Score maps on a fixed grid of patches (Li et al., CVPR 2018), as PYLON's paper compares with it.

    The deepest level is brought to a grid of `patches` along every axis, whatever the image's size, then a 3×3
    convolution, batch norm, ReLU and a 1×1 convolution to the classes. The grid depends on the image, so the map is
    brought to image resolution here. The published pooling is `LiMILPooling`.

    Args:
        levels: The backbone's levels, of which the deepest is read.
        num_classes: Number of maps K.
        patches: Patches along every axis.
        width: Channels between the two convolutions.

    Raises:
        InputError: If an argument is below 1.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, patches: int = 20, width: int = 512) -> None:
        super().__init__()
        check_positive("Li2018", patches=patches, width=width)
        self.deepest, self.patches = levels[-1], patches
        dims = len(self.deepest.stride)
        self.block = ConvNormReLU(self.deepest.channels, width, 3, dims)
        self.head = ScoreHead(width, num_classes, dims)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (image_grid(dims),)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S) at image resolution."""
        strides = tuple(pixels / self.patches for pixels in size)
        grid = Level(0, strides, tuple((stride - 1) / 2 for stride in strides))
        cells = (self.patches,) * len(strides)
        scores = self.head(self.block(resample(features[-1], self.deepest, cells, self.resampling, onto=grid)))
        with in_float32(scores):
            return [resample(scores, grid, size, self.resampling)]
