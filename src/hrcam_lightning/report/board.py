"""The leaderboard of a comparison, as ``hrcam compare`` wrote it."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from hrcam_lightning.compare.table import COSTS, TRAININGS
from hrcam_lightning.errors import InputError
from hrcam_lightning.metrics import Estimate
from hrcam_lightning.report.page import Section
from hrcam_lightning.report.plots import difference_figure, plots_html, training_figure
from hrcam_lightning.report.tables import MAIN, Cell, folded, paragraph, table_html

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.report.evaluation import Row
    from hrcam_lightning.report.tables import Cells

LEADERBOARD = "leaderboard.csv"
BOARD = (
    "As hrcam compare wrote it: the mean over trainings with its 95 % interval over cases and trainings, or ± the"
    " standard deviation over trainings. Floors are maps that have not seen the disease."
)
DIFFERENCES = (
    "On the same cases and seeds, with 95 % intervals over cases and trainings; p, where there is one, by "
    "permutation over subjects, of these trainings, and not corrected for the number of rows."
)
EACH = ("auroc", "accuracy", "pointing", "pixel_ap")
"""Figures that are drawn of every training."""
EACH_NOTE = "A mean hides the training that failed. trainings.csv beside the leaderboard has all figures of each."
COST_NOTE = (
    "Minutes of training and test; map_over_backbone is the time of logits and maps over that of the backbone alone."
)


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); run hrcam compare again") from error


def reference_of(rows: Sequence[Row]) -> str:
    """The experiment that the others are compared with; empty where there is none.

    An earlier version did not write it: then it is the first that has no difference to itself.
    """
    if rows and "reference" in rows[0]:
        return rows[0]["reference"]
    names = [row["row"] for row in rows if row["kind"] == "model" and not any(differences_of(row).values())]
    return names[0] if names and any(differences_of(row) for row in rows) else ""


def differences_of(row: Row) -> dict[str, Estimate]:
    """Differences of a row to the reference, by metric."""
    found = {}
    for column, text in row.items():
        if column.endswith("_difference") and text:
            low, high, p = (_number(row.get(f"{column}_{end}", "")) for end in ("low", "high", "p"))
            found[column.removesuffix("_difference")] = Estimate(float(text), low, high, int(row["cases"]), p=p)
    return found


def board_sections(folder: Path, rows: Sequence[Row], reference: str) -> list[Section]:
    """The leaderboard, each training of several and, if there is a reference, the differences to it.

    Args:
        folder: Of the set.
        rows: Of its leaderboard.
        reference: The experiment that the others are compared with; empty if there is none.
    """
    missing = "".join(paragraph(f"{row['row']}: {row['reason']}") for row in rows if row.get("reason"))
    board = board_html(rows) + missing + paragraph(BOARD) + folded("All figures", whole_board_html(rows))
    sections = [Section("Leaderboard", board, "leaderboard")]
    path = folder / TRAININGS
    if each := _trainings_html(read_rows(path) if path.is_file() else []):  # an earlier version did not write it
        sections.append(Section("Trainings", each, "trainings"))
    if reference and any(differences_of(row) for row in rows):
        sections.append(Section("Differences", _differences_html(rows, reference), "differences"))
    return sections


def costs_section(folder: Path) -> Section:
    """What each job has taken."""
    rows = read_rows(folder / COSTS)
    cells: list[Cells] = [list(row.values()) for row in rows]
    return Section("Costs", table_html([*rows[0]] if rows else ["experiment"], cells) + paragraph(COST_NOTE), "costs")


def _trainings_html(rows: Sequence[Row]) -> str:
    """Figures of each training, where there are several."""
    trained = [row for row in rows if row["kind"] in ("model", "explainer")]
    if len({row["seed"] for row in trained}) < 2:
        return ""
    figures = {}
    for metric in EACH:
        values: dict[str, dict[str, float]] = {}
        for row in trained:
            if row.get(metric):
                values.setdefault(row["row"], {})[row["seed"]] = float(row[metric])
        if values:
            figures[f"plot-training-{metric}"] = training_figure(metric, values)
    return plots_html(figures) + paragraph(EACH_NOTE)


def _differences_html(rows: Sequence[Row], reference: str) -> str:
    by_row = {row["row"]: differences_of(row) for row in rows}
    figures = {}
    for metric in MAIN:
        own = {name: gaps[metric] for name, gaps in by_row.items() if metric in gaps}
        if own:
            figures[f"plot-difference-{metric.replace('/', '-')}"] = difference_figure(metric, reference, own)
    return paragraph(DIFFERENCES) + claims_html(rows, reference) + plots_html(figures)


def board_html(rows: Sequence[Row]) -> str:
    """Rows by the main metrics: the mean over trainings with its interval, or its spread."""
    shown = [metric for metric in MAIN if any(row.get(metric) for row in rows)]
    shares = [metric for metric in shown if any(row.get(f"efficiency/{metric}") for row in rows)]
    sized = any(row.get("parameters") for row in rows)
    header: Cells = ["map", "seeds", *shown, *(f"{metric}: share of ceiling" for metric in shares)]
    header += ["parameters"] * sized
    cells: list[Cells] = []
    for row in rows:
        label = _name(row)
        seeds = str(len(row["seeds"].split()) or "")
        efficiency = [_short(row.get(f"efficiency/{metric}", "")) for metric in shares]
        count = f"{int(row['parameters']):,}" if row.get("parameters") else ""
        cells.append([label, seeds, *(_figure(row, metric) for metric in shown), *efficiency, *[count] * sized])
    return table_html(header, cells)


def whole_board_html(rows: Sequence[Row]) -> str:
    """Every figure of every row, turned: a row a figure."""
    columns = [name for name in rows[0] if name not in ("row", "kind", "reference")]
    cells: list[Cells] = [[name, *(row[name] for row in rows)] for name in columns]
    return table_html(["figure", *(row["row"] for row in rows)], cells)


def claims_html(rows: Sequence[Row], reference: str) -> str:
    """Differences whose interval leaves out 0."""
    found: list[Cells] = [
        [_name(row), metric, "higher" if gap.value > 0 else "lower", _gap(gap), _chance(gap)]
        for row in rows
        for metric, gap in differences_of(row).items()
        if metric in MAIN and gap.low * gap.high > 0
    ]
    if not found:
        return ""
    caption = f"Differences to {reference} whose 95 % interval leaves out 0"
    return table_html(["map", "figure", f"than {reference}", "difference", "p"], found, caption)


def _name(row: Row) -> Cell:
    return Cell(row["row"], row["kind"] if row["kind"] in ("floor", "failed", "ceiling") else "")


def _figure(row: Row, metric: str) -> Cell:
    value, low, spread = (row.get(name, "") for name in (metric, f"{metric}_low", f"{metric}_sd"))
    if not value:
        return Cell("")
    if low:
        return Cell(_short(value), f"[{_short(low)}, {_short(row[f'{metric}_high'])}]")
    return Cell(_short(value), f"± {_short(spread)}" if spread else "")


def _gap(gap: Estimate) -> Cell:
    return Cell(f"{gap.value:+.3f}", f"[{gap.low:+.3f}, {gap.high:+.3f}]")


def _chance(gap: Estimate) -> str:
    return "" if math.isnan(gap.p) else f"{gap.p:.2g}"


def _short(text: str) -> str:
    return f"{float(text):.3f}" if text else ""


def _number(text: str) -> float:
    return float(text) if text else math.nan
