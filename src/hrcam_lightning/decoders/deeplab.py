"""DeepLabV3+: dilated convolutions at several rates on the deepest level, refined by a finer one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.blocks import (
    ConvNormReLU,
    ScoreHead,
    check_positive,
    convolution,
    initialize,
    last_levels,
    spatial_mean,
)
from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.geometry import Level, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class DeepLabV3Plus(Decoder):
    """DeepLabV3+ (Chen et al., ECCV 2018) on a classifier's levels, as PYLON's paper compares with it.

    On the deepest level a 1×1 convolution, separable 3×3 convolutions at three `rates` and, with `global_pooling`,
    the mean over the image; joined, mixed, brought to the fourth level from below, whose features join after a 1×1
    convolution; a separable 3×3 convolution, and a 1×1 one to the classes.

    The rates are those of the paper, in cells of a deepest level of stride 16. The output stride here is the backbone's
    own. At another stride the rates are scaled so that they reach as many pixels: 6, 12 and 18 cells at stride 32.

    Args:
        levels: The backbone's levels, of which the deepest and the fourth from below (or the finest) are read.
        num_classes: Number of maps K.
        width: Channels.
        rates: Dilations in cells at a stride of 16 pixels.
        finer_width: Channels that the finer level is reduced to.
        dropout: Share of the mixed features that is dropped in training.
        global_pooling: Whether the mean over the image is a branch.

    Raises:
        InputError: If a width or a rate is below 1, or the backbone has fewer than two levels.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        width: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        finer_width: int = 48,
        dropout: float = 0.5,
        global_pooling: bool = True,
    ) -> None:
        super().__init__()
        check_positive("DeepLabV3Plus", width=width, finer_width=finer_width, **{f"rates {r}": r for r in rates})
        used = last_levels("DeepLabV3Plus", levels, 2, 4)
        self.finest, self.deepest = used[0], used[-1]
        self.reads = len(used)
        channels, dims = self.deepest.channels, len(self.deepest.stride)
        dilations = [[max(1, round(rate * 16 / stride)) for stride in self.deepest.stride] for rate in rates]
        self.branches = nn.ModuleList(
            [ConvNormReLU(channels, width, 1, dims), *(_Separable(channels, width, dims, d) for d in dilations)]
        )
        self.mean = ConvNormReLU(channels, width, 1, dims) if global_pooling else None
        joined = len(self.branches) + global_pooling
        self.project = nn.Sequential(ConvNormReLU(joined * width, width, 1, dims), nn.Dropout(dropout))
        self.smooth = _Separable(width, width, dims)
        self.reduce = ConvNormReLU(self.finest.channels, finer_width, 1, dims)
        self.refine = _Separable(width + finer_width, width, dims)
        self.head = ScoreHead(width, num_classes, dims)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.levels = (self.finest,)
        initialize(self)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """One score map (B, K, *S_l) at the finer of the two levels."""
        x, finer = features[-1], self.reduce(features[-self.reads])
        branches = [branch(x) for branch in self.branches]
        if self.mean is not None:
            branches.append(self.mean(spatial_mean(x)).expand(-1, -1, *x.shape[2:]))
        x = self.smooth(self.project(torch.cat(branches, 1)))
        x = resample(x, self.deepest, finer.shape[2:], self.resampling, onto=self.finest)
        return [self.head(self.refine(torch.cat([x, finer], 1)))]


class _Separable(nn.Sequential):
    """Dilated 3×3 convolution of each channel by itself, then a 1×1 one over channels, batch norm and ReLU."""

    def __init__(self, before: int, after: int, dims: int, dilation: Sequence[int] = ()) -> None:
        depthwise = convolution(before, before, 3, dims, bias=False, dilation=dilation, groups=before)
        super().__init__(depthwise, ConvNormReLU(before, after, 1, dims))
