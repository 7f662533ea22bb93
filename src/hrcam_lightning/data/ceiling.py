"""What the ideal observer made of a set: the files that ``hrcam-synth observer --write`` leaves in it."""

from __future__ import annotations

import csv
import json
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

INDEX, READINGS, SET = "ceiling.json", "ceiling.csv", "dataset.json"


class Reading(NamedTuple):
    """What the observer made of a case and a class; NaN where a reader who is told places has no such thing.

    Attributes:
        rating: Log odds of the class.
        located: Log odds that the lesion covers the voxel it points at.
        hit: 1 where that voxel is in the lesion's mask.
    """

    rating: float
    located: float
    hit: float


@dataclass(frozen=True)
class Ceiling:
    """The ideal observer's readings.

    Attributes:
        kind: ``exact``, ``upper_bound`` or ``known_exactly``.
        readings: By case and class.
    """

    kind: str
    readings: dict[tuple[str, str], Reading]


def read_ceiling(folder: Path, split: str) -> Ceiling | None:
    """Read the ceiling that a set carries; None if it carries none for that split.

    A ceiling of another set, by the hash in ``dataset.json``, is left out with a warning.

    Args:
        folder: The set.
        split: Which cases are scored.

    Raises:
        InputError: If a file is damaged.
    """
    if not (folder / INDEX).is_file():
        return None
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["split"] != split:
            return None
        info = json.loads((folder / SET).read_text(encoding="utf-8")) if (folder / SET).is_file() else {}
        if index["hash"] != info.get("hash"):
            advice = "run hrcam-synth observer --write again"
            warnings.warn(f"{folder / INDEX} is left out: it is of another set; {advice}", stacklevel=2)
            return None
        with (folder / READINGS).open(encoding="utf-8", newline="") as file:
            readings = {(row["case"], row["class"]): _reading(row) for row in csv.DictReader(file)}
        return Ceiling(str(index["kind"]), readings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        again = "write it anew with hrcam-synth observer --write, or remove it"
        raise InputError(f"{folder / INDEX} or {READINGS}: damaged ({error}); {again}") from error


def _reading(row: dict[str, str]) -> Reading:
    return Reading(*(float(row[name]) if row[name] else math.nan for name in Reading._fields))
