"""What a set holds, in numbers and in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from synth.verify import StoredSet

BINS = 24
# Column of lesions.csv: what it is called.
MEASURES = {"diameter_mm": "diameter of equal volume, mm", "delta": "contrast", "cnr": "CNR", "dprime": "d′"}
Values = dict[str, npt.NDArray[np.float64]]


class Summary(NamedTuple):
    """What a set holds.

    Attributes:
        splits: number of cases of each label in words, by split.
        prevalence: share of cases that have a class, by class and split.
        measures: size, contrast, CNR and d′ of each lesion, by class.
    """

    splits: dict[str, dict[str, int]]
    prevalence: dict[str, dict[str, float]]
    measures: dict[str, Values]


def summarise(found: StoredSet) -> Summary:
    """Summarise the tables of a set; no image is read."""
    names = tuple(found.spec.lesions)
    splits: dict[str, dict[str, int]] = {name: dict(labels) for name, labels in found.info["counts"].items()}
    prevalence = {name: {split: _share(labels, name) for split, labels in splits.items() if labels} for name in names}
    rows = [row for own in found.lesions.values() for row in own]
    measures = {name: _measures([row for row in rows if row["class"] == name], len(found.spec.shape)) for name in names}
    return Summary(splits, prevalence, measures)


def _share(labels: Mapping[str, int], name: str) -> float:
    return sum(n for label, n in labels.items() if name in label.split("|")) / sum(labels.values())


def _measures(rows: list[dict[str, str]], dimensions: int) -> Values:
    unit = np.pi / 4 if dimensions == 2 else np.pi / 6
    values = {name: np.array([float(row[name]) for row in rows]) for name in ("volume_mm3", "delta", "cnr", "dprime")}
    values["diameter_mm"] = (values["volume_mm3"] / unit) ** (1 / dimensions)
    return {name: values[name] for name in MEASURES}


def histograms(summary: Summary, path: Path) -> None:
    """Write a PNG of the distribution of each measure, prevalence and number of cases.

    Raises:
        OSError: the file could not be written.
    """
    figure = Figure(figsize=(10, 5.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    for axis, (name, title) in zip(axes, MEASURES.items(), strict=False):
        values = [own[name] for own in summary.measures.values()]
        edges = np.histogram_bin_edges(np.concatenate(values), BINS)
        for own, label in zip(values, summary.measures, strict=True):
            axis.hist(own, edges, histtype="step", label=f"{label} (n={len(own)})")
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylabel("lesions", fontsize=8)
    axes[0].legend(fontsize=7)
    _bars(axes[4], "prevalence", summary.prevalence)
    axes[4].set_ylim(0, 1)
    _bars(axes[5], "cases", {"cases": {split: sum(labels.values()) for split, labels in summary.splits.items()}})
    for axis in axes:
        axis.tick_params(labelsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _bars(axis: Any, title: str, groups: Mapping[str, Mapping[str, float]]) -> None:  # noqa: ANN401 - matplotlib's
    """Draw bars by split, one beside the other for each group."""
    splits = list(dict.fromkeys(split for group in groups.values() for split in group))
    width = 0.8 / len(groups)
    for number, (name, group) in enumerate(groups.items()):
        places = np.arange(len(splits)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(places, [group.get(split, 0) for split in splits], width, label=name)
    axis.set_xticks(range(len(splits)), splits)
    axis.set_title(title, fontsize=9, loc="left")
