"""Pyramid attention, the bottleneck of PYLON and of PAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from hrcam_lightning.decoders.blocks import ConvNormReLU, spatial_mean
from hrcam_lightning.geometry import Level, Resampling, resample

if TYPE_CHECKING:
    from torch import Tensor


class PyramidAttention(nn.Module):
    """A gate of one channel, drawn from three coarser grids, times the features (Li et al., BMVC 2018: PAN, the FPA).

    With ``CBR`` a convolution with bias, batch norm and ReLU, ``m = CBR1(x)`` is the value. Down, each after a 2×2 max
    pooling: ``d1 = CBR7(x)``, ``d2 = CBR5(d1)``, ``d3 = CBR3(d2)``, one channel each. Up:
    ``u = up(CBR3(d3))``, ``u = up(CBR5(d2) + u)``, ``u = up(CBR7(d1) + u)``. The output is ``u · m``, plus
    ``CBR1(mean x)`` with `global_pooling`, the branch that PYLON leaves out (Preechakul et al., iScience 2022).

    The published form doubles the size at each step up, which needs images of a multiple of 256; here each step goes
    to the size that it came from, so that any will do, and a cell that the pooling leaves over is pooled by itself.

    Args:
        level: Where the features lie.
        width: Channels of the output.
        global_pooling: Whether to add the mean over the image.
    """

    def __init__(self, level: Level, width: int, global_pooling: bool = False) -> None:
        super().__init__()
        channels, dims = level.channels, len(level.stride)
        self.levels = [level]
        for _ in range(3):
            self.levels.append(_halved(self.levels[-1]))
        self.value = ConvNormReLU(channels, width, 1, dims, bias=True)
        kernels = (7, 5, 3)
        before = (channels, 1, 1)
        self.down = nn.ModuleList(ConvNormReLU(c, 1, k, dims, bias=True) for c, k in zip(before, kernels, strict=True))
        self.up = nn.ModuleList(ConvNormReLU(1, 1, k, dims, bias=True) for k in kernels)
        self.mean = ConvNormReLU(channels, width, 1, dims, bias=True) if global_pooling else None

    def forward(self, x: Tensor, resampling: Resampling) -> Tensor:
        """Features (B, width, *S) of x (B, C, *S)."""
        steps = [x]
        for down in self.down:
            steps.append(down(_max_pool(steps[-1])))
        gate = self.up[2](steps[3])
        for depth in (2, 1, 0):
            gate = resample(gate, self.levels[depth + 1], steps[depth].shape[2:], resampling, onto=self.levels[depth])
            if depth:
                gate = self.up[depth - 1](steps[depth]) + gate
        out: Tensor = gate * self.value(x)
        return out if self.mean is None else out + self.mean(spatial_mean(x))


def _max_pool(x: Tensor) -> Tensor:
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x, 2, ceil_mode=True)


def _halved(level: Level) -> Level:
    """The level that pooling of 2 cells gives: a cell lies between the two that it stands for."""
    offset = tuple(start + step / 2 for start, step in zip(level.offset, level.stride, strict=True))
    return Level(level.channels, tuple(2 * step for step in level.stride), offset)
