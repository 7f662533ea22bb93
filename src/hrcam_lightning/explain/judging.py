"""What the ways to judge a map have in common: the question, the order of the pixels, and what stands for absent ones.

- A class a sample; the score is its probability if nothing else is asked for (``softmax``; of a single logit its
  sigmoid; ``sigmoid`` where several findings can be there at once).
- **Ties** are broken by one random order of the pixels that follows from a seed and the image's size alone. A
  **flat map** so scores what a random order scores; as a mask (`drop_and_increase`) it hides everything.
- A map with a value that is **not finite** has NaN scores, and so has one of whose image the network says NaN.
- Raw figures a sample: a batch of n gives the figures of n single calls. Nothing draws from the global random state.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.probe import Probe, undisturbed
from hrcam_lightning.explain.target import Score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Fill = Literal["blur"] | float
"""What stands for a pixel that is not there: the image blurred, or a constant."""

BLUR = 5.0
"""Sigma of the blur in pixels; with its cut at one sigma the kernel of 11 pixels of RISE's published code."""


@contextmanager
def asking(
    model: nn.Module, images: Tensor, maps: Tensor, target: int | Tensor, score: Score, chunk: int
) -> Iterator[tuple[Probe, Tensor]]:
    """A probe of a network that is left as it was, and the maps as float32.

    Raises:
        InputError: If maps, score or chunk do not fit.
    """
    if images.ndim not in (4, 5) or maps.shape != (len(images), 1, *images.shape[2:]):
        raise InputError(
            f"images are {tuple(images.shape)} and maps {tuple(maps.shape)}, but images (batch, channel, axes...) and "
            "a map each, (batch, 1, axes...), are needed"
        )
    if score not in get_args(Score):
        raise InputError(f"score is {score!r}, but is one of {', '.join(get_args(Score))}")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}, but must be at least 1")
    with undisturbed(model, images), torch.no_grad():
        probe = Probe(model, images.detach().clone(), {}, score, target, "half_pixel", chunk)
        yield probe, maps.detach().to(images.device).float()


def ranking(maps: Tensor, seed: int = 0) -> Tensor:
    """Rank of each pixel, (B, pixels), 0 for the highest value; equal values in the random order of the seed."""
    flat = maps.flatten(1)
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(flat.shape[1])).to(maps.device)
    order = shuffled[flat[:, shuffled].argsort(stable=True, dim=1, descending=True)]
    return order.argsort(1)


def filled(images: Tensor, fill: Fill, sigma: float) -> Tensor:
    """Images (B, C, *S) of which nothing is there.

    Raises:
        InputError: If the fill is unknown.
    """
    if fill != "blur":
        try:
            return torch.full_like(images, float(fill))
        except ValueError:
            raise InputError(f"fill is {fill!r}, but is 'blur' or a number") from None
    if not sigma > 0:
        raise InputError(f"blur is {sigma}, but is a sigma in pixels, above 0")
    blurred = images.float()  # bfloat16 holds whole numbers to 256 alone, and images are larger
    for axis in range(2, images.ndim):
        place = torch.arange(images.shape[axis], dtype=torch.float32, device=images.device)
        distance = (place[:, None] - place).abs()
        weights = torch.exp(-((distance / sigma) ** 2) / 2) * (distance <= max(1, round(sigma)))
        blurred = (blurred.movedim(axis, -1) @ (weights / weights.sum(1, keepdim=True)).T).movedim(-1, axis)
    return blurred.to(images.dtype)


def nan_of_unfit(scores: Tensor, maps: Tensor) -> Tensor:
    """Scores (B, ...), NaN for those whose map is not finite."""
    fit = maps.flatten(1).isfinite().all(1)
    return torch.where(fit.view(-1, *(1,) * (scores.ndim - 1)), scores, torch.nan)
