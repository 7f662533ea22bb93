"""What the terminal shows of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synth.describe import Summary


def ceiling_table(scores: Mapping[str, Any]) -> Table:
    """Return the scores of the ideal observer, as :func:`synth.ceiling.ceiling` gives them."""
    kind = scores["kind"].replace("_", " ")
    title = f"{scores['spec']}: ideal observer ({kind}), {scores['cases']} cases, 95 % intervals"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("with it", "image AUROC", "pointing", "LROC area"):
        table.add_column(name, justify="right")
    for name, own in scores["classes"].items():
        cells = (_interval(own[key]) for key in ("image_auroc", "pointing", "lroc"))
        table.add_row(name, str(scores["cases_with"][name]), *cells)
    return table


def _interval(estimate: Mapping[str, float | None] | None) -> str:
    if estimate is None:  # no cases, or no places to find
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}\n(-)"
    return f"{estimate['value']:.3f}\n({estimate['low']:.3f}-{estimate['high']:.3f})"


def summary_tables(title: str, summary: Summary, names: Mapping[str, str]) -> Group:
    """Return the cases by split and class, and the range of each measure of the lesions.

    Args:
        title: of the whole.
        summary: what the set holds.
        names: what each measure is called.
    """
    cases = Table()
    cases.add_column("split")
    for name in ("cases", *(f"with {name}" for name in summary.prevalence)):
        cases.add_column(name, justify="right")
    for split, labels in summary.splits.items():
        shares = (own.get(split) for own in summary.prevalence.values())
        cells = ("" if share is None else f"{100 * share:.1f} %" for share in shares)
        cases.add_row(split, str(sum(labels.values())), *cells)
    lesions = Table()
    lesions.add_column("class")
    for name in ("lesions", "measure", "least", "median", "most"):
        lesions.add_column(name, justify="left" if name == "measure" else "right")
    for name, measures in summary.measures.items():
        for measure, values in measures.items():
            marks: list[float] = np.percentile(values, [0, 50, 100]).tolist() if len(values) else []
            lesions.add_row(name, str(len(values)), names[measure], *(f"{mark:.3g}" for mark in marks))
    return Group(title, cases, lesions)
