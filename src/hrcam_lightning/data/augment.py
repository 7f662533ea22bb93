"""Augmentation of training batches, on the device, in one resampling."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import voxel_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.data.contract import Batch

Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

ORDERS = 3  # cosines of an image's bias field along each axis: constant, half a wave, a wave


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images; each part is off at 0, and each image draws its own, evenly up to the number.

    Args:
        flips: Spatial axes that are mirrored, each one in half of the images.
        rotation: Degrees; in 3D about an axis of any direction. Rigid in millimetres.
        scale: Change of size: 0.1 is from 1/1.1 to 1.1 times.
        translation: Shift along each axis, as a share of the image's extent.
        gain: Change of contrast about the channel's mean: 0.1 is from 1/1.1 to 1.1 times.
        offset: Change of brightness, in standard deviations of the channel.
        gamma: Change of the exponent of grey values between a channel's lowest and highest: 0.1 is from 1/1.1 to 1.1.
        noise: Gaussian noise, in standard deviations of the channel.
        bias: Change by a smooth field which multiplies what lies above the channel's lowest value: at 0.2 it is
            nowhere below 1/1.2 or above 1.2.
    """

    flips: tuple[int, ...] = ()
    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if not (value >= 0 and math.isfinite(value)):
                raise InputError(f"data.augmentation.{field.name} is {value}, but a strength must not be negative")
        if self.translation > 0.5 or self.rotation > 180:
            raise InputError(
                f"data.augmentation: a rotation of {self.rotation:g} degrees or a translation by {self.translation:g} "
                "of the image is too much; 180 and 0.5 are the most"
            )
        if set(self.flips) - {0, 1, 2} or len(set(self.flips)) < len(self.flips):
            raise InputError(f"data.augmentation.flips is {list(self.flips)}, but names spatial axes: 0, 1 or 2")


def augment(batch: Batch, how: Augmentation, seed: int, step: int) -> Batch:
    """Change the images of a batch, and masks and cues with them.

    What a case gets follows from the run's seed, the step and the name of the case: whatever else is in its batch,
    however many processes share the work, and after a restart. Noise is drawn on the device, and differs between kinds.

    Masks go with their images and decide nothing: training must not know where a finding is. One near the edge may be
    cut off. Beyond its edge an image goes on with the values of the edge, a mask with nothing.

    Args:
        batch: On any device; left as it is.
        how: What is done.
        seed: Of the run.
        step: Of the optimiser.

    Raises:
        InputError: If a flip is asked for along an axis that images do not have.
    """
    image = batch["image"]
    dims = image.ndim - 2
    if max(how.flips, default=0) >= dims:
        raise InputError(f"data.augmentation.flips is {list(how.flips)}, but images have the axes 0 to {dims - 1}")
    draws = [_Draw(seed, step, case, image.shape[1]) for case in batch["case"]]
    changed = cast("Batch", dict(batch))
    masks = [name for name in ("mask", "cue") if name in batch]
    layers = [batch["image"].float(), *(_channels(batch[name], dims).float() for name in masks)]
    for axis in how.flips:
        chosen = torch.tensor([draw.flipped[axis] for draw in draws], device=image.device)
        layers = [torch.where(_over(chosen, layer), layer.flip(axis + 2), layer) for layer in layers]
    if how.rotation or how.scale or how.translation:
        matrices = [
            _matrix(draw, how, image.shape[2:], _spacing(affine, dims))
            for draw, affine in zip(draws, batch["affine"], strict=True)
        ]
        grid = _grid(matrices, image.shape[2:], image.device)
        layers = [
            F.grid_sample(layers[0], grid, "bilinear", "border", align_corners=False),
            *(F.grid_sample(layer, grid, "nearest", "zeros", align_corners=False) for layer in layers[1:]),
        ]
    changed["image"] = _intensities(layers[0], how, draws).to(image.dtype)
    for name, layer in zip(masks, layers[1:], strict=True):
        before = batch[name]
        changed[name] = (layer > 0.5).view(before.shape).to(before.dtype)
    return changed


class _Draw:
    """The numbers of one case, evenly between 0 and 1; each part of the augmentation has its own, used or not."""

    def __init__(self, seed: int, step: int, case: str, channels: int) -> None:
        digest = hashlib.sha256(f"{seed} {step} {case}".encode()).digest()
        self.seed = int.from_bytes(digest[:8], "big") >> 1
        rng = np.random.default_rng(self.seed)
        numbers = rng.random(12)
        self.flipped: list[bool] = (numbers[:3] < 0.5).tolist()
        self.angle, self.size = (2 * numbers[3:5] - 1).tolist()
        self.shift = 2 * numbers[5:8] - 1
        self.height, self.turn = float(2 * numbers[8] - 1), float(2 * math.pi * numbers[9])
        self.greys = 2 * rng.random((channels, 4)) - 1  # gain, offset, gamma, bias
        self.noise = rng.random(channels)
        self.field = rng.standard_normal((channels, ORDERS**3))


