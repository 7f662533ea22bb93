"""What a tested run left: its scores case by case, and its figures."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.errors import InputError
from hrcam_lightning.metrics.table import COMPARED, CUE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hrcam_lightning.metrics.estimate import Floats

STAGE = "test"


@dataclass(frozen=True)
class Run:
    """A tested run of n cases and K classes.

    Attributes:
        cases: Names of the cases.
        subjects: Whose they are; the case itself where the table does not say.
        label: (n, K) 0 or 1.
        probability: (n, K).
        scores: By explainer (``model`` is its own map) and score of a case, (n, K), NaN where undefined.
        figures: By explainer and figure, what is in ``metrics.json``; NaN where undefined.
        ceiling: Figures of the ideal observer.
        ceiling_kind: ``exact``, ``upper_bound`` or ``known_exactly``; empty without one.
        efficiency: Share of them that the model reaches.
    """

    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    label: Floats
    probability: Floats
    scores: dict[str, dict[str, Floats]]
    figures: dict[str, dict[str, float]]
    ceiling: dict[str, float]
    efficiency: dict[str, float]
    ceiling_kind: str = ""


def read_run(folder: Path) -> Run:
    """Read ``cases.csv`` and ``metrics.json`` of a test, a row at a time.

    Raises:
        InputError: If they are damaged.
    """
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise InputError(f"{folder}: its cases.csv or metrics.json is damaged ({error}); remove the run") from error


def _read(folder: Path) -> Run:
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        texts = [place for place, name in enumerate(header) if name in ("case", "subject")]
        numbers = [place for place in range(len(header)) if place not in texts]
        names: list[list[str]] = [[] for _ in texts]
        values: list[Floats] = []
        for row in rows:
            for kept, place in zip(names, texts, strict=True):
                kept.append(row[place])
            values.append(np.array([float(row[place]) if row[place] else math.nan for place in numbers]))
    table = np.array(values).reshape(len(values), len(numbers))
    by_name = {header[place]: table[:, column] for column, place in enumerate(numbers)}
    kinds = ["", *(name.removeprefix("label") for name in by_name if name.startswith("label/"))]
    endings = kinds[1:] or kinds  # "/mass", "/nodule"; a single class has no ending
    tail = f"/pointing{endings[0]}"
    explainers = [MODEL, *(name.removesuffix(tail) for name in by_name if name.endswith(tail) and name != tail)]

    def column(name: str) -> Floats:
        return np.stack([by_name[f"{name}{ending}"] for ending in endings], axis=1)

    prefixes = {one: "" if one == MODEL else f"{one}/" for one in explainers}
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    figures, ceiling, efficiency = _figures(content, explainers)
    case = tuple(names[0])
    return Run(
        cases=case,
        subjects=tuple(names[1]) if len(names) > 1 else case,
        label=column("label"),
        probability=column("probability"),
        scores={
            one: {
                name: column(f"{prefix}{name}") for name in (*COMPARED, CUE) if f"{prefix}{name}{endings[0]}" in by_name
            }
            for one, prefix in prefixes.items()
        },
        figures=figures,
        ceiling=ceiling,
        efficiency=efficiency,
        ceiling_kind=next((str(entry["kind"]) for entry in content.values() if "kind" in entry), ""),
    )


def entries_by_map(
    content: Mapping[str, Mapping[str, Any]], explainers: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The entries of a ``metrics.json``, flat names parted by whose they are.

    Args:
        content: Of the file.
        explainers: Maps of the table, the model's among them.

    Returns:
        Entries by figure, for each map, for ``ceiling`` and ``efficiency``, and for differences as ``model-random``.
    """
    homes: dict[str, dict[str, dict[str, Any]]] = {one: {} for one in explainers}
    homes |= {"ceiling": {}, "efficiency": {}, **{f"{MODEL}-{one}": {} for one in explainers}}
    for name, entry in content.items():
        rest = name.removeprefix(f"{STAGE}/")
        # Names of explainers may hold a dash or a stroke: the longest one that fits is meant.
        known = [one for one in homes if one != MODEL and rest.startswith(f"{one}/")]
        home = max(known, key=len, default=MODEL)
        homes[home][rest if home == MODEL else rest.removeprefix(f"{home}/")] = dict(entry)
    return homes


def _figures(
    content: Mapping[str, Mapping[str, Any]], explainers: Sequence[str]
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, float]]:
    """Values alone; differences between explainers are left out."""
    values = {
        home: {name: math.nan if entry["value"] is None else float(entry["value"]) for name, entry in entries.items()}
        for home, entries in entries_by_map(content, explainers).items()
    }
    return {one: values[one] for one in explainers}, values["ceiling"], values["efficiency"]
