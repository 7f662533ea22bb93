"""Filtered images side by side, and the scores of what was trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from hrcam_lightning.callbacks.drawing import TRUTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hrcam_lightning.data.module import Sample
    from hrcam_lightning.filtered.study import Findings
    from hrcam_lightning.metrics import Estimate

EXAMPLES = 3
"""Cases of each label that are drawn."""


def draw_examples(findings: Findings) -> Figure:
    """The first test cases of each label, a row a case and a column a kind, one grey scale for all.

    Volumes show the slice along the last axis that holds most of what the map's mask shows.
    """
    labels = findings.facts["test"].labels
    chosen = [index for label in (1, 0) for index in np.flatnonzero(labels == label)[:EXAMPLES].tolist()]
    kinds = list(findings.shown)
    first = findings.shown[kinds[0]]
    originals = [first.cases[index] for index in chosen]
    low, high = np.percentile(np.stack([sample["image"].mean(0).numpy() for sample in originals]), [0.5, 99.5])
    figure = Figure(figsize=(1.35 * len(kinds) + 0.8, 1.4 * len(chosen) + 0.3))
    # By hand: a layout found by matplotlib takes seconds for so many axes.
    room = {"left": 0.05, "right": 0.995, "top": 0.96, "bottom": 0.01, "wspace": 0.05, "hspace": 0.05}
    axes = figure.subplots(len(chosen), len(kinds), squeeze=False, gridspec_kw=room)
    for row, index, original in zip(axes, chosen, originals, strict=True):
        mask = first.rule.mask(first.maps, index)
        place = int(mask.sum((0, 1)).argmax()) if mask.ndim == 3 else None
        truth = _upright(original["mask"][0].numpy(), original, place)
        for axis, kind in zip(row, kinds, strict=True):
            image = _upright(findings.shown[kind][index]["image"].mean(0).numpy(), original, place)
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            if truth.any():
                axis.contour(truth, [0.5], colors=TRUTH, linewidths=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel("positive" if labels[index] else "negative", fontsize=7)
    for axis, kind in zip(axes[0], kinds, strict=True):
        axis.set_title(kind, fontsize=7)
    return figure


def _upright(
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], sample: Sample, place: int | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """A slice as the other pictures show it: with an affine, axis 0 to the right and axis 1 upwards."""
    if place is not None:
        values = values[..., place]
    return values if sample["affine"] is None else values.T[::-1]


def draw_scores(scores: Mapping[str, Estimate]) -> Figure:
    """AUROC of each kind with its interval; chance and the originals' interval behind."""
    figure = Figure(figsize=(7, 0.4 * len(scores) + 1.2), layout="constrained")
    axis = figure.subplots()
    kinds = list(scores)
    reference = scores[kinds[0]]
    axis.axvspan(reference.low, reference.high, color="tab:blue", alpha=0.15, linewidth=0, label=f"{kinds[0]}, 95 %")
    axis.axvline(0.5, color="grey", linestyle="--", linewidth=0.8, label="chance")
    values = np.array([scores[kind].value for kind in kinds])
    ends = np.array([[scores[kind].low, scores[kind].high] for kind in kinds]).T
    axis.errorbar(values, range(len(kinds)), xerr=np.abs(ends - values), fmt="o", color="black", capsize=3)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xlabel("test AUROC of a network trained and tested on such images")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
