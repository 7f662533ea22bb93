"""The outputs of the faithfulness of maps: figures with intervals, a row a case, and the curves of the sanity check."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.files import replacing, write_csv, write_json
from hrcam_lightning.metrics.estimate import Estimate, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

Row = dict[str, Any]
"""What was found of a case, class and explainer; ``place`` is the case's among the positive ones."""

METRICS = {"insertion": "high", "deletion": "low", "drop": "low", "increase": "high", "road": "high"}
"""What is reported, and which way is good."""

KEYS = ("case", "class", "explainer")
SIMILARITIES = {"spearman": "rank correlation (Spearman)", "ssim": "structural similarity"}


def report(
    folder: Path | None,
    rows: Sequence[Row],
    explainers: Sequence[str],
    floors: Collection[str],
    settings: Mapping[str, Any],
) -> None:
    """Print a table; write ``faithfulness.json`` and ``faithfulness.csv`` if there is a folder.

    Args:
        folder: Of the stage.
        rows: A row a case, class and explainer.
        explainers: Names of the rows of the table.
        floors: Those that have not seen the disease.
        settings: What the figures depend on, written beside them.
    """
    results = {name: {metric: _estimate(rows, name, metric) for metric in METRICS} for name in explainers}
    if folder is not None:
        figures = {
            f"test/{metric}" if name == MODEL else f"test/{name}/{metric}": estimate.to_dict()
            for name, estimates in results.items()
            for metric, estimate in estimates.items()
        }
        write_json(folder / "faithfulness.json", {**figures, "settings": settings})
        write_csv(folder / "faithfulness.csv", _printable(rows, METRICS), [*KEYS, *METRICS])
    _print(results, floors, settings)


def _estimate(rows: Sequence[Row], explainer: str, metric: str) -> Estimate:
    """Mean over the classes of the cases, with cases as the unit of the interval; what is NaN is left out of n."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["explainer"] == explainer and not math.isnan(row[metric]):
            values.setdefault(row["place"], []).append(row[metric])
    cases = [values[place] for place in sorted(values)]
    reason = "no score is a number" if rows else "no positive case"
    return mean_estimate(
        np.array([sum(some) for some in cases]), np.array([float(len(some)) for some in cases]), reason
    )


def _printable(rows: Sequence[Row], figures: Collection[str]) -> list[Row]:
    """In the order of the cases; what is undefined is empty."""
    keep = sorted(rows, key=lambda row: row["place"])
    return [
        {
            **{name: value for name, value in row.items() if name != "place"},
            **{name: "" if math.isnan(row[name]) else f"{row[name]:.6g}" for name in figures},
        }
        for row in keep
    ]


def _print(results: dict[str, dict[str, Estimate]], floors: Collection[str], settings: Mapping[str, Any]) -> None:
    fill = settings["fill"]
    how = f"insertion and deletion in {settings['steps']} steps, {'blurred' if fill == 'blur' else f'{fill:g}'} beneath"
    table = Table(title="faithfulness", title_justify="left", caption=f"[95 % bootstrap interval over cases; {how}]")
    table.add_column("map")
    for metric, good in METRICS.items():
        table.add_column(f"{metric}\n({good} is good)\nn = {results[MODEL][metric].n}", justify="right")
    for name, estimates in results.items():
        label = f"{name}\n(floor)" if name in floors else name
        table.add_row(label, *(_cell(estimates[metric]) for metric in METRICS))
    console = Console()
    console.print(table)
    for reason in sorted({one.reason for estimates in results.values() for one in estimates.values() if one.reason}):
        console.print(f"undefined: {reason}", highlight=False, markup=False)


def _cell(estimate: Estimate) -> str:
    if estimate.reason:
        return "undefined"
    return f"{estimate.value:.3f}\n[dim]\\[{estimate.low:.3f}, {estimate.high:.3f}][/dim]"


def report_sanity(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``sanity.csv``, a row a case, class, explainer and stage, and ``sanity.png``, the means over them."""
    columns = [*KEYS, "stage", "layer", *SIMILARITIES]
    write_csv(folder / "sanity.csv", _printable(rows, SIMILARITIES), columns)
    with replacing(folder / "sanity.png") as part:
        draw_sanity(rows).savefig(part, dpi=100, metadata={"Software": None})


def draw_sanity(rows: Sequence[Row]) -> Figure:
    """Similarity to the original map against the layers that have lost their weights, a line an explainer."""
    layers = {row["stage"]: row["layer"] or "the network's own" for row in rows}
    figure = Figure(figsize=(max(7.0, 3.0 + 0.3 * len(layers)), 6.5), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    explainers = list(dict.fromkeys(row["explainer"] for row in rows))
    for axis, (name, label) in zip(axes, SIMILARITIES.items(), strict=True):
        for number, explainer in enumerate(explainers):
            means = [1.0]
            for stage in layers:
                here = [row[name] for row in rows if row["explainer"] == explainer and row["stage"] == stage]
                defined = [value for value in here if not math.isnan(value)]
                means.append(sum(defined) / len(defined) if defined else math.nan)
            flat = " (undefined where flat)" if any(map(math.isnan, means)) else ""
            # Floors stay at 1, one on the other: the first ones are the widest.
            width = 1.2 * (len(explainers) - number)
            axis.plot([0, *layers], means, marker=".", linewidth=width, label=f"{explainer}{flat}")
        axis.set_ylabel(label)
        axis.axhline(0, color="grey", linewidth=0.6)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[1].set_xticks([0, *layers], ["as trained", *layers.values()], rotation=90, fontsize=7)
    axes[1].set_xlabel("layers that have lost their weights, from the output backwards")
    return figure
