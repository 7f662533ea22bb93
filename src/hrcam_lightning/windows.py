"""Maps of large images, a window at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch

from hrcam_lightning.errors import InputError
from hrcam_lightning.model import LocalizationModel, LocalizationOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.pooling import Pooling

FALL = 8  # a window's side over the deviation of its weights: exp(-8) at its border, as in MONAI and nnU-Net


@dataclass(frozen=True)
class Windows:
    """A network that looks at an image through overlapping windows, and blends what it sees in each.

    MONAI's inferer would lay the last window so that it ends with the image, off the network's strides, where the
    cells of the deeper levels look at other places than in the whole image; here each window begins on a whole stride,
    and the last is a little smaller. Windows weigh little towards their borders. The logits are those that the blended
    map pools to. The network holds one window at a time; what it is trained on is not changed by it.

    Attributes:
        network: The network.
        size: Pixels of a window, one an axis; an axis that is not longer is seen whole.
        overlap: Share by which neighbours overlap, at least.

    Raises:
        InputError: If the windows do not suit the network.
    """

    network: LocalizationModel
    size: tuple[int, ...]
    overlap: float = 0.5

    def __post_init__(self) -> None:
        dims, strides = self.network.backbone.dims, self._strides
        if len(self.size) != dims:
            raise InputError(f"model.window is {list(self.size)}, but the images have {dims} axes")
        if not 0 <= self.overlap < 1:
            raise InputError(f"model.window_overlap is {self.overlap}, but is a share, 0 to below 1")
        if any(size % stride or size < 2 * stride for size, stride in zip(self.size, strides, strict=True)):
            raise InputError(
                f"model.window is {list(self.size)}, but must be a multiple of the network's deepest stride, "
                f"{' x '.join(map(str, strides))}, and twice that at least"
            )
        most = min(1 - stride / size for size, stride in zip(self.size, strides, strict=True))
        if self.overlap > most:
            raise InputError(
                f"model.window_overlap is {self.overlap}, but windows of {list(self.size)} that begin on the network's "
                f"strides, {' x '.join(map(str, strides))}, overlap by {math.floor(most * 1000) / 1000} at most: "
                "lower it, or make the window larger"
            )

    @property
    def pooling(self) -> Pooling:
        """The network's."""
        return self.network.pooling

    def __call__(self, images: Tensor) -> LocalizationOutput:
        """Logits and maps of images (B, C, *S), as the network itself would give them but for the windows' borders.

        Raises:
            InputError: If the cells of the network's levels do not lie on whole strides of a window.
        """
        size = images.shape[2:]
        spans = [self._spans(axis, length) for axis, length in enumerate(size)]
        if all(len(some) == 1 for some in spans):
            whole: LocalizationOutput = self.network(images)
            return whole
        outputs = [torch.cat(some) for some in zip(*(self._blend(image[None], spans) for image in images), strict=True)]
        bias = self.network.decoder.bias.float()
        outside = bias if self.pooling.additive else torch.zeros_like(bias)
        return LocalizationOutput(self.pooling(outputs[0]) + outside, outputs[0], tuple(outputs[1:]), outside)

    def _spans(self, axis: int, length: int) -> list[slice]:
        side, stride = self.size[axis], self._strides[axis]
        last = stride * max(0, math.ceil((length - side) / stride))
        step = max(stride, int(side * (1 - self.overlap)) // stride * stride)
        gaps = math.ceil(last / step)  # evenly spread, on whole strides
        starts = [stride * round(last / stride * number / gaps) for number in range(gaps)] + [last]
        return [slice(start, min(start + side, length)) for start in starts]

    def _blend(self, image: Tensor, spans: Sequence[Sequence[slice]]) -> list[Tensor]:
        """Maps and level maps of one image (1, C, *S)."""
        size = image.shape[2:]
        steps = [(1.0,) * len(size), *(level.stride for level in self.network.decoder.levels)]
        sums: list[Tensor] = []
        weights: list[Tensor] = []
        for places in product(*spans):
            output: LocalizationOutput = self.network(image[(slice(None), slice(None), *places)])
            for number, seen in enumerate((output.maps, *output.level_maps)):
                step = steps[number]
                box = [
                    slice(round(span.start / by), math.ceil(span.stop / by))
                    for span, by in zip(places, step, strict=True)
                ]
                if tuple(seen.shape[2:]) != tuple(some.stop - some.start for some in box):
                    raise InputError(
                        f"level {number - 1} of the network has {tuple(seen.shape[2:])} cells for a window of "
                        f"{tuple(span.stop - span.start for span in places)}, not one for each stride: "
                        "it cannot look through windows, leave --model.window out"
                    )
                if len(sums) <= number:
                    cells = [math.ceil(length / by) for length, by in zip(size, step, strict=True)]
                    sums.append(seen.new_zeros(1, seen.shape[1], *cells, dtype=torch.float32))
                    weights.append(seen.new_zeros(*cells, dtype=torch.float32))
                weight = _bell(box, weights[number].shape, seen.device)
                sums[number][(slice(None), slice(None), *box)] += weight * seen
                weights[number][tuple(box)] += weight
        return [total / weight for total, weight in zip(sums, weights, strict=True)]

    @property
    def _strides(self) -> tuple[int, ...]:
        return tuple(math.ceil(stride) for stride in self.network.backbone.levels[-1].stride)


def _bell(box: Sequence[slice], size: Sequence[int], device: torch.device) -> Tensor:
    """Weights of a window's cells (*S): a Gaussian that does not fall towards the border of the image itself.

    In float32 far from underflow: exp(-24) in the corner of three axes.
    """
    weight = torch.ones((), device=device)
    for axis, (span, length) in enumerate(zip(box, size, strict=True)):
        side = span.stop - span.start
        place = (torch.arange(side, device=device) - (side - 1) / 2) * FALL / side
        low, high = (0.0 if span.start == 0 else None), (0.0 if span.stop == length else None)
        if low is not None or high is not None:
            place = place.clamp(low, high)
        weight = weight * torch.exp(-place.square() / 2).view(-1, *(1,) * (len(size) - axis - 1))
    return weight
