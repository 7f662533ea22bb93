"""Small networks that a test can cut into what is before a layer and what is after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = [(9, 12), (6, 8, 7)]
"""Odd, unequal sizes of images in 2D and 3D."""
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Staged(nn.Module):
    """Stages one after the other, and a head."""

    def __init__(self, stages: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.before(images, -1), -1)

    def before(self, images: Tensor, stage: int) -> Tensor:
        """The output of a stage."""
        for module in self.stages[: stage % len(self.stages) + 1]:
            images = module(images)
        return images

    def after(self, activations: Tensor, stage: int) -> Tensor:
        """The logits, given the output of a stage."""
        values = activations.clone()  # the second stage works in place
        for module in self.stages[stage % len(self.stages) + 1 :]:
            values = module(values)
        logits: Tensor = self.head(values)
        return logits


def curved(size: Sequence[int], classes: int = 3, *, inplace: bool = True) -> Staged:
    """Three stages of 1, 1/2 and 1/4 resolution behind a head of which the gradient differs from cell to cell.

    The first and the last stage end signed, the second ends with a ReLU and has one channel that never speaks. What the
    first returns is overwritten by the second if it works `inplace`.
    """
    dims = len(size)
    torch.manual_seed(dims)
    stages = [
        nn.Sequential(CONV[dims](2, 3, 3, padding=1), NORM[dims](3)),
        nn.Sequential(nn.ReLU(inplace), MAX_POOL[dims](2), CONV[dims](3, 4, 3, padding=1), NORM[dims](4), nn.ReLU()),
        CONV[dims](4, 5, 3, stride=2, padding=1),
    ]
    cells = math.prod(math.ceil(n // 2 / 2) for n in size)
    head = nn.Sequential(nn.Flatten(), nn.Linear(5 * cells, 6), nn.Tanh(), nn.Linear(6, classes))
    model = _as_trained(Staged(stages, head))
    silent = model.get_submodule("stages.1.3")
    assert isinstance(silent, nn.BatchNorm2d | nn.BatchNorm3d)
    last = model.get_submodule("head.3")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        silent.weight[0], silent.bias[0] = 0, -1
        last.bias.sub_(model(batch(size)).mean(0))  # so that each class wins somewhere
    return model


def mean_pooled(size: Sequence[int], classes: int = 3, *, rectified: bool = True) -> Staged:
    """Convolutions, mean pooling and one dense layer: the head of CAM."""
    dims = len(size)
    torch.manual_seed(dims)
    last = [nn.ReLU()] if rectified else []
    stages = [
        nn.Sequential(CONV[dims](2, 3, 3, padding=1), NORM[dims](3), nn.ReLU(), MAX_POOL[dims](2)),
        nn.Sequential(CONV[dims](3, 4, 3, padding=1), *last),
    ]
    head = nn.Sequential(MEAN_POOL[dims](1), nn.Flatten(), nn.Linear(4, classes))
    return _as_trained(Staged(stages, head))


def _as_trained(model: Staged) -> Staged:
    """In float64, weights that let samples differ, biases and batch norm's statistics not at their initial values."""
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.normal_(bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.3, 2)  # type: ignore[arg-type]
    return model


def batch(size: Sequence[int], number: int = 3) -> Tensor:
    return torch.randn(number, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
