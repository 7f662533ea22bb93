"""The outputs of an evaluation: ``metrics.json``, ``maps.json``, ``cases.csv``, ``lesions.csv``, a terminal's table."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.files import write_csv, write_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from hrcam_lightning.callbacks.explainers import Explainer
    from hrcam_lightning.data import KnownLesion
    from hrcam_lightning.metrics import Estimate, ScoreTable

Results = dict[str, dict[str, "Estimate"]]
"""Estimates by explainer and metric; the model's own come first, under ``model``."""

DRIFT = "displacement_px"
ONCE = ("label", "probability", "peak")
"""Columns of the model alone: what is known of a case, the network's say, and the highest value of its own map."""
KNOWN_COLUMNS = ("size_mm", "volume_mm3", "contrast", "cnr", "dprime")
KINDS = {"exact": "exact", "upper_bound": "upper\nbound", "known_exactly": "told\nplaces"}
SHOWN = ("auroc", "accuracy", "pointing", "pixel_ap", "normal/false_activation")
"""What a terminal of 80 columns has room for; all else is in ``metrics.json``."""


class Ceilings(NamedTuple):
    """The ideal observer on the cases at hand.

    Attributes:
        kind: ``exact``, ``upper_bound`` or ``known_exactly``.
        scores: Its own.
        efficiency: Share of them that the model's map reaches.
    """

    kind: str
    scores: dict[str, Estimate]
    efficiency: dict[str, Estimate]


def write_metrics(
    path: Path, results: Results, stage: str, differences: Results | None = None, ceiling: Ceilings | None = None
) -> dict[str, dict[str, Any]]:
    """Write estimates under flat names, and return what was written.

    ``test/pointing`` is the model's, ``test/random/pointing`` another's, ``test/model-random/pointing`` how much higher
    the model's is, case by case; ``test/ceiling/pointing`` the ideal observer's, with its kind, and
    ``test/efficiency/pointing`` the model's over it.
    """
    flat: dict[str, dict[str, Any]] = {
        f"{stage}/{metric}" if name == MODEL else f"{stage}/{name}/{metric}": estimate.to_dict()
        for name, estimates in (
            results | {f"{MODEL}-{name}": gaps for name, gaps in (differences or {}).items()}
        ).items()
        for metric, estimate in estimates.items()
    }
    if ceiling is not None:
        for metric, estimate in ceiling.scores.items():
            flat[f"{stage}/ceiling/{metric}"] = {**estimate.to_dict(), "kind": ceiling.kind}
        for metric, estimate in ceiling.efficiency.items():
            flat[f"{stage}/efficiency/{metric}"] = estimate.to_dict()
    write_json(path, flat)
    return flat


