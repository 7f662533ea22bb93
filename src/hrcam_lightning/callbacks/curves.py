"""The curves of an evaluation: their numbers in ``curves.csv``, and ``curves.png``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.files import write_csv
from hrcam_lightning.metrics.curves import FROC_RATES, LROC_RATES, bin_edges, lroc_curve, shares_in_bins

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from hrcam_lightning.data import KnownLesion
    from hrcam_lightning.metrics import ScoreTable
    from hrcam_lightning.metrics.efficiency import ObserverScores
    from hrcam_lightning.metrics.estimate import Floats

OBSERVER = "ideal observer"
COLUMNS = ("curve", "map", "x", "x_to", "y", "low", "high", "n")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito: for any colour vision
FLOOR = "#8c8c8c"
DASHES, MARKERS = ("-", "--", ":", "-."), ("o", "s", "D", "^", "v", "P")
SYMBOLS = len(MARKERS)


class Look(NamedTuple):
    """What tells a map from others in a figure, in whatever words the figure is drawn.

    Attributes:
        colour: None is that of the text.
        dash: 0 is a whole line; 1 to 3 are broken in different ways.
        symbol: Of its points, from 0 to 5.
    """

    colour: str | None
    dash: int
    symbol: int


class Panel(NamedTuple):
    """What one panel of the sheet shows.

    Attributes:
        title: Above it.
        x: Name of its horizontal axis.
        y: Name of its vertical axis.
    """

    title: str
    x: str
    y: str


POINTING = "pointing, cases with one lesion"
PEAKS = "lesions that the peak is on"
PANELS = {
    "froc": Panel("FROC, local maxima", "false positives per image", "lesions found"),
    "froc_by_parts": Panel("FROC, connected parts", "false positives per image", "lesions found"),
    "lroc": Panel("LROC", "negatives rated above", "positives rated above and located"),
    "recall_by_dprime": Panel("at the validation threshold", "d′ (above: lesions)", "lesions found"),
    "recall_by_size_mm": Panel("at the validation threshold", "diameter in mm (above: lesions)", "lesions found"),
    "recall_by_voxels": Panel("at the validation threshold", "voxels (above: lesions)", "lesions found"),
    "pointing_by_dprime": Panel(POINTING, "d′ (above: lesions)", PEAKS),
    "pointing_by_size_mm": Panel(POINTING, "diameter in mm (above: lesions)", PEAKS),
    "pointing_by_voxels": Panel(POINTING, "voxels (above: lesions)", PEAKS),
}


class Point(NamedTuple):
    """A point of a curve, or a bin.

    Attributes:
        x: Where; of a bin, from where, included.
        x_to: Of a bin, to where, not included; NaN of a point.
        y: The share.
        low: Lower end of its 95 % interval; NaN if it has none.
        high: Upper end.
        n: Cases in the bin; 0 of a point.
    """

    x: float
    x_to: float
    y: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


Curves = dict[str, dict[str, list[Point]]]
"""Points by panel and map; only what is defined."""


def curves_of(
    tables: Mapping[str, ScoreTable],
    thresholds: Mapping[str, Sequence[float]],
    lesions: Sequence[KnownLesion | None],
    observer: ObserverScores | None,
) -> Curves:
    """All curves of an evaluation.

    Args:
        tables: Scores by explainer.
        thresholds: By explainer, of each class, found on validation cases.
        lesions: What is known of each lesion of the tables.
        observer: What the ideal observer made of the cases.
    """
    model = tables[MODEL]
    dprime, size = (np.array([getattr(one, name, math.nan) for one in lesions]) for name in ("dprime", "size_mm"))
    by_size, sizes = "by_size_mm", size
    if not np.isfinite(size).any():
        by_size, sizes = "by_voxels", model.lesion_voxels.astype(np.float64)
    single = _single(model)
    curves: Curves = {name: {} for name in PANELS}
    for name, table in tables.items():
        curves["froc"][name] = _points(FROC_RATES, table.froc_curve())
        curves["froc_by_parts"][name] = _points(FROC_RATES, table.froc_curve("_by_parts"))
        curves["lroc"][name] = _points(LROC_RATES, table.lroc_curve())
        found = table.found(thresholds.get(name))
        curves["recall_by_dprime"][name] = _bins(found, dprime, model)
        curves[f"recall_{by_size}"][name] = _bins(found, sizes, model)
        on_lesion = _of_lesions(table.pointing, single, model)
        curves["pointing_by_dprime"][name] = _bins(on_lesion, dprime, model)
        curves[f"pointing_{by_size}"][name] = _bins(on_lesion, sizes, model)
    if observer is not None:
        hits = observer.hits(model)
        curves["lroc"][OBSERVER] = _points(LROC_RATES, lroc_curve(observer.located, model.label, hits))
        on_lesion = _of_lesions(hits, single, model)
        curves["pointing_by_dprime"][OBSERVER] = _bins(on_lesion, dprime, model)
        curves[f"pointing_{by_size}"][OBSERVER] = _bins(on_lesion, sizes, model)
    kept = {panel: {name: points for name, points in own.items() if points} for panel, own in curves.items()}
    return {panel: own for panel, own in kept.items() if own}


def write_curves(path: Path, curves: Curves) -> None:
    """Write the numbers behind all curves, a row a point."""
    rows: list[dict[str, Any]] = [
        {"curve": panel, "map": name, "n": point.n or ""}
        | {column: _text(getattr(point, column)) for column in ("x", "x_to", "y", "low", "high")}
        for panel, own in curves.items()
        for name, points in own.items()
        for point in points
    ]
    write_csv(path, rows, COLUMNS)


def draw_curves(curves: Curves, floors: Collection[str], areas: Mapping[str, float]) -> Figure:
    """Draw them, three panels a row, or more in two rows.

    Args:
        curves: At least one.
        floors: Maps that have not seen the disease; grey and dashed.
        areas: LROC area by map, for the legend.
    """
    names = list(dict.fromkeys(name for own in curves.values() for name in own))
    looks = looks_of(names, floors)
    styles = {name: _style(name, look) for name, look in looks.items()}
    columns = max(3, math.ceil(len(curves) / 2))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(3.7 * columns, 3.7 * rows + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    for axis, (panel, own) in zip(axes, curves.items(), strict=False):
        for name, points in own.items():
            if points[0].n:
                marked = styles[name] | {"marker": MARKERS[looks[name].symbol]}
                _draw_bins(axis, points, marked, names.index(name), len(names))
            else:  # the highest share at no more than so many false ones: steps, not straight lines
                axis.plot([p.x for p in points], [p.y for p in points], drawstyle="steps-post", **styles[name])
        if panel == "lroc":
            text = "\n".join(
                f"{name}: area {areas[name]:.3f}" for name in own if math.isfinite(areas.get(name, math.nan))
            )
            axis.text(0.97, 0.04, text, transform=axis.transAxes, ha="right", va="bottom", fontsize=7,
                      bbox={"color": "white", "alpha": 0.7})  # fmt: skip
        if panel.startswith("froc"):
            axis.set_xscale("log", base=2)
            axis.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["⅛", "¼", "½", "1", "2", "4", "8"])
        axis.set(title=PANELS[panel].title, xlabel=PANELS[panel].x, ylabel=PANELS[panel].y, ylim=(-0.02, 1.12))
        axis.grid(alpha=0.3)
    handles = [axes[0].plot([], [], label=_label(name, floors), **styles[name])[0] for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(names)), fontsize=8, frameon=False)
    return figure


def _draw_bins(axis: Axes, points: Sequence[Point], style: dict[str, Any], number: int, count: int) -> None:
    """Shares in their bins, the maps side by side; above them the numbers of lesions, of the first map."""
    shift = 0.5 + 0.4 * (number - (count - 1) / 2) / count
    places = [point.x + shift * (point.x_to - point.x) for point in points]
    ends = [[max(0.0, p.y - p.low) for p in points], [max(0.0, p.high - p.y) for p in points]]
    axis.errorbar(places, [p.y for p in points], np.nan_to_num(ends), markersize=3, capsize=2, **style)
    if number == 0:
        for point in points:
            axis.text((point.x + point.x_to) / 2, 1.04, f"{point.n}", ha="center", va="bottom", fontsize=7)
        axis.set_xticks(sorted({edge for point in points for edge in (point.x, point.x_to)}))
        axis.set_xlim(points[0].x, points[-1].x_to)
        axis.tick_params(axis="x", labelsize=8)


def looks_of(names: Sequence[str], floors: Collection[str]) -> dict[str, Look]:
    """How each map is told from the others, the same in every figure: here, and on the page of a report."""
    looks: dict[str, Look] = {}
    grey = [name for name in names if name in floors]
    own = [name for name in names if name not in (*grey, OBSERVER)]
    for name in names:
        if name == OBSERVER:
            looks[name] = Look(None, 1, 0)
        elif name in floors:
            number = grey.index(name)
            looks[name] = Look(FLOOR, 1 + number % 3, number % SYMBOLS)
        else:  # colours come again after six; a dash and another symbol then tell them apart
            turn, number = divmod(own.index(name), len(COLOURS))
            looks[name] = Look(COLOURS[number], turn % 4, (number + turn) % SYMBOLS)
    return looks


def _style(name: str, look: Look) -> dict[str, Any]:
    width = 2.0 if name == MODEL else 1.0 if look.colour == FLOOR else 1.2
    return {"color": look.colour or "black", "linestyle": DASHES[look.dash], "linewidth": width}


def _label(name: str, floors: Collection[str]) -> str:
    return f"{name} (floor)" if name in floors else name


def _points(rates: Sequence[float], shares: Floats) -> list[Point]:
    return (
        [Point(x, math.nan, float(y)) for x, y in zip(rates, shares, strict=True)] if np.isfinite(shares).all() else []
    )


def _bins(found: Floats, values: Floats, table: ScoreTable) -> list[Point]:
    """The shares found in bins that are the same for every map."""
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    subject = table.subject[np.searchsorted(table.case, table.lesion_case)]
    bins = shares_in_bins(found, values, bin_edges(known), subject)
    return [Point(b.low, b.high, b.share.value, b.share.low, b.share.high, b.share.n) for b in bins]


def _single(table: ScoreTable) -> Floats:
    """1 for each lesion that is the only one of its case and class, (m,)."""
    keys = np.stack([table.lesion_case, table.lesion_class])
    _, place, count = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    return np.where(count[place.reshape(-1)] == 1, 1.0, 0.0)


def _of_lesions(scores: Floats, single: Floats, table: ScoreTable) -> Floats:
    """Scores of cases (n, K) as those of their only lesions, (m,); NaN of lesions that are not alone."""
    rows = np.searchsorted(table.case, table.lesion_case)
    return np.where(single > 0, scores[rows, table.lesion_class], math.nan)


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
