"""How far the channels of a frozen network tell of a place elsewhere than there: one matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from hrcam_lightning.errors import InputError
from hrcam_lightning.views import View, ViewKind, draw_view, largest_shifts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hrcam_lightning.retrofit.features import Floats, Ints, Reading

Demand = Literal["patch", "quiet"] | ViewKind
Place = Sequence[int]
Look = tuple[Tensor, Tensor, Tensor]
"""A changed image (1, C, *S), pixels of the image (P, D), and where the changed image has them (P, D)."""
Draw = Callable[[Tensor, torch.Generator, Sequence[float] | None], Look | None]
SHARES = {"small": 0.5, "large": 0.5, "quiet": 0.3, "view": 1.0, "aimed": 0.25}
"""Weights of the parts of Q, each scaled to a mean diagonal of 1; found on phantoms."""

SHRINKAGE = 0.03
"""Weight of the identity that is added to them. Q is a mean over some thousand looks: in the directions in which it is
small by chance the weights would grow without being held (Ledoit & Wolf, 2004). Found on phantoms."""

BLOCK = 4096
"""Differences of which the outer products are summed at a time: C numbers each."""


@dataclass(frozen=True)
class Sampling:
    """What is demanded of a map, and at which cases and pixels that is looked at.

    * ``patch``: where an image does not change, its map does not. Another part of the same image is put in the place of
      a box, and pixels outside of the box are compared. Small boxes find evidence that lies a little beside what it
      tells of, large ones evidence that is spread; each are a part of Q, lest the large ones, which change more, rule.
    * ``quiet``: a case without a finding has a flat map. Where every case is of a class, those of the class ``normal``.
    * ``flip``, ``rotation``, ``shift`` (below half the deepest stride), together one view: the map moves with the
      image. Pixels are compared whose neighbours the shift did not tear away.

    The rule: a permutation of the training cases, drawn from the seed, says which `cases` of them take part. Each is
    given `draws` patches and views of its own, and for each of them `pixels` pixels, uniformly among those that may be
    compared; all from the seed and the case's number, so that neither the batch size nor the order matters.

    Attributes:
        kinds: What is demanded.
        cases: Training cases that take part. With half as many, and large patches alone, the map hung on which they
            were: on one base of the demo set seeds 0 to 3 led to a pixel AP of .75 to .89.
        draws: Small patches of each, as many large ones, and as many views.
        pixels: Pixels of each. Those of one look are much alike: on the demo set 8 lead to about the maps that 64 led
            to, while the outer products of a thousand channels cost an eighth; 6 pay for those of neighbours.
        seed: Of the draws.
        sides: Shortest and longest side of a patch, as shares of the image's side. Patches are small up to their
            geometric mean and large from there on, each uniform. What is to be found should be as small as the small
            ones or so: evidence that strays by less than a patch is seldom caught by it.
        aimed: Training cases with a finding at which patches are aimed, the first of that permutation and no more than
            `cases`; `draws` of each.

    Raises:
        InputError: If a number is not positive, sides are not in order or above one half, or nothing is demanded.
    """

    kinds: tuple[Demand, ...] = ("patch", "quiet", "flip", "rotation", "shift")
    cases: int = 2000
    draws: int = 2
    pixels: int = 6
    seed: int = 0
    sides: tuple[float, float] = (0.125, 0.5)
    aimed: int = 300

    def __post_init__(self) -> None:
        for name, value in {"view_cases": self.cases, "draws": self.draws, "pixels": self.pixels}.items():
            if value < 1:
                raise InputError(f"{name} is {value}, but must be at least 1; --equivariance 0 does without views")
        low, high = self.sides
        if not 0 < low <= high <= 0.5:
            raise InputError(
                f"patch_sides is [{low:g}, {high:g}]: give the shortest and the longest side of a patch as shares of "
                "the image's side, above 0 and up to 0.5, for another part of the image takes its place"
            )
        if self.aimed < 0:
            raise InputError(f"aimed_cases is {self.aimed}, but must not be negative; 0 aims no patch")
        if not self.kinds:
            raise InputError("views is empty: name views, or set --equivariance 0")

    def chosen(self, total: int) -> set[int]:
        """The numbers of the training cases that take part."""
        return set(self._order(total)[: self.cases])

    def aims(self, found: Sequence[bool]) -> list[int]:
        """The numbers of the training cases at which patches are aimed, given which cases have a finding."""
        order = self._order(len(found)) if "patch" in self.kinds else []
        return sorted([number for number in order if found[number]][: min(self.aimed, self.cases)])

    def _order(self, total: int) -> list[int]:
        return list(np.random.default_rng([self.seed, total]).permutation(total).tolist())


@dataclass
class Equivariance:
    """The matrix Q of a reading, summed up case by case, in parts.

    ``Q = mean of d dᵀ`` over cases and pixels, where ``d = A(x) − v⁻¹A(v x)`` (C,) at a pixel, ``A`` are the resampled
    channels and ``v`` is a patch or a view; for ``quiet``, ``d = A(x) − mean A`` in cases without a finding. The map
    ``wᵀA`` then strays by ``wᵀQw`` in the mean square, so that among the weights that classify alike a penalty
    ``λ/2 wᵀQw`` finds those whose maps tell of a place at that place. It is our own cure of HR-CAM's second stage.
    Views alone do not do: evidence that is spread over half the image, or stands beside the head, moves with the image
    as well. A patch shows how far it spreads.

    Attributes:
        reading: What is read.
        sampling: Where.
        seen: Which of the demands the cases could show.
    """

    reading: Reading
    sampling: Sampling
    seen: set[Demand] = field(default_factory=set)
    _waiting: dict[str, list[Tensor]] = field(default_factory=dict)
    _squares: dict[str, Tensor] = field(default_factory=dict)
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def matrices(self) -> dict[str, Floats]:
        """The parts of Q (C, C), in the units of the channels, of what was seen: the names of `SHARES`."""
        parts = {}
        for name in list(self._waiting):
            self._sum_up(name)
        for name, count in self._counts.items():
            mean = self._sums[name] / count if name == "quiet" else torch.zeros_like(self._sums[name])
            upper = (self._squares[name] / count - torch.outer(mean, mean)).triu()
            parts[name] = np.asarray((upper + upper.triu(1).T).numpy())
        return parts

    def update(
        self,
        images: Tensor,
        features: Sequence[Tensor],
        numbers: Sequence[int],
        normal: Sequence[bool],
        spacings: Sequence[Sequence[float] | None] | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            images: (B, C, *S).
            features: What the backbone made of them, (B, C_l, *S_l) for every level.
            numbers: The cases' numbers in the training set.
            normal: Which cases are without any finding.
            spacings: Of each case, the voxel size along each axis, which says about which axes it may be turned; taken
                to be equal if not given.
        """
        size, kinds = images.shape[2:], self.sampling.kinds
        patches = [("small", partial(self._patch, large=False)), ("large", partial(self._patch, large=True))]
        sorts = patches * ("patch" in kinds) + [("view", self._view)] * bool(_views(kinds))
        for name, draw in sorts:

            def look(row: int, generator: torch.Generator, draw: Draw = draw) -> Look | None:
                return draw(images[row : row + 1], generator, spacings[row] if spacings else None)

            self._compare(name, features, numbers, size, look)
        quiet = [row for row, flag in enumerate(normal) if flag and "quiet" in kinds]
        if quiet:
            places: list[Tensor] = []
            for row in quiet:
                generator = _generator(self.sampling.seed, numbers[row], "quiet")
                count = (self.sampling.draws * self.sampling.pixels,)
                places.append(torch.stack([torch.randint(n, count, generator=generator) for n in size], -1))
            self.seen.add("quiet")
            self._add("quiet", self._at(places, [feature[quiet] for feature in features], size))

    def aim(
        self, images: Tensor, features: Sequence[Tensor], numbers: Sequence[int], peaks: Sequence[Sequence[Place]]
    ) -> None:
        """Take in small patches where a first head finds something.

        Args:
            images: (B, C, *S).
            features: What the backbone made of them, (B, C_l, *S_l) for every level.
            numbers: The cases' numbers in the training set.
            peaks: Of each case the pixels on which maps of its findings are largest; each draw is for one of them.
        """

        def look(row: int, generator: torch.Generator) -> Look:
            number = int(torch.randint(len(peaks[row]), (), generator=generator))
            return self._patch(images[row : row + 1], generator, None, large=False, centre=peaks[row][number])

        self._compare("aimed", features, numbers, images.shape[2:], look)

    def _compare(
        self,
        name: str,
        features: Sequence[Tensor],
        numbers: Sequence[int],
        size: Sequence[int],
        look: Callable[[int, torch.Generator], Look | None],
    ) -> None:
        """Add the differences that so many looks at each row of a batch show."""
        rows, changed, here, there = [], [], [], []
        for row, number in enumerate(numbers):
            generator = _generator(self.sampling.seed, number, name)
            looks = [one for one in (look(row, generator) for _ in range(self.sampling.draws)) if one is not None]
            if not looks:
                continue
            rows.append(row)
            changed += [image for image, _, _ in looks]
            here.append(torch.cat([pixels for _, pixels, _ in looks]))
            there += [found for _, _, found in looks]
        if not rows:
            return
        # Both in the order of cases, then draws, then pixels.
        after = self._at(there, self.reading.features(torch.cat(changed)), size)
        self._add(name, self._at(here, [feature[rows] for feature in features], size) - after)

    def _at(self, pixels: Sequence[Tensor], features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Channels at pixels (P, D) of each image: (B · P, C)."""
        points = torch.stack(list(pixels)).to(features[0].device)
        return self.reading.at(points, features, size).transpose(1, 2).flatten(0, 1)

    def _add(self, name: str, gaps: Tensor) -> None:
        """Keep differences (M, C) until a block of them is worth an outer product."""
        waiting = self._waiting.setdefault(name, [])
        waiting.append(gaps)
        if sum(map(len, waiting)) >= BLOCK:
            self._sum_up(name)

    def _sum_up(self, name: str) -> None:
        """Add what waits: single precision within a block, double beyond."""
        gaps = torch.cat(self._waiting.pop(name))
        square, total = _gram(gaps), gaps.sum(0).cpu().double()
        if name in self._counts:
            square, total = square + self._squares[name], total + self._sums[name]
        self._squares[name], self._sums[name] = square, total
        self._counts[name] = self._counts.get(name, 0) + len(gaps)

    def _view(self, image: Tensor, generator: torch.Generator, spacing: Sequence[float] | None) -> Look | None:
        """A view (1, C, *S) of an image, pixels (P, D) of the image, and where the view has them (P, D).

        None if nothing that is demanded moves it, such as rotations alone of an image without two equal axes: what
        differs would be rounding.
        """
        size = image.shape[2:]
        limits = largest_shifts(self.reading.levels[max(self.reading.taps)])
        view = draw_view(size, _views(self.sampling.kinds), limits, generator, spacing)
        if view == View():
            return None
        shown: dict[Demand, bool] = {"flip": bool(view.flips), "rotation": bool(view.turns), "shift": any(view.shifts)}
        self.seen.update(kind for kind, there in shown.items() if there)
        pixels = torch.stack(
            [
                torch.randint(margin, n - margin, (self.sampling.pixels,), generator=generator)
                for margin, n in zip(view.margins(size), size, strict=True)
            ],
            -1,
        )
        return view.apply(image), pixels, _where(view, pixels, size)

    def _patch(
        self,
        image: Tensor,
        generator: torch.Generator,
        spacing: Sequence[float] | None,
        *,
        large: bool,
        centre: Place | None = None,
    ) -> Look:
        """An image (1, C, *S) with a box replaced, and pixels outside of it, twice (P, D)."""
        size = image.shape[2:]
        self.seen.add("patch")

        def draw(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        shortest, longest = self.sampling.sides
        middle = math.sqrt(shortest * longest)
        span = (middle, longest) if large else (shortest, middle)
        sides = [draw(*(max(1, int(n * share)) for share in span)) for n in size]
        if centre is None:
            starts = [draw(0, n - side) for n, side in zip(size, sides, strict=True)]
        else:
            corners = zip(centre, size, sides, strict=True)
            starts = [min(max(0, place - side // 2), n - side) for place, n, side in corners]
        spans = [slice(start, start + side) for start, side in zip(starts, sides, strict=True)]
        box = (slice(None), slice(None), *spans)
        moves = [draw(min(side, n - side), max(side, n - side)) for n, side in zip(size, sides, strict=True)]
        part = image
        for axis, (start, side, move, n) in enumerate(zip(starts, sides, moves, size, strict=True)):
            part = part.index_select(2 + axis, (torch.arange(start, start + side) - move).remainder(n).to(image.device))
        changed = image.clone()
        changed[box] = part
        # Uniform over the pixels outside: draw over the image, and keep those.
        low, high = torch.tensor(starts), torch.tensor(starts) + torch.tensor(sides)
        pixels = torch.empty(0, len(size), dtype=torch.int64)
        while len(pixels) < self.sampling.pixels:
            some = torch.stack([torch.randint(n, (2 * self.sampling.pixels,), generator=generator) for n in size], -1)
            inside = ((some >= low) & (some < high)).all(-1)
            pixels = torch.cat([pixels, some[~inside]])
        pixels = pixels[: self.sampling.pixels]
        return changed, pixels, pixels


def combine(matrices: Mapping[str, Floats], scale: Floats, owners: Ints | None = None) -> Floats:
    """One penalty (C, C) on the weights of standardised features.

    Each part is brought to the units of the standardised features, scaled to a mean diagonal of 1, so that λ means the
    same for every network, and weighted by `SHARES`; what comes of it is shrunk towards the identity.

    Args:
        matrices: The parts of Q.
        scale: (C,) by which features are divided; infinite for those that do not vary.
        owners: (C,) see `Reading.owners`: the mean is over channels themselves, whether neighbours are read or not.
    """
    varying = np.isfinite(scale)
    own = varying & (True if owners is None else owners == np.arange(len(scale)))
    total = np.zeros((len(scale), len(scale)))
    for name, matrix in matrices.items():
        standardised = matrix / np.outer(scale, scale)
        total += SHARES[name] * standardised / (standardised.diagonal()[own].sum() / max(own.sum(), 1) or 1.0)
    return total + SHRINKAGE * np.diag(varying) if total.any() else total


def _gram(rows: Tensor) -> Tensor:
    """``rowsᵀ rows`` (C, C) of rows (M, C), in double precision; what lies below the diagonal is not to be used."""
    if rows.device.type != "cpu":
        return (rows.T @ rows).cpu().double()
    return torch.from_numpy(ssyrk(1.0, rows.numpy().T)).double()  # two thirds of the time of the whole product


def _views(kinds: Sequence[Demand]) -> list[ViewKind]:
    return [kind for kind in kinds if kind != "patch" and kind != "quiet"]


def _generator(seed: int, number: int, name: str) -> torch.Generator:
    state = np.random.SeedSequence([seed, number, list(SHARES).index(name)]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def _where(view: View, pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Where in the view's own grid the pixels (P, D) of the image are found."""
    strides = torch.tensor([math.prod(size[axis + 1 :]) for axis in range(len(size))])
    grid = torch.arange(math.prod(size)).view(1, 1, *size)
    found = view.invert(grid).flatten()[(pixels * strides).sum(-1)]
    return torch.from_numpy(np.stack(np.unravel_index(found.numpy(), tuple(size)), -1))
