"""Which cases a map does best, middling and worst on, and these cases once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from hrcam_lightning.data.module import collate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hrcam_lightning.callbacks.truth import SeenCase
    from hrcam_lightning.data.contract import Batch
    from hrcam_lightning.data.module import Sample
    from hrcam_lightning.metrics import ScoreTable

EACH = 3


class Ranked(NamedTuple):
    """A case and class that is shown.

    Attributes:
        group: ``best``, ``median`` or ``worst``.
        case: Its name.
        place: Which of its split it is, in order.
        number: Which class.
        score: Its pixel AP.
    """

    group: str
    case: str
    place: int
    number: int
    score: float


class Cases(Protocol):
    """A data set whose cases can be asked for one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def extremes(table: ScoreTable, cases: Mapping[int, SeenCase]) -> list[Ranked]:
    """The cases of highest, median and lowest pixel AP, three of each, fewer where there are fewer than nine.

    Of equal ones the first by name, then by class, stands higher. Cases without a mask have no score.

    Args:
        table: Scores of the map.
        cases: By number.
    """
    scored = [
        (-float(table.pixel_ap[row, k]), cases[int(table.case[row])], int(k))
        for row, k in np.argwhere(np.isfinite(table.pixel_ap))
    ]
    order = sorted(scored, key=lambda one: (one[0], one[1].name, one[2]))
    each = min(EACH, max(1, len(order) // 3))
    middle = (len(order) - each) // 2
    groups = (("best", range(each)), ("median", range(middle, middle + each)),
              ("worst", range(len(order) - each, len(order))))  # fmt: skip
    chosen: dict[int, str] = {}
    for group, ranks in groups:
        for rank in ranks:
            if 0 <= rank < len(order):
                chosen.setdefault(rank, group)
    ranked = ((group, *order[rank]) for rank, group in sorted(chosen.items()))
    return [Ranked(group, case.name, case.place, k, -score) for group, score, case, k in ranked]


def fetch(dataset: Cases, ranked: Sequence[Ranked]) -> list[Batch]:
    """Each of these cases as a batch of one, read anew: no map is held while the others are scored."""
    return [collate([_sample(dataset, one)]) for one in ranked]


def _sample(dataset: Cases, one: Ranked) -> Sample:
    places = (one.place, *range(len(dataset)))  # elsewhere only if a loader has an order of its own
    samples = (dataset[place] for place in places if place < len(dataset))
    return next(sample for sample in samples if sample["case"] == one.case)
