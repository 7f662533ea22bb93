"""A cell and its neighbours, as what moves evidence by less than a cell and what sharpens it.

A linear read-out of single cells cannot mend evidence that lies a little beside what it tells of. One that also reads
the cells next to them can: ``A + d ∂A`` is ``A`` moved by ``d`` as far as the first order goes, and ``A − s ΔA`` is
sharper. Both leave the mean of a map alone but for the border, so that image labels say next to nothing of them: they
are free to put evidence in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def around(read: Callable[[Sequence[int]], Tensor], dims: int) -> list[Tensor]:
    """The cells themselves, their slope along each axis, and how far the mean of their neighbours is from them.

    Slopes are central differences, the last is the Laplacian of the nearest neighbours over ``2 D``.

    Args:
        read: Gives the cells that lie so many steps further along each axis, the border ones repeated.
        dims: Number D of axes.

    Returns:
        ``D + 2`` tensors of one shape.
    """
    own, slopes, total = read([0] * dims), [], None
    for axis in range(dims):
        ahead, behind = (read([sign if other == axis else 0 for other in range(dims)]) for sign in (1, -1))
        slopes.append((ahead - behind) / 2)
        both = ahead + behind
        total = both if total is None else total + both
    assert total is not None
    return [own, *slopes, total / (2 * dims) - own]


def shifted(maps: Tensor, steps: Sequence[int]) -> Tensor:
    """For each cell of maps (B, K, *S) the one so many steps further along each axis, the border ones repeated."""
    for axis, step in enumerate(steps):
        if step:
            cells = maps.shape[2 + axis]
            index = (torch.arange(cells, device=maps.device) + step).clamp(0, cells - 1)
            maps = maps.index_select(2 + axis, index)
    return maps
