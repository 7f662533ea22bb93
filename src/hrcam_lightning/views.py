"""Views of an image that must give the same evidence: flips, 90° rotations and small shifts.

An image-level loss does not change when the whole map slides, so a network is free to report a lesion several pixels
beside it. A view tells: mirrored, a shift of +d becomes −d. Agreement between views pins the map to the image,
without a mask. Flips alone leave room for two peaks astride the lesion; shifts that are no multiple of the stride, and
rotations, close it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal

import torch

from hrcam_lightning.geometry import voxel_size

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from torch import Tensor

    from hrcam_lightning.geometry import Level
    from hrcam_lightning.model import LocalizationModel, LocalizationOutput
    from hrcam_lightning.windows import Windows

ViewKind = Literal["flip", "rotation", "shift"]


@dataclass(frozen=True)
class View:
    """A re-arrangement of pixels, the same for every image of a batch: shift, then rotate, then flip.

    Attributes:
        flips: Spatial axes to mirror.
        turns: Quarter turns in `plane`.
        plane: The two spatial axes that are turned.
        shifts: Circular shift in pixels, one an axis; empty for none.
    """

    flips: tuple[int, ...] = ()
    turns: int = 0
    plane: tuple[int, int] = (0, 1)
    shifts: tuple[int, ...] = ()

    def apply(self, x: Tensor) -> Tensor:
        """The view of x (B, C, *S)."""
        if any(self.shifts):
            x = x.roll(self.shifts, dims=_dims(range(len(self.shifts))))
        if self.turns:
            x = x.rot90(self.turns, dims=_dims(self.plane))
        return x.flip(_dims(self.flips)) if self.flips else x

    def invert(self, x: Tensor) -> Tensor:
        """Undo `apply`: ``view.invert(view.apply(x)) == x``."""
        if self.flips:
            x = x.flip(_dims(self.flips))
        if self.turns:
            x = x.rot90(-self.turns, dims=_dims(self.plane))
        if any(self.shifts):
            x = x.roll([-shift for shift in self.shifts], dims=_dims(range(len(self.shifts))))
        return x

    def inside(self, x: Tensor) -> Tensor:
        """The part of x (B, C, *S) whose neighbours the circular shift did not tear away: where views may be compared.

        What is shifted out of one side comes in at the other, where it has new neighbours, and leaves a new edge
        behind; evidence there may differ with right. As many pixels as were shifted, and one more for the
        neighbour across the tear, are left out at either end.
        """
        for axis, margin in enumerate(self.margins(x.shape[2:])):
            if margin:
                x = x.narrow(axis + 2, margin, x.shape[axis + 2] - 2 * margin)
        return x

    def margins(self, size: Sequence[int]) -> list[int]:
        """How many pixels `inside` leaves out at either end of each axis."""
        shifts = self.shifts or (0,) * len(size)
        return [min(abs(shift) + 1, (n - 1) // 2) if shift else 0 for shift, n in zip(shifts, size, strict=True)]


def _dims(axes: Collection[int]) -> list[int]:
    return [axis + 2 for axis in axes]


def flip_views(dims: int) -> list[View]:
    """All ``2^dims`` combinations of flips, the identity first."""
    return [
        View(flips=tuple(axis for axis, flip in enumerate(choice) if flip))
        for choice in product((False, True), repeat=dims)
    ]


def largest_shifts(level: Level) -> list[int]:
    """How far a view may shift, one number an axis: less than half the stride of a level, which is the deepest one."""
    return [int(stride // 2) - 1 if stride > 2 else 1 for stride in level.stride]


def spacing_of(affine: np.ndarray[Any, Any] | None, dims: int) -> list[float] | None:
    """Voxel size along each axis of an image, from its 4×4 affine; None if it has no place in space."""
    return None if affine is None else [float(step) for step in voxel_size(affine)[:dims]]


def draw_view(
    size: Sequence[int],
    kinds: Collection[ViewKind],
    max_shift: Sequence[int],
    generator: torch.Generator,
    spacing: Sequence[float] | None = None,
) -> View:
    """Draw one view at random, never the identity if anything else is allowed.

    Args:
        size: Image size ``S``.
        kinds: What may be used. A rotation needs two axes of equal length and spacing; where there are none it is
            left out.
        max_shift: Largest shift in pixels, one an axis.
        generator: Source of randomness.
        spacing: Voxel size along each axis; taken to be equal if not given.
    """
    step = [1.0] * len(size) if spacing is None else spacing
    planes = [
        (a, b)
        for a, b in combinations(range(len(size)), 2)
        if size[a] == size[b] and math.isclose(step[a], step[b], rel_tol=1e-3)
    ]
    limits = [min(limit, n - 1) if "shift" in kinds else 0 for limit, n in zip(max_shift, size, strict=True)]
    if not ("flip" in kinds or ("rotation" in kinds and planes) or any(limits)):
        return View()

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    while True:
        view = View(shifts=tuple(draw(-limit, limit) for limit in limits))
        if "flip" in kinds:
            view = replace(view, flips=tuple(axis for axis in range(len(size)) if draw(0, 1)))
        if "rotation" in kinds and planes:
            view = replace(view, turns=draw(0, 3), plane=planes[draw(0, len(planes) - 1)])
        if view.flips or view.turns or any(view.shifts):
            return view


def disagreement(maps: Tensor, others: Tensor) -> Tensor:
    """How far two maps of the same images differ in where the evidence is.

    Each map becomes a distribution over its pixels, ``q = softmax(map)``, and two of them are compared by one minus
    their Dice overlap, ``Σ(q − q')² / (Σq² + Σq'²)``. Only the high end of a map counts, as it does for the logit. A
    mean squared difference over the map's variance does not do: a network can make that small by agreeing on very
    negative values at the skull, while the peak still slides.

    Args:
        maps: (B, K, *S).
        others: (B, K, *S), of a view, brought back; of both the part that may be compared, see `View.inside`.

    Returns:
        Mean over cases and classes: 0 for equal maps, 1 for evidence in different places.
    """
    first, second = maps.flatten(2).softmax(-1), others.flatten(2).softmax(-1)
    difference = (first - second).square().sum(-1)
    return (difference / (first.square().sum(-1) + second.square().sum(-1))).mean()


def average_views(model: LocalizationModel | Windows, images: Tensor, views: Sequence[View]) -> LocalizationOutput:
    """Maps averaged over views, and the logits that the averaged maps pool to.

    Args:
        model: Applied once a view; a network, or one that looks through windows.
        images: (B, C, *S).
        views: The first one must be the identity: the level maps are its.
    """
    output: LocalizationOutput = model(images)
    maps = output.maps
    for view in views[1:]:
        maps = maps + view.invert(model(view.apply(images)).maps)
    maps = maps / len(views)
    return replace(output, maps=maps, logits=model.pooling(maps) + output.bias)
