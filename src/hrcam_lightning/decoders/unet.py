"""U-Net: concatenation and 3×3 convolutions at every level, up to image resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.blocks import ConvNormReLU, ScoreHead, check_positive, initialize, last_levels
from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import Level, image_grid, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class UNet(Decoder):
    """U-Net (Ronneberger et al., MICCAI 2015) on a classifier's levels, as PYLON's paper compares with it.

    Each block brings the map to the next finer level, joins that level's features and applies two 3×3 convolutions
    with batch norm and ReLU. Where the finest level is coarser than the image, a last block without features ends at
    image resolution. The head is a 3×3 convolution. The published form upsamples by the nearest cell, this one linearly
    by either convention of `hrcam_lightning.geometry`.

    Args:
        levels: The backbone's levels, all of which are read.
        num_classes: Number of maps K.
        widths: Channels of the blocks, coarse to fine; those beyond the number of blocks are not used.

    Raises:
        InputError: If there are fewer widths than blocks, or levels than two.
    """

    def __init__(
        self, levels: Sequence[Level], num_classes: int, widths: Sequence[int] = (256, 128, 64, 64, 64)
    ) -> None:
        super().__init__()
        used = last_levels("UNet", levels, 2, len(levels))
        dims = len(used[0].stride)
        image = image_grid(dims)
        on_image = (used[0].stride, used[0].offset) == (image.stride, image.offset)
        self.path = used[::-1] if on_image else (*used[::-1], image)  # coarse to fine; the image has no features
        blocks = len(self.path) - 1
        if len(widths) < blocks:
            raise InputError(f"UNet: widths is {list(widths)}, but {blocks} blocks need as many: lengthen widths")
        check_positive("UNet", widths=min(widths))
        before = (used[-1].channels, *widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(before[number] + self.path[number + 1].channels, width, 3, dims),
                ConvNormReLU(width, width, 3, dims),
            )
            for number, width in enumerate(widths[:blocks])
        )
        self.head = ScoreHead(widths[blocks - 1], num_classes, dims, kernel=3)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (self.path[-1],)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S) at image resolution."""
        x, *finer = features[::-1]
        for number, block in enumerate(self.blocks):
            skip = finer[number] if number < len(finer) else None
            cells = size if skip is None else skip.shape[2:]
            x = resample(x, self.path[number], cells, self.resampling, onto=self.path[number + 1])
            x = block(x if skip is None else torch.cat([x, skip], 1))
        return [self.head(x)]
