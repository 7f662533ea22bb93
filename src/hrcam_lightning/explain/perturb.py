"""Methods that change the image or a layer and see what the score does: no gradients, many forward passes.

The network is given `Probe.chunk` images at a time, whatever the number of channels.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.fusion import at_peak_of, fuse, unit_range
from hrcam_lightning.explain.probe import changed, each_copy
from hrcam_lightning.geometry import resample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from hrcam_lightning.explain.fusion import Fusion
    from hrcam_lightning.explain.probe import Probe


def _masked_scores(probe: Probe, name: str, activations: Tensor, clip: float = 0.0) -> Tensor:
    """Scores (B, C, T) of the images seen through each channel, brought to 0..1; -inf where a channel is flat."""

    def ask(samples: Tensor, channels: Tensor) -> Tensor:
        seen = probe.upsample(activations[samples, channels][:, None], name)
        if clip:
            flat = seen.flatten(1)
            rank = round(clip * (flat.shape[1] - 1)) + 1
            low, high = (flat.kthvalue(k, 1).values for k in (rank, flat.shape[1] + 1 - rank))
            shape = (-1, *(1,) * (seen.ndim - 1))
            seen = seen.clamp(low.view(shape), high.view(shape))
        silent = seen.flatten(1).amax(1) == seen.flatten(1).amin(1)
        scores = probe.scores(probe.images[samples] * unit_range(seen).to(probe.images.dtype), samples)
        return scores.masked_fill(silent[:, None], -torch.inf)

    return each_copy(probe, activations.shape[1], ask)


def _combined(weights: Tensor, activations: Tensor) -> Tensor:
    """``ReLU(Σ_k w_k A_k)``, (B, T, *s), for weights (B, C, T)."""
    return torch.einsum("bct,bc...->bt...", weights, activations).relu()


def scorecam(probe: Probe, *, fusion: Fusion = "mean") -> Tensor:
    """Score-CAM (Wang et al., CVPR Workshops 2020): ``ReLU(Σ_k w_k A_k)``.

    ``w`` is the softmax over the channels of the score of the image times the channel, upsampled and brought to 0..1
    (the paper subtracts a baseline's score first, which the softmax takes no notice of). Flat channels have no say.
    """
    maps = []
    for name, activations in probe.activations()[1].items():
        scores = _masked_scores(probe, name, activations)
        nothing = scores.isneginf().all(1, keepdim=True)  # all channels flat: no map; but NaN stays NaN
        weights = scores.masked_fill(nothing, 0).softmax(1).masked_fill(nothing, 0)
        maps.append(probe.upsample(_combined(weights, activations), name))
    return fuse(maps, fusion)


def ablationcam(probe: Probe, *, fusion: Fusion = "mean") -> Tensor:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020): ``ReLU(Σ_k w_k A_k)``, ``w_k`` the drop without channel k.

    The drop is relative to the magnitude of the score: the paper's own division by the score would turn the map of a
    negative score inside out.
    """
    whole, by_layer = probe.activations()
    whole = whole[:, None]
    maps = []
    for name, activations in by_layer.items():

        def ask(samples: Tensor, channels: Tensor, name: str = name) -> Tensor:
            def silence(output: Tensor) -> Tensor:
                output = output.clone()
                output[torch.arange(len(samples)), channels] = 0
                return output

            with changed(probe.model, {name: silence}):
                return probe.scores(probe.images[samples], samples)

        drop = whole - each_copy(probe, activations.shape[1], ask)
        weights = torch.where(whole != 0, drop / whole.abs().where(whole != 0, 1), 0)
        maps.append(probe.upsample(_combined(weights, activations), name))
    return fuse(maps, fusion)


def polycam(probe: Probe) -> Tensor:
    """Poly-CAM+ (Englebert et al., 2022): from the deepest layer up, each layer's detail on the one below.

    ``M_l = LNorm(ReLU(Σ_k w_k A_k)) · U(M_{l+1})`` with ``LNorm(m) = m / U(D(m))``, D resizing to the deeper layer's
    size; ``w_k`` is the class's probability for the image times the channel, clipped at its percentiles 0.1 and 99.9
    and brought to 0..1. Of scores other than the logit, that score stands for the probability.
    """
    if probe.score == "logit":
        probe = probe.asking("softmax")
    below, at = None, ""
    for name, activations in reversed(probe.activations()[1].items()):
        weights = _masked_scores(probe, name, activations, clip=0.001)
        weights = weights.masked_fill(weights.isneginf(), 0)
        here = _combined(weights, activations)
        if below is None:
            deepest = here
        else:
            lifted = resample(below, probe.layers[at], here.shape[2:], probe.resampling, probe.layers[name])
            here = here / _blurred(here, below.shape[2:]).clamp(min=1e-12) * lifted
        below, at = here, name
    assert below is not None
    return at_peak_of(probe.upsample(below, at), deepest)


def _blurred(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Down to a smaller size and back, linearly."""
    mode = "bilinear" if maps.ndim == 4 else "trilinear"
    return F.interpolate(F.interpolate(maps, tuple(size), mode=mode), maps.shape[2:], mode=mode)


def occlusion(
    probe: Probe,
    *,
    patch: int | Sequence[int] | None = None,
    step: int | Sequence[int] | None = None,
    fill: float = 0.0,
) -> Tensor:
    """Occlusion (Zeiler and Fergus, ECCV 2014): how far the score falls when a patch is hidden.

    A pixel has the mean over the patches that cover it, with its sign.

    Args:
        probe: The network and the question; its layers play no part.
        patch: Edge of the patch in pixels, one for all axes or one an axis; an eighth of the image in 2D
            and a quarter in 3D if not given.
        step: From patch to patch; half a patch if not given.
        fill: What the patch is filled with.

    Raises:
        InputError: If a patch does not fit, or steps leave pixels out.
    """
    size = probe.images.shape[2:]
    patches = _per_axis("patch", patch, [max(1, n // (8 if len(size) == 2 else 4)) for n in size])
    steps = _per_axis("step", step, [max(1, n // 2) for n in patches])
    for n, width, stride in zip(size, patches, steps, strict=True):
        if not 1 <= stride <= width <= n:
            raise InputError(
                f"occlusion: patch {patches} and step {steps} must be 1 <= step <= patch <= image {list(size)}"
            )
    starts = [
        range(0, stride * math.ceil((n - width) / stride) + 1, stride)
        for n, width, stride in zip(size, patches, steps, strict=True)
    ]
    with torch.no_grad():
        whole = probe.scores(probe.images)
        total = torch.zeros(*whole.shape, *size, dtype=whole.dtype, device=whole.device)
        count = torch.zeros_like(total)
        boxes = [
            tuple(slice(s, s + w) for s, w in zip(start, patches, strict=True)) for start in itertools.product(*starts)
        ]
        for sample in range(len(probe.images)):
            for some in _split(boxes, probe.chunk):
                hidden = probe.images[sample].expand(len(some), *probe.images.shape[1:]).clone()
                for image, box in zip(hidden, some, strict=True):
                    image[(slice(None), *box)] = fill
                owners = torch.full((len(some),), sample, device=whole.device)
                drops = whole[sample] - probe.scores(hidden, owners)
                for drop, box in zip(drops, some, strict=True):
                    total[sample][(slice(None), *box)] += drop.view(-1, *(1,) * len(size))
                    count[sample][(slice(None), *box)] += 1
    return total / count


def _per_axis(name: str, value: int | Sequence[int] | None, default: list[int]) -> list[int]:
    if value is None:
        return default
    values = [value] * len(default) if isinstance(value, int) else list(value)
    if len(values) != len(default):
        raise InputError(f"occlusion: {name} is {values}, but the images have {len(default)} axes")
    return values


def _split(boxes: list[tuple[slice, ...]], chunk: int) -> Iterator[list[tuple[slice, ...]]]:
    return (boxes[start : start + chunk] for start in range(0, len(boxes), chunk))