# --- geometry


def _matrix(draw: _Draw, how: Augmentation, shape: Sequence[int], spacing: Doubles) -> Doubles:
    """Where a voxel of the new image lies in the old one: (d, d + 1), from the centre of the picture, in voxels."""
    dims = len(shape)
    angle = math.radians(how.rotation) * draw.angle
    if dims == 2:
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    else:
        flat = math.sqrt(1 - draw.height**2)
        x, y, z = flat * math.cos(draw.turn), flat * math.sin(draw.turn), draw.height
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross  # Rodrigues
    size = (1 + how.scale) ** draw.size
    linear = turn * spacing / spacing[:, None] / size
    return np.column_stack([linear, how.translation * draw.shift[:dims] * shape])


def _grid(matrices: Sequence[Doubles], shape: Sequence[int], device: torch.device) -> Tensor:
    """Where to sample: (B, *S, d), in torch's coordinates of -1 to 1 and its order of axes."""
    half = np.array(shape) / 2
    scaled = [matrix * np.append(half, 1) / half[:, None] for matrix in matrices]
    theta = np.stack([np.column_stack([one[::-1, -2::-1], one[::-1, -1]]) for one in scaled])
    return F.affine_grid(torch.from_numpy(theta).float().to(device), [len(matrices), 1, *shape], align_corners=False)


def _spacing(affine: Doubles | None, dims: int) -> Doubles:
    """Voxel size in millimetres along each axis; 1 for a picture, which has no place in space."""
    return np.ones(dims) if affine is None else voxel_size(affine)[:dims]


def _channels(mask: Tensor, dims: int) -> Tensor:
    """A mask (B, K, *S), or a cue (B, *S), with an axis of channels."""
    return mask if mask.ndim == dims + 2 else mask[:, None]


def _over(values: Tensor, like: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (like.ndim - values.ndim))


# --- intensities


def _intensities(image: Tensor, how: Augmentation, draws: Sequence[_Draw]) -> Tensor:
    """The greys of images (B, C, *S) changed: contrast, gamma, bias field, brightness, noise, in this order."""
    if not any((how.gain, how.offset, how.gamma, how.noise, how.bias)):
        return image
    axes = tuple(range(2, image.ndim))
    greys = torch.from_numpy(np.stack([draw.greys for draw in draws])).float().to(image.device)
    gain, offset, gamma, bias = (_over(greys[..., n], image) for n in range(4))
    deviation = image.std(axes, correction=0, keepdim=True)
    if how.gain:
        mean = image.mean(axes, keepdim=True)
        image = mean + (image - mean) * (1 + how.gain) ** gain
    if how.gamma:
        low, span = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True) - image.amin(axes, keepdim=True)
        above = (image - low) / torch.where(span > 0, span, 1)
        image = low + span * above ** ((1 + how.gamma) ** gamma)
    if how.bias:
        low = image.amin(axes, keepdim=True)
        image = low + (image - low) * (1 + how.bias) ** (bias * _fields(draws, image))
    if how.offset:
        image = image + how.offset * offset * deviation
    if how.noise:
        strength = torch.from_numpy(np.stack([draw.noise for draw in draws])).float().to(image.device)
        image = image + how.noise * _over(strength, image) * deviation * _noise(draws, image)
    return image


def _fields(draws: Sequence[_Draw], image: Tensor) -> Tensor:
    """A smooth field for each channel, (B, C, *S), of cosines of at most one wave an axis; its largest value is 1."""
    shape = image.shape[2:]
    weights = np.stack([draw.field[:, : ORDERS ** len(shape)] for draw in draws])
    weights[..., 0] = 0  # a constant would be no field
    fields = torch.from_numpy(weights).float().to(image.device).view(*image.shape[:2], *[ORDERS] * len(shape))
    for count in shape:  # the first axis of cosines becomes the last axis of the image
        places = (torch.arange(count, device=image.device) + 0.5) * (math.pi / count)
        waves = torch.cos(torch.arange(ORDERS, device=image.device)[:, None] * places)
        fields = torch.tensordot(fields, waves, dims=([2], [0]))
    return fields / fields.abs().amax(tuple(range(2, image.ndim)), keepdim=True)


def _noise(draws: Sequence[_Draw], image: Tensor) -> Tensor:
    # A generator a case: what a case gets must not depend on its batch.
    drawn = []
    for draw, one in zip(draws, image, strict=True):
        generator = torch.Generator(image.device).manual_seed(draw.seed)
        drawn.append(torch.randn(one.shape, generator=generator, device=image.device))
    return torch.stack(drawn)