def write_maps(
    path: Path, explainers: Sequence[Explainer], thresholds: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Write how each map of the table is made, and the thresholds that it was scored with; null where there is none.

    Args:
        path: JSON file.
        explainers: What stands beside the model.
        thresholds: By name of the map: ``lesion`` and so on, see `localization.Points`.
    """
    made: dict[str, dict[str, Any]] = {MODEL: {"method": MODEL, "floor": False}}
    for one in explainers:
        method, settings = json.loads(one.key)  # what is no plain data, from Python, is a text there
        made[one.name] = {"method": method, **settings, "floor": one.floor}
    known = {
        name: {kind: [None if math.isnan(one) else one for one in values] for kind, values in of.items()}
        for name, of in thresholds.items()
    }
    write_json(path, {name: {**facts, "thresholds": known.get(name, {})} for name, facts in made.items()})


def write_cases(
    path: Path,
    tables: Mapping[str, ScoreTable],
    classes: Sequence[str],
    names: Mapping[int, str],
    called: np.ndarray[Any, np.dtype[np.float64]],
    subjects: Mapping[int, str],
) -> None:
    """Write a row a case, sorted by name, with whose it is where that is not the case itself.

    The model's columns are plain (``pointing``), another explainer's start with its name (``random/pointing``), and
    where there are several classes all end with the class (``random/pointing/mass``). What is undefined is empty.

    Args:
        path: CSV file.
        tables: Scores by explainer.
        classes: Names of the K maps.
        names: Case by number.
        called: (n, K) of `predicted_classes`: the column ``predicted``.
        subjects: Subject by number of the case, empty if not known.
    """
    rows: dict[int, dict[str, Any]] = {number: {"case": name} for number, name in names.items()}
    columns = ["case"]
    if any(subject and subject != names[number] for number, subject in subjects.items()):
        columns.append("subject")
        for number, row in rows.items():
            row["subject"] = subjects[number] or names[number]
    for k, class_name in enumerate(classes):
        columns.append("/".join(["predicted"] + [class_name] * (len(classes) > 1)))
        for number, value in zip(tables[MODEL].case, called[:, k], strict=True):
            rows[int(number)][columns[-1]] = _plain(value)
    for explainer, table in tables.items():
        scores = {name: getattr(table, name) for name in ONCE} if explainer == MODEL else {}
        scores |= {**table.compared(), "peak_distance": table.peak_distance}
        for score, values in scores.items():
            for k, class_name in enumerate(classes):
                parts = [explainer] * (explainer != MODEL) + [score] + [class_name] * (len(classes) > 1)
                columns.append("/".join(parts))
                for number, value in zip(table.case, values[:, k], strict=True):
                    rows[int(number)][columns[-1]] = _plain(value)
    write_csv(path, sorted(rows.values(), key=lambda row: str(row["case"])), columns)


def write_lesions(
    path: Path,
    tables: Mapping[str, ScoreTable],
    classes: Sequence[str],
    names: Mapping[int, str],
    thresholds: Mapping[str, Sequence[float]],
    known: Sequence[KnownLesion | None],
) -> None:
    """Write a row a lesion, by case, class and number: size, centre of mass in voxels, peak of each map, found or not.

    What is known of it beyond its mask stands in ``family``, ``size_mm`` (diameter), ``volume_mm3``, ``contrast``,
    ``cnr`` and ``dprime``, columns that are there if anything is.

    Args:
        path: CSV file.
        tables: Scores by explainer.
        classes: Names of the K maps.
        names: Case by number.
        thresholds: By explainer, of each class; a lesion is found if its peak reaches it.
        known: What is known of each lesion of the tables.
    """
    table = tables[MODEL]
    axes = [f"centre_{'ijk'[axis]}" for axis in range(table.lesion_centre.shape[1])]
    extra = ["family", *KNOWN_COLUMNS] if any(known) else []
    columns = ["case", "class", "lesion", "voxels", *axes, *extra]
    rows: list[dict[str, Any]] = [
        {
            "case": names[int(table.lesion_case[row])],
            "class": classes[int(table.lesion_class[row])],
            "lesion": int(table.lesion_number[row]),
            "voxels": int(table.lesion_voxels[row]),
            **dict(zip(axes, map(_plain, table.lesion_centre[row]), strict=True)),
        }
        for row in range(len(table.lesion_case))
    ]
    for row, lesion in zip(rows, known, strict=True):
        if lesion is not None:
            row |= {"family": lesion.family} | {name: _plain(getattr(lesion, name)) for name in KNOWN_COLUMNS}
    for explainer, scored in tables.items():
        prefix = "" if explainer == MODEL else f"{explainer}/"
        columns += [f"{prefix}peak", f"{prefix}found"]
        for row, peak, found in zip(rows, scored.lesion_peak, scored.found(thresholds.get(explainer)), strict=True):
            row |= {f"{prefix}peak": _plain(peak), f"{prefix}found": _plain(found)}
    write_csv(path, sorted(rows, key=lambda row: (row["case"], row["class"], row["lesion"])), columns)


def _plain(value: float) -> str:
    """A number for a table, empty where it is undefined."""
    return "" if math.isnan(value) else f"{value:.6g}"


def print_table(results: Results, title: str, floors: Collection[str], ceiling: Ceilings | None = None) -> None:
    """Print explainers by the main metrics, each figure above its interval, and the reasons of what is undefined.

    The ideal observer, where there is one, stands last, with the share of it that the model reaches.

    Args:
        results: Estimates by explainer and metric.
        title: Above the table.
        floors: Explainers that have not seen the disease.
        ceiling: The ideal observer on the same cases.
    """
    shown = {metric: results[MODEL][metric] for metric in SHOWN if metric in results[MODEL]}
    table = Table(title=title, title_justify="left", caption="[95 % interval over subjects]")
    table.add_column("map", overflow="fold")
    for metric, estimate in shown.items():
        # Broken by hand, lest a narrow terminal cut it short.
        header = metric.replace("/", "/\n") if len(metric) < 12 else metric.replace("/", "/\n").replace("_", "_\n")
        table.add_column(f"{header}\nn = {estimate.n}", justify="right", vertical="bottom")
    for name, estimates in results.items():
        label = f"{name}\n(floor)" if name in floors else name
        table.add_row(label, *(_cell(estimates.get(metric)) for metric in shown))
    if ceiling is not None:
        table.add_section()
        label = f"ideal\nobserver\n({KINDS[ceiling.kind]})"
        table.add_row(label, *(_cell(_defined(ceiling.scores.get(metric))) for metric in shown))
        table.add_row("share of\nceiling", *(_cell(_defined(ceiling.efficiency.get(metric))) for metric in shown))
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


def _defined(estimate: Estimate | None) -> Estimate | None:
    return None if estimate is None or estimate.reason else estimate


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.reason:
        return "undefined"
    if math.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f}\n[dim]\\[{estimate.low:.3f}, {estimate.high:.3f}][/dim]"
