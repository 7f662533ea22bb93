"""Whether a map shows what the network looks at: pixels are put in or taken out in its order, or it is a mask.

What holds for ties, flat maps, NaN and scores stands in `hrcam_lightning.explain.judging`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.fusion import unit_range
from hrcam_lightning.explain.judging import BLUR, asking, filled, nan_of_unfit, ranking
from hrcam_lightning.explain.probe import each_copy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hrcam_lightning.explain.judging import Fill
    from hrcam_lightning.explain.target import Score


class Curve(NamedTuple):
    """The score while pixels are put in or taken out.

    Attributes:
        shares: (N + 1,), the share of the pixels put in or taken out, 0 to 1.
        scores: (B, N + 1).
        area: (B,), the area under it by trapezoids: the mean score over the shares.
    """

    shares: Tensor
    scores: Tensor
    area: Tensor


def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    steps: int = 32,
    fill: Fill = "blur",
    blur: float = BLUR,
    score: Score = "softmax",
    chunk: int = 32,
    seed: int = 0,
) -> Curve:
    """Insertion (Petsiuk et al., RISE, BMVC 2018): pixels are put in, the highest of the map first; high is good.

    Args:
        model: Any network of images to logits, or to an object that holds them.
        images: (B, C, *S).
        maps: (B, 1, *S), as `explain` returns them for a `target`; their scale plays no part.
        target: A class, or a class a sample (B,).
        steps: N, from nothing to everything in equal shares of the pixels.
        fill: What the image begins as.
        blur: Sigma in pixels of the Gaussian, cut off at one sigma; what lies beyond the border has no weight.
        score: Of the class.
        chunk: Images in one pass: bounds the memory.
        seed: Of the order among equal values.

    Raises:
        InputError: If an argument does not fit.
    """
    return _curve(model, images, maps, target, steps, fill, blur, score, chunk, seed, taken_out=False)


def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    steps: int = 32,
    fill: Fill = "blur",
    blur: float = BLUR,
    score: Score = "softmax",
    chunk: int = 32,
    seed: int = 0,
) -> Curve:
    """Deletion (RISE): pixels are taken out, the highest of the map first; low is good. Arguments as of `insertion`.

    RISE fills with 0, which in most images is itself something to see; here the default is the blur of `insertion`, as
    Poly-CAM has it.

    Raises:
        InputError: If an argument does not fit.
    """
    return _curve(model, images, maps, target, steps, fill, blur, score, chunk, seed, taken_out=True)


class Masked(NamedTuple):
    """What is left of the score of an image seen through its map.

    Attributes:
        drop: (B,), ``max(0, p − p_masked) / p``; NaN where p is not positive.
        increase: (B,), 1 where ``p_masked > p``, otherwise 0.
    """

    drop: Tensor
    increase: Tensor


def drop_and_increase(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    score: Score = "softmax",
    chunk: int = 32,
) -> Masked:
    """Average drop (low is good) and increase (high is good) of Grad-CAM++ (Chattopadhyay et al., 2018, section 4.1).

    The image is multiplied by its map, brought to 0 at its lowest and 1 at its highest value. A single call of many
    samples gives what is averaged; the paper has the means in percent. Arguments as of `insertion`.

    Raises:
        InputError: If an argument does not fit.
    """
    with asking(model, images, maps, target, score, chunk) as (probe, values):
        masks = unit_range(values).to(probe.images.dtype)

        def ask(samples: Tensor, seen: Tensor) -> Tensor:
            mask = torch.where(seen.view(-1, *(1,) * (images.ndim - 1)) == 1, masks[samples], 1)
            return probe.scores(probe.images[samples] * mask, samples)

        whole, through = each_copy(probe, 2, ask)[..., 0].unbind(1)
        drop = torch.where(whole > 0, (whole - through).relu() / whole, torch.nan)
        increase = torch.where((whole - through).isnan(), torch.nan, (through > whole).to(whole.dtype))
        return Masked(nan_of_unfit(drop, values), nan_of_unfit(increase, values))


def _curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: int | Tensor,
    steps: int,
    fill: Fill,
    blur: float,
    score: Score,
    chunk: int,
    seed: int,
    *,
    taken_out: bool,
) -> Curve:
    if steps < 1:
        raise InputError(f"steps is {steps}, but must be at least 1")
    with asking(model, images, maps, target, score, chunk) as (probe, values):
        empty = filled(probe.images, fill, blur)
        before, after = (probe.images, empty) if taken_out else (empty, probe.images)
        ranks = ranking(values, seed).view_as(values)
        shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        counts = (shares * values[0].numel()).round().long().to(images.device)

        def ask(samples: Tensor, step: Tensor) -> Tensor:
            changed = ranks[samples] < counts[step].view(-1, *(1,) * (images.ndim - 1))
            return probe.scores(torch.where(changed, after[samples], before[samples]), samples)

        scores = nan_of_unfit(each_copy(probe, steps + 1, ask)[..., 0], values)
        area = (scores.double().sum(1) - (scores[:, 0].double() + scores[:, -1].double()) / 2) / steps
        return Curve(shares.to(scores), scores, area.to(scores))
