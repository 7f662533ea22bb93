"""ROAD: pixels are taken out so that what is left does not show which ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import cg, spsolve

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.judging import asking, nan_of_unfit, ranking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from hrcam_lightning.explain.probe import Probe
    from hrcam_lightning.explain.target import Score

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

SHARES = tuple(n / 10 for n in range(1, 10))
"""Shares of the pixels that are taken out."""


class Road(NamedTuple):
    """The score without the pixels that a map puts first, or last.

    Attributes:
        morf: (B, P), for each share of pixels, the most relevant taken out first; low is good.
        lerf: (B, P), the least relevant taken out first; high is good.
        difference: (B,), the mean over the shares of (lerf − morf) / 2; high is good, 0 for a map that says nothing.
    """

    morf: Tensor
    lerf: Tensor
    difference: Tensor


def road(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    score: Score = "softmax",
    chunk: int = 32,
    seed: int = 0,
) -> Road:
    """Remove and debias (Rong et al., ICML 2022), by noisy linear imputation.

    What holds for ties, flat maps and NaN stands in `hrcam_lightning.explain.judging`.

    Args:
        model: Any network of images to logits, or to an object that holds them.
        images: (B, C, *S).
        maps: (B, 1, *S); their scale plays no part.
        target: A class, or a class a sample (B,).
        shares: Of the pixels that are taken out.
        noise: Standard deviation of the noise on imputed pixels, as a share of the image's own: the published code has
            0.01 for images brought to a deviation of 1.
        score: Of the class.
        chunk: Images in one pass: bounds the memory.
        seed: Of the order among equal values and of the noise, which is the same for all images.

    Raises:
        InputError: If an argument does not fit.
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"shares are {list(shares)}, but must lie between 0 and 1")
    if noise < 0:
        raise InputError(f"noise is {noise}, but must not be negative")
    with asking(model, images, maps, target, score, chunk) as (probe, values):
        ranks = ranking(values, seed).view(len(images), *images.shape[2:]).cpu().numpy()
        field = noise * np.random.default_rng(seed).standard_normal(images.shape[1:])
        counts = [min(round(share * ranks[0].size), ranks[0].size - 1) for share in shares]
        scores = torch.cat([_ask(probe, part) for part in _chunks(_variants(probe, ranks, counts, field), chunk)])
        morf, lerf = nan_of_unfit(scores.view(len(images), -1), values).view(len(images), 2, -1).unbind(1)
        return Road(morf, lerf, (lerf - morf).mean(1) / 2)


def _variants(
    probe: Probe, ranks: np.ndarray[tuple[int, ...], np.dtype[np.int64]], counts: list[int], field: Floats
) -> Iterator[tuple[int, Floats]]:
    """Sample numbers and imputed images: of each sample the most relevant pixels out, then the least relevant."""
    for sample, (image, rank) in enumerate(zip(probe.images.double().cpu().numpy(), ranks, strict=True)):
        for worth in (rank, rank.size - 1 - rank):
            for count in counts:
                gone = worth < count
                yield sample, impute(image, gone) + gone * field * image.std()


def _chunks(items: Iterator[tuple[int, Floats]], size: int) -> Iterator[list[tuple[int, Floats]]]:
    while part := list(itertools.islice(items, size)):
        yield part


def _ask(probe: Probe, part: list[tuple[int, Floats]]) -> Tensor:
    owners = torch.tensor([sample for sample, _ in part], device=probe.images.device)
    return probe.scores(torch.from_numpy(np.stack([image for _, image in part])).to(probe.images), owners)[:, 0]


def impute(image: Floats, gone: Bools) -> Floats:
    """An image (C, *S) whose pixels `gone` (*S) are each the weighted mean of their neighbours.

    Neighbours are those of the surrounding square or cube. One that is a step along m axes away has a weight in
    proportion to 1 / m, which in 2D are the published 1/6 and 1/12 (the weights in 3D are ours); at the border the
    others share what is missing. All that are gone depend on each other: a sparse, symmetric, positive definite system,
    solved by conjugate gradients.

    Args:
        image: Without NaN, or the result is NaN altogether.
        gone: Not all of them.
    """
    if not gone.any():
        return image.copy()
    if not np.isfinite(image).all():
        return np.full_like(image, np.nan)
    size, places = gone.shape, np.argwhere(gone)
    number = np.full(size, -1)
    number[gone] = np.arange(len(places))
    rows, columns, weights = [], [], []
    total, known = np.zeros(len(places)), np.zeros((len(image), len(places)))
    for offset in itertools.product((-1, 0, 1), repeat=gone.ndim):
        steps = sum(map(abs, offset))
        there = places + offset
        inside = np.flatnonzero(((there >= 0) & (there < size)).all(1)) if steps else np.empty(0, np.int64)
        at = tuple(there[inside].T)
        total[inside] += 1 / max(steps, 1)
        other = number[at]
        rows.append(inside[other >= 0])
        columns.append(other[other >= 0])
        weights.append(np.full(len(rows[-1]), -1 / max(steps, 1)))
        known[:, inside[other < 0]] += image[(slice(None), *at)][:, other < 0] / max(steps, 1)
    diagonal = np.arange(len(places))
    matrix = coo_array(
        (np.concatenate([*weights, total]), (np.concatenate([*rows, diagonal]), np.concatenate([*columns, diagonal])))
    ).tocsr()
    scale = coo_array((1 / total, (diagonal, diagonal))).tocsr()
    result = image.copy()
    for channel, right in zip(result, known, strict=True):
        start = np.full(len(places), channel[~gone].mean())
        solved, failed = cg(matrix, right, x0=start, rtol=1e-8, M=scale)
        channel[gone] = spsolve(matrix.tocsc(), right) if failed else solved
    return result
