"""What a test has left in a run's folder: the report tells these figures and no others."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from hrcam_lightning.callbacks.curves import PANELS, Curves, Point
from hrcam_lightning.callbacks.explainers import MODEL, Explainer, explainers_of
from hrcam_lightning.compare.scores import Run, entries_by_map, read_run
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import FLOORS, NAMES

if TYPE_CHECKING:
    from pathlib import Path

Entry = dict[str, Any]
"""A figure as ``metrics.json`` has it: value, low, high, n, and where it is undefined the reason."""
Row = dict[str, str]


@dataclass(frozen=True)
class ScoredMap:
    """A map of the table.

    Attributes:
        name: Of its row.
        explainer: What makes it; None for the model's own, and where nothing says how it was made.
        floor: Whether it has not seen the disease.
        thresholds: From which a lesion counts as found, one a class, NaN where there is none; None if not known.
    """

    name: str
    explainer: Explainer | None
    floor: bool
    thresholds: list[float] | None


@dataclass(frozen=True)
class Evaluation:
    """A tested run.

    Attributes:
        folder: The run's.
        config: What it was trained with.
        scores: Of each case.
        figures: Entries by map and figure; also of ``ceiling``, ``efficiency`` and differences as ``model-random``.
        curves: Of ``curves.csv``.
        cases: Rows of ``cases.csv``.
        lesions: Rows of ``lesions.csv``.
        maps: Of its table, the model's first.
    """

    folder: Path
    config: dict[str, Any]
    scores: Run
    figures: dict[str, dict[str, Entry]]
    curves: Curves
    cases: list[Row]
    lesions: list[Row]
    maps: tuple[ScoredMap, ...]

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none where there is a single one, which the files do not name."""
        return [name.removeprefix("label/") for name in self.cases[0] if name.startswith("label/")]

    @property
    def floors(self) -> list[str]:
        """Maps that have not seen the disease."""
        return [one.name for one in self.maps if one.floor]


def read_evaluation(folder: Path) -> Evaluation:
    """Read a tested run.

    Raises:
        InputError: If it was not tested, or a file of it is missing or damaged.
    """
    test = folder / "test"
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run: its config.yaml is missing")
    if not (test / "metrics.json").is_file():
        words = f"hrcam test -c {folder}/config.yaml --ckpt_path {folder}/best.ckpt"
        raise InputError(f"{folder} was never tested: run {words} first")
    scores = read_run(test)
    try:
        content = json.loads((test / "metrics.json").read_text(encoding="utf-8"))
        config = dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        return Evaluation(
            folder=folder,
            config=config,
            scores=scores,
            figures=entries_by_map(content, list(scores.scores)),
            curves=read_curves(test / "curves.csv"),
            cases=_rows(test / "cases.csv"),
            lesions=_rows(test / "lesions.csv"),
            maps=_maps(test / "maps.json", list(scores.scores), config),
        )
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{folder}: a file of the run is missing or damaged ({error}); test it again") from error


def read_curves(path: Path) -> Curves:
    """Points by panel and map; nothing if the test had no curve to draw."""
    curves: Curves = {}
    for row in _rows(path):
        if row["curve"] in PANELS:
            x, x_to, y, low, high = (float(row[name] or math.nan) for name in ("x", "x_to", "y", "low", "high"))
            point = Point(x, x_to, y, low, high, int(row["n"] or 0))
            curves.setdefault(row["curve"], {}).setdefault(row["map"], []).append(point)
    return curves


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _maps(path: Path, names: list[str], config: dict[str, Any]) -> tuple[ScoredMap, ...]:
    """From ``maps.json``; of a run that was tested before there was one by their names, without thresholds."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {one.name: one for one in explainers_of(config.get("explainers", []))} if not content else {}
    found = []
    for name in names:
        facts = dict(content.get(name, {}))
        limits = facts.pop("thresholds", {}).get("lesion")
        explainer = known.get(name)
        if name != MODEL and (facts or (explainer is None and name in NAMES)):
            settings = {key: value for key, value in facts.items() if key != "floor"}
            explainer = Explainer({"method": name, **settings, "name": name})
        floor = bool(facts.get("floor", name in FLOORS if explainer is None else explainer.floor))
        thresholds = None if limits is None else [math.nan if one is None else float(one) for one in limits]
        found.append(ScoredMap(name, explainer, floor, thresholds))
    return tuple(found)


def numbers(row: Row, name: str, endings: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A score of a case, one a class, NaN where it is empty or not there."""
    return np.array([float(row.get(f"{name}{ending}") or math.nan) for ending in endings])
