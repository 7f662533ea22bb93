"""What the terminal shows of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


def ceiling_table(scores: Mapping[str, Any]) -> Table:
    """Return the scores of the ideal observer, as :func:`synth.ceiling.ceiling` gives them."""
    kind = scores["kind"].replace("_", " ")
    title = f"{scores['spec']}: ideal observer ({kind}), {scores['cases']} cases, 95 % intervals"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("with it", "image AUROC", "pointing", "LROC area"):
        table.add_column(name, justify="right")
    for name, own in scores["classes"].items():
        positives = own["pointing"]["n"] if own["pointing"] else 0
        cells = (_interval(own[key]) for key in ("image_auroc", "pointing", "lroc"))
        table.add_row(name, str(positives), *cells)
    return table


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "no cases"
    return f"{estimate['value']:.3f}\n({estimate['low']:.3f}-{estimate['high']:.3f})"
