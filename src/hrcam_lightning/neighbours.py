"""A cell and its neighbours, as what moves evidence by less than a cell and what sharpens it.

A linear read-out of single cells cannot mend evidence that lies a little beside what it tells of. One that also reads
the cells next to them can: ``A − d ∂A`` is ``A`` moved on by ``d`` cells as far as the first order goes, and
``A − s ΔA`` is sharper. Both leave the mean of a map alone but for the border, so that image labels say next to nothing
of them: they are free to put evidence in its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
    pairs = [_pair(read, axis, dims) for axis in range(dims)]
    own = read([0] * dims)
    return [own, *((ahead - behind) / 2 for ahead, behind in pairs), _mean(pairs) - own]


def reach(dims: int) -> Iterator[tuple[int, ...]]:
    """All steps that `around` reads at: ``2 D + 1`` of them."""
    yield (0,) * dims
    for axis in range(dims):
        for sign in (1, -1):
            yield tuple(sign * (other == axis) for other in range(dims))


def add_up(terms: Sequence[Tensor]) -> Tensor:
    """The sum of the terms of `around`, each of maps of its own.

    Args:
        terms: ``D + 2`` maps (B, K, *S): what is read of the cells, of their slope along each axis, and of the last.

    Returns:
        (B, K, *S).
    """
    own, *slopes, bulge = terms
    dims = len(slopes)
    total = own - bulge + _mean([_pair(partial(shifted, bulge), axis, dims) for axis in range(dims)])
    for axis, slope in enumerate(slopes):
        ahead, behind = _pair(partial(shifted, slope), axis, dims)
        total = total + (ahead - behind) / 2
    return total


def _pair(read: Callable[[Sequence[int]], Tensor], axis: int, dims: int) -> tuple[Tensor, Tensor]:
    """The next cells along an axis, ahead and behind."""
    steps = [int(other == axis) for other in range(dims)]
    return read(steps), read([-step for step in steps])


def _mean(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([ahead + behind for ahead, behind in pairs]).sum(0) / (2 * len(pairs))


def shifted(maps: Tensor, steps: Sequence[int]) -> Tensor:
    """For each cell of maps (B, K, *S) the one so many steps further along each axis, the border ones repeated."""
    for axis, step in enumerate(steps):
        if step:
            cells = maps.shape[2 + axis]
            index = (torch.arange(cells, device=maps.device) + step).clamp(0, cells - 1)
            maps = maps.index_select(2 + axis, index)
    return maps
