"""Helpers: the files that a test leaves, written by hand."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hrcam_lightning.compare.scores import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_checkpoint(path: Path) -> Path:
    """As much of one as a comparison looks at before it goes on with a training."""
    content = {"state_dict": {}, "pytorch-lightning_version": "2.6.6", "hyper_parameters": {"classes": ["lesion"]}}
    torch.save(content, path)
    return path


def write_run(
    folder: Path, columns: Mapping[str, Sequence[Any]], figures: Mapping[str, float | None] | None = None
) -> None:
    folder.mkdir(parents=True)
    with (folder / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    content = {f"test/{name}": {"value": value, "n": 1} for name, value in (figures or {"auroc": 0.5}).items()}
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")


def run_of(
    label: Sequence[int],
    probability: Sequence[float],
    subjects: Sequence[str] | None = None,
    explainers: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    figures: Mapping[str, float] | None = None,
) -> Run:
    """A run of one class; `explainers` by name and score."""
    names = tuple(f"case_{number}" for number in range(len(label)))
    scores = {
        name: {metric: np.array(values, float)[:, None] for metric, values in of.items()}
        for name, of in (explainers or {"model": {"pixel_ap": [math.nan] * len(label)}}).items()
    }
    return Run(
        names,
        tuple(subjects or names),
        np.array(label, float)[:, None],
        np.array(probability, float)[:, None],
        scores,
        {name: dict(figures or {"auroc": 0.5}) if name == "model" else {} for name in scores},
        {},
        {},
    )
