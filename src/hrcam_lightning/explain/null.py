"""Null explainers: maps that have not seen the disease. A method must beat them to have found anything."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def random_maps(cases: Sequence[str], num_classes: int, size: Sequence[int]) -> Tensor:
    """Uniform noise in 0..1, (B, K, *S).

    A case's noise follows from its name, so that it is the same in whatever batch, order or process.
    """
    maps = np.empty((len(cases), num_classes, *size), dtype=np.float32)
    for index, case in enumerate(cases):
        seed = int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "little")
        maps[index] = np.random.default_rng(seed).random(maps.shape[1:], dtype=np.float32)
    return torch.from_numpy(maps)


def center_maps(batch: int, num_classes: int, size: Sequence[int]) -> Tensor:
    """Minus the distance to the middle of the image in half widths, (B, K, *S): "it is where it mostly is"."""
    axes = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) / (n / 2) for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    distance: Tensor = torch.linalg.vector_norm(grid, dim=0)
    return (-distance).expand(batch, num_classes, *size)
