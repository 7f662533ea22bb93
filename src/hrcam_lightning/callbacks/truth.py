"""What is known of the cases beyond their masks, in the order of their scores: lesions, and the ideal observer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from hrcam_lightning.metrics.efficiency import ObserverScores
from hrcam_lightning.metrics.partners import partners

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hrcam_lightning.data import Ceiling, KnownLesion
    from hrcam_lightning.data.known import KnownLesions
    from hrcam_lightning.metrics import ScoreTable
    from hrcam_lightning.metrics.estimate import Floats


class SeenCase(NamedTuple):
    """A case that was scored.

    Attributes:
        name: Its name.
        affine: Voxel to millimetres; None for a picture.
        place: Which of its split it is, in order.
        subject: Who was imaged; empty if that is not known.
    """

    name: str
    affine: np.ndarray[Any, np.dtype[np.float64]] | None
    place: int
    subject: str = ""


def match_lesions(
    table: ScoreTable, cases: Mapping[int, SeenCase], known: KnownLesions, classes: Sequence[str]
) -> list[KnownLesion | None]:
    """What is known of each lesion of a table; None where it has no partner, see `partners`.

    Centres are compared in millimetres where the image has an affine and the known lesion such a centre, and a partner
    is then no farther than the lesion's diameter; else in voxels, at any distance.

    Args:
        table: Scores of a map.
        cases: By number.
        known: By case.
        classes: Names of the K maps.
    """
    found: list[KnownLesion | None] = [None] * len(table.lesion_case)
    keys = np.stack([table.lesion_case, table.lesion_class])
    for number, k in np.unique(keys, axis=1).T:
        case = cases[int(number)]
        alone = len(classes) == 1
        own = [
            one for one in known.get(case.name, []) if one.class_name == classes[k] or (alone and not one.class_name)
        ]
        rows = np.flatnonzero((keys == [[number], [k]]).all(0))
        for row, partner in zip(rows, _partners(table.lesion_centre[rows], own, case), strict=True):
            found[row] = own[partner] if partner >= 0 else None
    return found


def _partners(centres: Floats, known: Sequence[KnownLesion], case: SeenCase) -> Sequence[int]:
    in_mm = case.affine is not None and all(one.centre_mm is not None for one in known)
    places = [one.centre_mm if in_mm else one.centre_voxel for one in known]
    axes = min((len(place) for place in places if place is not None), default=0)
    if not axes or any(place is None for place in places):
        return [-1] * len(centres)
    middles = np.array([place[:axes] for place in places if place is not None])
    if in_mm and case.affine is not None:
        voxels = np.pad(centres, ((0, 0), (0, 3 - centres.shape[1])))
        centres = (voxels @ case.affine[:3, :3].T + case.affine[:3, 3])[:, :axes]
    reach = np.array([one.size_mm if in_mm else math.nan for one in known])
    return [int(number) for number in partners(centres[:, :axes], middles, reach)]


def observer_scores(
    table: ScoreTable, cases: Mapping[int, SeenCase], ceiling: Ceiling | None, classes: Sequence[str]
) -> ObserverScores | None:
    """The ideal observer's readings of the cases of a table; None, with a warning, if it has not read all of them."""
    if ceiling is None:
        return None
    read = [k for k, name in enumerate(classes) if any(name == key[1] for key in ceiling.readings)]
    scores = np.full((3, len(table.case), len(classes)), math.nan)
    for row, number in enumerate(table.case):
        for k in read:
            reading = ceiling.readings.get((cases[int(number)].name, classes[k]))
            if reading is None:
                rank_zero_warn("the ideal observer has not read every case that is scored: no ceiling is shown")
                return None
            scores[:, row, k] = reading
    return ObserverScores(*scores) if read else None
