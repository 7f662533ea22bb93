"""Where the cells of a network's levels look, measured and not assumed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hrcam_lightning.backbones.averages import Averages
from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

_LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)  # along the measured axis, until the answer stands still
_BREADTHS = (4, 8, 16, 32, 64, 128, 256)  # along the others: the first that the network takes
_TOLERANCE = 1e-3  # pixels

_Line = tuple[float, float]  # stride, offset


def measure_levels(network: nn.Module, channels: int, dims: int, names: Sequence[str]) -> tuple[Level, ...]:
    """Channels, stride and offset of each level that a network returns.

    The network is run on a ramp of pixel numbers with all of its operations replaced by averages, see `Averages`. Each
    cell then holds the centroid of its receptive field. Cells in the middle of an image give the stride and the offset
    of an axis; the image is doubled until they stand still, so that its borders play no part.

    Stated limits: a gate that differs from place to place is taken to look at the mean of where its two factors look;
    padding that depends on the image's size ("same" padding of TensorFlow's kind) is measured on sizes of powers of 2.

    Args:
        network: Returns a list of features (B, C_l, *S_l) for images (B, C, *S).
        channels: Number of image channels C.
        dims: Number of spatial axes.
        names: What to call the levels in messages.

    Returns:
        The levels, in the order in which the network returns them.

    Raises:
        InputError: If a level is not on a regular grid of its own, or if the network cannot be followed.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(network):
        axes = []
        for axis in range(dims):
            counts, lines = _measure_axis(network, channels, dims, axis, names, device)
            axes.append(lines)
    return tuple(
        Level(count, tuple(stride for stride, _ in lines), tuple(offset for _, offset in lines))
        for count, *lines in zip(counts, *axes, strict=True)
    )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; give each of its modules its own mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _measure_axis(
    network: nn.Module, channels: int, dims: int, axis: int, names: Sequence[str], device: torch.device
) -> tuple[list[int], list[_Line]]:
    before: list[_Line | None] = [None] * len(names)
    for length in _LENGTHS:
        features = _averages(network, channels, dims, axis, length, device)
        now = [_line(_centroids(f, dims, axis, length, name)) for f, name in zip(features, names, strict=True)]
        if all(_same(a, b) for a, b in zip(before, now, strict=True)):
            return [f.shape[1] for f in features], [(_rounded(s), _rounded(o)) for s, o in filter(None, now)]
        before, previous = now, before
    moved = next(name for name, a, b in zip(names, previous, before, strict=True) if not _same(a, b))
    raise InputError(
        f"the cells of {moved} do not lie on a regular grid of the image's axis {axis}: "
        "choose a layer of convolutions and poolings"
    )


def _averages(
    network: nn.Module, channels: int, dims: int, axis: int, length: int, device: torch.device
) -> Sequence[Tensor]:
    """What the network makes of ones, a ramp and the reversed ramp."""
    ramp = torch.arange(length, dtype=torch.float64, device=device)
    profiles = torch.stack([torch.ones_like(ramp), ramp, ramp.flip(0)])
    for breadth in _BREADTHS:
        size = [breadth] * dims
        size[axis] = length
        shape = [3, 1, *(length if other == axis else 1 for other in range(dims))]
        images = profiles.view(shape).expand(3, channels, *size).clone()
        try:
            features: list[Tensor] = network(images.as_subclass(Averages))
        except InputError:
            raise
        except Exception as error:
            # A kernel may be larger than what is left of this image; anything else stays so in larger ones.
            if breadth == _BREADTHS[-1]:
                raise InputError(
                    f"the network cannot be run on {dims}D images of {channels} channels and any size: "
                    f"{' '.join(str(error).split())[:300] or type(error).__name__}"
                ) from error
        else:
            if all(feature.as_subclass(Tensor)[0].any() for feature in features):  # more than padding is left
                break
    return features


def _centroids(feature: Tensor, dims: int, axis: int, length: int, name: str) -> Tensor:
    """The pixel number around which each cell along the axis looks, (cells,)."""
    if feature.ndim != dims + 2:
        raise InputError(
            f"{name} returns features of shape {tuple(feature.shape)}, but a level of a {dims}D image has the axes "
            "(batch, channel, cells...)"
        )
    if not isinstance(feature, Averages):
        raise InputError(f"{name} has lost sight of places: it comes after a global or an adaptive pooling")
    mass: Tensor
    moment: Tensor
    mass, moment, reverse = feature.as_subclass(Tensor).transpose(1, 2 + axis).flatten(2).sum(2)
    if not torch.allclose(moment + reverse, (length - 1) * mass, rtol=1e-6, atol=1e-9 * length):
        raise InputError(f"the geometry of {name} cannot be measured: its operations are no averages of places")
    return moment / mass


def _line(centroids: Tensor) -> _Line | None:
    """Stride and offset of the cells in the middle of an axis; None if there are too few, or they lie on no line."""
    count = len(centroids)
    first, last = count * 3 // 8, count - 1 - count * 3 // 8
    if last - first < 2:
        return None
    middle = centroids[first : last + 1]
    stride = float(middle[-1] - middle[0]) / (last - first)
    line = middle[0] + stride * torch.arange(len(middle), device=middle.device)
    if not stride > _TOLERANCE or not bool(((middle - line).abs() < _TOLERANCE).all()):
        return None
    return stride, float(middle[0]) - stride * first


def _same(one: _Line | None, other: _Line | None) -> bool:
    if one is None or other is None:
        return False
    return all(abs(a - b) < _TOLERANCE for a, b in zip(one, other, strict=True))


def _rounded(value: float) -> float:
    return round(value, 3) + 0.0  # no negative zero
