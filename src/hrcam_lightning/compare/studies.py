"""What ``hrcam filtered-retrain`` leaves, as rows of a leaderboard: one for each kind of image."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import yaml

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.compare.resampling import ACCURACY, AUROC
from hrcam_lightning.compare.scores import Run
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

ORIGINAL = "original"
"""The kind that every study has."""


def read_study(folder: Path, name: str) -> dict[str, Run]:
    """Read ``cases.csv`` and ``metrics.json`` of a study of one seed.

    Args:
        folder: Where they are.
        name: Of the experiment.

    Returns:
        A run for each row, ``name/kind``, the originals first.

    Raises:
        InputError: If they are damaged.
    """
    try:
        with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        areas = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["auroc"]
        label = np.array([[float(row["label"])] for row in rows])
        cases, subjects = (tuple(row[column] for row in rows) for column in ("case", "subject"))
        found = {}
        for column in (column for column in rows[0] if "/" in column):
            kind = column.partition("/")[0]
            logits = np.array([[float(row[column])] for row in rows])
            right = ((logits > 0) == (label == 1)).astype(np.float64)
            found[f"{name}/{kind}"] = Run(
                cases=cases,
                subjects=subjects,
                label=label,
                probability=logits,  # ranks cases alike, and cases of which a network is sure do not tie
                scores={MODEL: {ACCURACY: right}},
                figures={MODEL: {AUROC: float(areas[kind]["value"])}},
                ceiling={},
                efficiency={},
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise InputError(f"{folder}: its cases.csv or metrics.json is damaged ({error}); remove the run") from error
    return found


def trainings_of(folder: Path) -> list[Path]:
    """Maps and logits that the finished trainings of a study have left in the folder of its job."""
    return list(folder.glob("filtered_retrain/*/[!.]*.npy"))


def check_reference(reference: str, name: str, resolved: str) -> None:
    """Make sure that a study has the row that all are compared with.

    Args:
        reference: That row.
        name: Of the experiment.
        resolved: Its configuration, as YAML.

    Raises:
        InputError: If the row is to be one of this study's, and it leaves none of this name.
    """
    rows = [f"{name}/{kind}" for kind in dict.fromkeys((ORIGINAL, *yaml.safe_load(resolved)["kinds"]))]
    if reference.partition("/")[0] == name and reference not in rows:
        raise InputError(f"reference is '{reference}', but the rows of this study are {', '.join(rows)}")
