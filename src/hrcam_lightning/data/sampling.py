"""The order in which training cases are visited: it follows from the run's seed and the epoch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Sampling = Literal["natural", "balanced"]


class EpochSampler(Sampler[int]):
    """A permutation for each epoch that follows from the run's seed and the epoch alone.

    A resumed run goes on with the order that an uninterrupted one would have had.

    Args:
        count: Cases an epoch.
        epoch: Says which epoch it is.
        start: First case of an epoch; constant 0 for a fixed set.
    """

    def __init__(self, count: int, epoch: Callable[[], int], start: Callable[[int], int] = lambda _: 0) -> None:
        self.count, self.epoch, self.start = count, epoch, start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        order = generator_of(epoch).permutation(self.count)
        yield from (int(index) for index in self.start(epoch) + order)


class BalancedSampler(Sampler[int]):
    """As many cases an epoch as there are, each group equally often, in an order by the run's seed and the epoch.

    Groups differ by one case at most, where the cases cannot be divided. Within a group every case comes once before
    one comes again; of a large group an epoch sees a part, another each time.

    Args:
        groups: Group of each case.
        epoch: Says which epoch it is.
    """

    def __init__(self, groups: Sequence[int], epoch: Callable[[], int]) -> None:
        self.groups, self.epoch = np.asarray(groups), epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.epoch())
        names = generator.permutation(np.unique(self.groups))  # so that none is always the larger one
        drawn = []
        for place, name in enumerate(names):
            cases = np.flatnonzero(self.groups == name)
            wanted = len(self) // len(names) + (place < len(self) % len(names))
            rounds = [generator.permutation(cases) for _ in range(-(-wanted // len(cases)))]
            drawn.append(np.concatenate(rounds)[:wanted] if rounds else cases[:0])
        yield from (int(index) for index in generator.permutation(np.concatenate(drawn)))


def groups_of(labels: Sequence[int | Sequence[int]]) -> list[int]:
    """The group of each case, by which cases are balanced.

    A class number is its own group. Of several findings, the one that fewest cases have decides (the first of two as
    rare), and cases without any finding are a group: a rare finding is seen often even where it comes with others.
    """
    if isinstance(labels[0], int):
        return [int(label) for label in labels]  # type: ignore[arg-type]
    findings = np.asarray(labels)
    ranks = np.argsort(findings.sum(0), kind="stable")
    return [next((int(k) for k in ranks if row[k]), -1) for row in findings]


def generator_of(epoch: int) -> np.random.Generator:
    """Source of an epoch's order."""
    return np.random.default_rng([torch.initial_seed() % 2**63, epoch])
