"""The outputs of an evaluation: ``metrics.json``, ``cases.csv`` and a table on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.files import write_csv, write_json

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from hrcam_lightning.metrics import Estimate, ScoreTable

Results = dict[str, dict[str, "Estimate"]]
"""Estimates by explainer and metric; the model's own come first, under ``model``."""

DRIFT = "displacement_px"
MODEL_COLUMNS = ("label", "probability", "peak", "pointing", "pixel_ap")
OTHER_COLUMNS = ("pointing", "pixel_ap")


def write_metrics(path: Path, results: Results, stage: str) -> None:
    """Write estimates under flat names: ``test/pointing`` for the model, ``test/random/pointing`` for another."""
    flat = {
        f"{stage}/{metric}" if name == MODEL else f"{stage}/{name}/{metric}": estimate.to_dict()
        for name, estimates in results.items()
        for metric, estimate in estimates.items()
    }
    write_json(path, flat)


def write_cases(path: Path, tables: dict[str, ScoreTable], classes: list[str], names: dict[int, str]) -> None:
    """Write a row a case, sorted by name.

    The model's columns are plain (``pointing``), another explainer's start with its name (``random/pointing``), and
    where there are several classes all end with the class (``random/pointing/mass``). What is undefined is empty.

    Args:
        path: CSV file.
        tables: Scores by explainer.
        classes: Names of the K maps.
        names: Case by number.
    """
    rows: dict[int, dict[str, Any]] = {number: {"case": name} for number, name in names.items()}
    columns = ["case"]
    for explainer, table in tables.items():
        for score in MODEL_COLUMNS if explainer == MODEL else OTHER_COLUMNS:
            for k, class_name in enumerate(classes):
                parts = [explainer] * (explainer != MODEL) + [score] + [class_name] * (len(classes) > 1)
                columns.append("/".join(parts))
                for number, value in zip(table.case, getattr(table, score)[:, k], strict=True):
                    rows[int(number)][columns[-1]] = "" if math.isnan(value) else f"{value:.6g}"
    write_csv(path, sorted(rows.values(), key=lambda row: str(row["case"])), columns)


def print_table(results: Results, title: str, floors: Collection[str]) -> None:
    """Print explainers by metrics, each figure above its interval, and the reasons of what is undefined.

    Args:
        results: Estimates by explainer and metric.
        title: Above the table.
        floors: Explainers that have not seen the disease.
    """
    shown = {metric: estimate for metric, estimate in results[MODEL].items() if not metric.startswith(DRIFT)}
    table = Table(title=title, title_justify="left", caption="[95 % bootstrap interval over cases]")
    table.add_column("map")
    for metric, estimate in shown.items():
        # Broken by hand, lest a narrow terminal cut it short.
        header = metric.replace("/", "/\n") if len(metric) < 12 else metric.replace("/", "/\n").replace("_", "_\n")
        table.add_column(f"{header}\nn = {estimate.n}", justify="right", vertical="bottom")
    for name, estimates in results.items():
        label = f"{name}\n(floor)" if name in floors else name
        table.add_row(label, *(_cell(estimates.get(metric)) for metric in shown))
    console = Console()
    console.print(table)
    for metric, estimate in shown.items():
        if estimate.reason:
            console.print(f"{metric}: undefined, {estimate.reason}", highlight=False, markup=False)
    if not results[MODEL][DRIFT].reason:
        console.print(_drift(results[MODEL]), highlight=False, markup=False)


def _drift(estimates: dict[str, Estimate]) -> str:
    """One sentence: a mean displacement well away from 0 means that the map slides as a whole."""
    mean = ", ".join(f"{entry.value:+.1f}" for name, entry in estimates.items() if name.startswith(f"{DRIFT}/axis"))
    return f"From lesion to peak: ({mean}) pixels on average, spread {estimates[f'{DRIFT}/spread'].value:.1f}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.reason:
        return "undefined"
    return f"{estimate.value:.3f}\n[dim]\\[{estimate.low:.3f}, {estimate.high:.3f}][/dim]"
