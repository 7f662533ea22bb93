"""Tiny networks whose answers are known, or can be looped over."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """One logit: the weighted sum of the pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.clone())

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weights).flatten(1).sum(1, keepdim=True)


def small(dims: int, classes: int = 3, channels: int = 2) -> nn.Sequential:
    """Convolution, ReLU, mean pooling and a dense layer, on random weights that say something."""
    convolution, pooling = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dims == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    torch.manual_seed(5)
    network = nn.Sequential(
        convolution(channels, 6, 3, padding=1), nn.ReLU(), pooling(1), nn.Flatten(), nn.Linear(6, classes)
    )
    with torch.no_grad():
        network[4].weight.mul_(10)  # type: ignore[operator]
    return network


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))
