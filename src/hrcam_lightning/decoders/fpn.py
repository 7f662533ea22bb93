"""FPN for dense prediction: a top-down pyramid, every level of which is brought to the finest and added."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from hrcam_lightning.decoders.blocks import (
    ConvNormReLU,
    Norm,
    ScoreHead,
    check_positive,
    convolution,
    initialize,
    last_levels,
)
from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.geometry import Level, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FPN(Decoder):
    """Panoptic FPN (Kirillov et al., CVPR 2019) on a classifier's levels, as PYLON's paper compares with it.

    A 1×1 convolution of each level plus the deeper one brought to it; then, from each, 3×3 convolutions with norm and
    ReLU, one for each step to the finest level; their sum and a 1×1 convolution to the classes. Group norm mixes the
    whole image into every cell, which PYLON's paper blames for poor localization: `norm` is that ablation. The top-down
    steps are by the nearest cell in the published form, linear here.

    Args:
        levels: The backbone's levels, of which the last four are read, or all there are.
        num_classes: Number of maps K.
        width: Channels of the pyramid.
        segmentation_width: Channels after it.
        norm: ``batch``, ``group`` (32 groups) or ``instance``.

    Raises:
        InputError: If a width is below 1, or the backbone has fewer than two levels.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        width: int = 256,
        segmentation_width: int = 128,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        check_positive("FPN", width=width, segmentation_width=segmentation_width)
        self.used = last_levels("FPN", levels, 2, 4)
        dims = len(self.used[0].stride)
        self.laterals = nn.ModuleList(convolution(level.channels, width, 1, dims) for level in self.used)
        self.branches = nn.ModuleList(
            nn.ModuleList(
                ConvNormReLU(segmentation_width if step else width, segmentation_width, 3, dims, norm=norm)
                for step in range(max(1, depth))
            )
            for depth in range(len(self.used))
        )
        self.head = ScoreHead(segmentation_width, num_classes, dims)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (self.used[0],)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S_l) at the finest level that is read."""
        sizes = [feature.shape[2:] for feature in features[-len(self.used) :]]
        pyramid = [lateral(x) for lateral, x in zip(self.laterals, features[-len(self.used) :], strict=True)]
        for depth in reversed(range(len(pyramid) - 1)):
            pyramid[depth] = pyramid[depth] + self._finer(pyramid[depth + 1], depth + 1, sizes)
        return [self.head(torch.stack([self._branch(x, depth, sizes) for depth, x in enumerate(pyramid)]).sum(0))]

    def _branch(self, x: Tensor, depth: int, sizes: Sequence[torch.Size]) -> Tensor:
        for step, block in enumerate(cast("nn.ModuleList", self.branches[depth])):
            x = block(x)
            if depth:
                x = self._finer(x, depth - step, sizes)
        return x

    def _finer(self, x: Tensor, depth: int, sizes: Sequence[torch.Size]) -> Tensor:
        return resample(x, self.used[depth], sizes[depth - 1], self.resampling, onto=self.used[depth - 1])
