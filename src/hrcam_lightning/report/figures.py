"""Sections that a run and a comparison share: curves and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.callbacks.curves import OBSERVER, PANELS
from hrcam_lightning.metrics import brier_score, calibration_error, reliability
from hrcam_lightning.report.page import Section
from hrcam_lightning.report.plots import calibration_figure, curve_figure, plots_html, styles_of
from hrcam_lightning.report.tables import entry_cell, paragraph, table_html

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hrcam_lightning.callbacks.curves import Curves
    from hrcam_lightning.compare.scores import Run
    from hrcam_lightning.metrics import ReliabilityBin
    from hrcam_lightning.metrics.estimate import Ints
    from hrcam_lightning.report.tables import Cells

NO_CURVES = "There is no curve to draw: no positive case has a mask."
CALIBRATION = (
    "Cases in ten bins of equal width by their probability, empty bins left out: the share of them that is of the"
    " class, against their mean probability, with 95 % intervals (Wilson's where each subject has one case). ECE,"
    " the expected calibration error, is the mean distance from the diagonal, bins weighted by their cases; by "
    "chance it is above 0 even for a network that means what it says. Brier is the mean squared difference of "
    "probability and label. Both are of one class against the rest, with 95 % intervals over subjects. Training by"
    " balanced class weights, or on cases of another prevalence, moves probabilities away from the diagonal "
    "without moving AUROC."
)


def curves_section(curves: Curves, floors: Collection[str], about: str) -> Section:
    """FROC, LROC, recall against d′ and size, with the ideal observer where the set carries a ceiling."""
    if not curves:
        return Section("Curves", paragraph(NO_CURVES), "curves")
    names = list(dict.fromkeys(name for own in curves.values() for name in own))
    names.sort(key=lambda name: (name == OBSERVER, name in floors))
    styles = styles_of(names, floors)
    shown = {panel: curves[panel] for panel in PANELS if panel in curves}
    figures = {
        f"plot-{panel.replace('_', '-')}": curve_figure(
            panel, {name: own[name] for name in names if name in own}, styles
        )
        for panel, own in shown.items()
    }
    if not any(OBSERVER in own for own in curves.values()):
        about += " The set carries no ceiling, so there is no ideal observer's curve (hrcam-synth observer --write)."
    return Section("Curves", paragraph(about) + plots_html(figures), "curves")


def calibration_section(runs: Mapping[str, Run], classes: Sequence[str]) -> Section:
    """Reliability, ECE and Brier score of each run and class, from the probabilities in ``cases.csv``.

    Args:
        runs: By name of an experiment; of a single run the name is not told.
        classes: Names of the K classes.
    """
    bins: dict[str, list[ReliabilityBin]] = {}
    rows: list[Cells] = []
    for title, run in runs.items():
        subject = _numbered(run.subjects)
        for k, class_name in enumerate(classes):
            parts = [title] * (len(runs) > 1) + [class_name] * (len(classes) > 1 or len(runs) == 1)
            name, probability, label = ", ".join(parts), run.probability[:, k], run.label[:, k]
            error, brier = calibration_error(probability, label, subject), brier_score(probability, label, subject)
            count, share = str(len(label)), f"{label.mean():.3f}"
            rows.append([name, count, share, *(entry_cell(one.to_dict()) for one in (error, brier))])
            if not error.reason:
                bins[name] = reliability(probability, label, subject)
    table = table_html(["of", "cases", "share of the class", "ECE", "Brier"], rows)
    figure = calibration_figure(bins, styles_of(list(bins), ()))
    shown = plots_html({"plot-calibration": figure}, table)
    return Section("Calibration", shown + paragraph(CALIBRATION), "calibration")


def _numbered(subjects: Sequence[str]) -> Ints:
    return np.asarray(np.unique(np.asarray(subjects), return_inverse=True)[1], dtype=np.int64)
