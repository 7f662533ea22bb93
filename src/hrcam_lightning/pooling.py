"""Pooling of a class map into the class's logit.

Mean, maximum, log-sum-exp, top-k share and attention commute with adding a constant,
``pool(maps + b) = pool(maps) + b``: there a class bias may stand inside of the map or outside. Noisy-or and Li's
pooling read the map as probabilities and do not. The model keeps the bias inside for every pooling but the mean.

All of them work in float32 at least, whatever the map's precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Pooling(nn.Module, ABC):
    """Turns maps (B, K, *S) into logits (B, K)."""

    additive: ClassVar[bool] = False
    """Whether the logit is the mean of the map, so that it can be had at the levels' own resolution."""

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""


def _pixels(maps: Tensor) -> Tensor:
    """Maps (B, K, *S) as (B, K, pixels), in float32 at least."""
    return maps.flatten(2).to(torch.promote_types(maps.dtype, torch.float32))


class MeanPooling(Pooling):
    """Average: every pixel's evidence counts alike, as in CAM and HR-CAM."""

    additive = True

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return _pixels(maps).mean(-1)


class MaxPooling(Pooling):
    """Maximum: the strongest pixel speaks for the image, as in PYLON. The map's peak is the logit."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return _pixels(maps).amax(-1)


class LogSumExpPooling(Pooling):
    """Smooth maximum ``(1/r) log mean exp(r · map)`` (Pinheiro & Collobert, CVPR 2015).

    While the map is flat every pixel learns; once it has a peak, the peak does. With the maximum one pixel an image
    learns from the start, and some seeds take half the run to begin.

    Args:
        sharpness: ``r`` > 0 per logit. Towards 0 it is the mean, towards infinity the maximum.

    Raises:
        InputError: If `sharpness` is not positive.
    """

    def __init__(self, sharpness: float = 3.0) -> None:
        super().__init__()
        self.sharpness = _above_zero("LogSumExpPooling", sharpness=sharpness)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        flat = _pixels(maps)
        return (torch.logsumexp(self.sharpness * flat, -1) - math.log(flat.shape[-1])) / self.sharpness


class TopKPooling(Pooling):
    """Mean of the highest pixels, a stated share of all (as in WILDCAT's positive part: Durand et al., CVPR 2017).

    Args:
        share: Share of the pixels, above 0 and at most 1, rounded to whole pixels and at least one. Towards 0 it is the
            maximum, at 1 the mean.

    Raises:
        InputError: If `share` is no such share.
    """

    def __init__(self, share: float = 0.05) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise InputError(f"TopKPooling: share is {share}, but is a share of the pixels, above 0 and at most 1")
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        flat = _pixels(maps)
        return flat.topk(max(1, round(self.share * flat.shape[-1])), -1).values.mean(-1)


class AttentionPooling(Pooling):
    """Mean weighted by the map itself, ``Σ softmax(r · map) · map``.

    Args:
        sharpness: ``r`` > 0 per logit. Towards 0 it is the mean, towards infinity the maximum.

    Raises:
        InputError: If `sharpness` is not positive.
    """

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = _above_zero("AttentionPooling", sharpness=sharpness)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        flat = _pixels(maps)
        return ((self.sharpness * flat).softmax(-1) * flat).sum(-1)


class NoisyOrPooling(Pooling):
    """The image is positive if any of its cells is: ``P = 1 − Π (1 − p)`` over independent cells, ``p = σ(map)``.

    The product depends on how many cells there are, while the map has as many as the image has pixels. So their number
    is given: ``P = 1 − exp(cells · mean log(1 − p))``, which is the product itself for a map of that many cells.

    Args:
        cells: Number of independent cells that the map stands for, for example those of the decoder's level.

    Raises:
        InputError: If `cells` is not positive.
    """

    def __init__(self, cells: float) -> None:
        super().__init__()
        self.cells = _above_zero("NoisyOrPooling", cells=cells)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return _any_of(self.cells * F.softplus(_pixels(maps)).mean(-1))  # −log(1 − σ(x)) = softplus(x)


class LiMILPooling(Pooling):
    """Noisy-or with damped cells (Li et al., CVPR 2018): ``P = 1 − Π (1 − 0.02 p)``, ``p = σ(map)``.

    A single cell cannot make an image positive: of 400 cells, one gives P = 0.02 and all give 0.9997. It rewards
    extent. The published code multiplies probabilities and clamps; here it is a sum of logarithms.

    Args:
        cells: Number of cells that the map stands for, see `NoisyOrPooling`; the paper's grid has 20 × 20.
        damping: Share of a cell's probability that counts, above 0 and below 1.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(self, cells: float = 400, damping: float = 0.02) -> None:
        super().__init__()
        self.cells = _above_zero("LiMILPooling", cells=cells)
        if not 0 < damping < 1:
            raise InputError(f"LiMILPooling: damping is {damping}, but must be above 0 and below 1")
        self.damping = damping

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, K, *S) to (B, K)."""
        return _any_of(-self.cells * torch.log1p(-self.damping * _pixels(maps).sigmoid()).mean(-1))


def _any_of(surprise: Tensor) -> Tensor:
    """Logit of ``P = 1 − exp(−surprise)``: ``log(exp(surprise) − 1)``, for `surprise` ≥ 0 of any size."""
    surprise = surprise.clamp(min=1e-30)  # a logit of −69; the gradient of a smaller one would overflow
    return surprise + torch.log(-torch.expm1(-surprise))


def _above_zero(name: str, **values: float) -> float:
    """The one value given, refused if it is not positive.

    Raises:
        InputError: Naming the pooling, the argument and its value.
    """
    ((argument, value),) = values.items()
    if not value > 0:
        raise InputError(f"{name}: {argument} is {value}, but must be above 0")
    return value
