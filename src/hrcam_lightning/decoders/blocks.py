"""What the convolutional decoders share: blocks in 2D and 3D, their initialisation, and the choice of levels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from hrcam_lightning.decoders.decoder import score
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.geometry import Level

Norm = Literal["batch", "group", "instance"]


def convolution(
    before: int,
    after: int,
    kernel: int,
    dims: int,
    bias: bool = True,
    dilation: Sequence[int] = (),
    groups: int = 1,
) -> nn.Conv2d | nn.Conv3d:
    """Convolution of an odd kernel that keeps the size, in 2D or 3D; a `dilation` for each axis, 1 if not given."""
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    steps = tuple(dilation) or (1,) * dims
    padding = tuple(kernel // 2 * step for step in steps)
    return layer(before, after, kernel, padding=padding, bias=bias, dilation=steps, groups=groups)  # type: ignore[arg-type]


class ConvNormReLU(nn.Module):
    """Convolution that keeps the size, norm, and an activation.

    Args:
        before: Channels that come in.
        after: Channels that go out.
        kernel: Odd kernel size along every axis.
        dims: Number of spatial axes, 2 or 3.
        bias: Whether the convolution has one.
        norm: ``batch``; ``group`` of 32 groups, or of as many as divide both 32 and the channels; or ``instance``.
        activation: What follows the norm.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        dims: int,
        bias: bool = False,
        norm: Norm = "batch",
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = convolution(before, after, kernel, dims, bias)
        self.kind: Norm = norm
        self.norm: nn.Module
        if norm == "batch":
            self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(after)
        elif norm == "group":
            self.norm = nn.GroupNorm(math.gcd(32, after), after)
        else:
            self.norm = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(after, affine=True)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, after, *S) of x (B, before, *S).

        Raises:
            InputError: If the norm would see one value at a time, of which it leaves nothing.
        """
        cells = math.prod(x.shape[2:])
        if cells == 1 and (self.kind == "instance" or (self.kind == "batch" and self.training and len(x) == 1)):
            raise InputError(
                f"{self.kind} norm gets a single value a channel, of which it leaves nothing: use --data.batch_size 2 "
                "or more (batch norm), global_pooling false where the decoder has it, or larger images"
            )
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class ScoreHead(nn.Module):
    """Convolution from features to class maps, without bias and in float32, Xavier-uniform at the start.

    Args:
        channels: Channels that come in.
        num_classes: Number of maps K.
        dims: Number of spatial axes, 2 or 3.
        kernel: Odd kernel size along every axis.
    """

    def __init__(self, channels: int, num_classes: int, dims: int, kernel: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, channels, *(kernel,) * dims))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Class maps (B, K, *S) of x (B, C, *S)."""
        return score(x, self.weight)


def initialize(decoder: nn.Module) -> None:
    """Start as the published decoders do: convolutions Kaiming-uniform (fan in, ReLU), biases 0; norms 1 and 0."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over space of x (B, C, *S), kept as (B, C, 1, ...)."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def last_levels(name: str, levels: Sequence[Level], at_least: int, at_most: int) -> tuple[Level, ...]:
    """The deepest levels that a decoder reads.

    Raises:
        InputError: If the backbone has fewer than `at_least`.
    """
    if len(levels) < at_least:
        raise InputError(
            f"{name} needs {at_least} levels, but the backbone has {len(levels)}: use a deeper backbone "
            "(for example --model.backbone.depth 5)"
        )
    return tuple(levels[-at_most:])


def check_positive(name: str, **values: int) -> None:
    """Refuse sizes below 1.

    Raises:
        InputError: Naming the decoder, the argument and its value.
    """
    for argument, value in values.items():
        if value < 1:
            raise InputError(f"{name}: {argument} is {value}, but must be at least 1")
