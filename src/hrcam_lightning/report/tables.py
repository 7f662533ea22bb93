"""Tables of the page, as HTML. Whatever stands in a cell is text, and is escaped here."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from hrcam_lightning.callbacks.explainers import MODEL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hrcam_lightning.report.evaluation import Entry

MAIN = (
    "auroc", "accuracy", "pointing", "pixel_ap", "predicted/pointing", "aupro", "lesion/recall", "lesion/froc",
    "normal/false_activation", "lroc",
)  # fmt: skip
"""Figures of the short table; all are in the long one."""


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What it says.
        small: Below it, smaller.
    """

    text: str
    small: str = ""


Cells = list["Cell | str"]
"""A row."""


def table_html(header: Cells, rows: Sequence[Cells], caption: str = "") -> str:
    """A table; the first column names its rows, the others are set to the right."""
    head = "".join(f'<th scope="col">{_cell(one)}</th>' for one in header)
    body = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>{"".join(f"<td>{_cell(one)}</td>" for one in row[1:])}</tr>'
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def folded(title: str, html: str) -> str:
    """What is shown on a click."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def yaml_html(content: Mapping[str, Any]) -> str:
    """Settings as they stand in a file."""
    text = yaml.safe_dump(json.loads(json.dumps(content, default=str)), sort_keys=False, allow_unicode=True)
    return f"<pre>{escape(text)}</pre>"


def facts_html(facts: Mapping[str, str]) -> str:
    """Names and values, one a row."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="text">{escape(value)}</td></tr>'
        for name, value in facts.items()
        if value
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def figures_html(figures: Mapping[str, Mapping[str, Entry]], maps: Sequence[str], floors: Collection[str]) -> str:
    """The main figures of a test: a row a map, then the ideal observer and the share of it that the model reaches."""
    own = figures[MODEL]
    shown = [name for name in MAIN if name in own]
    header: Cells = ["map", *(Cell(name, f"n = {own[name]['n']}" if "n" in own[name] else "") for name in shown)]
    rows: list[Cells] = [
        [Cell(name, "floor" * (name in floors)), *(entry_cell(figures[name].get(metric)) for metric in shown)]
        for name in maps
    ]
    if figures.get("ceiling"):
        kind = next(str(entry.get("kind", "")) for entry in figures["ceiling"].values()).replace("_", " ")
        rows.append([Cell("ideal observer", kind), *(_defined(figures["ceiling"].get(metric)) for metric in shown)])
        rows.append(["share of ceiling", *(_defined(figures["efficiency"].get(metric)) for metric in shown)])
    reasons = {f"{metric}: undefined, {own[metric]['reason']}" for metric in shown if own[metric].get("reason")}
    return table_html(header, rows) + "".join(paragraph(one) for one in sorted(reasons))


def all_figures_html(figures: Mapping[str, Mapping[str, Entry]]) -> str:
    """Every figure of a test: a row a figure, a column a map."""
    homes = [name for name, entries in figures.items() if entries]
    metrics = list(dict.fromkeys(metric for name in homes for metric in figures[name]))
    rows: list[Cells] = [[metric, *(entry_cell(figures[name].get(metric)) for name in homes)] for metric in metrics]
    return table_html(["figure", *homes], rows)


def entry_cell(entry: Entry | None) -> Cell:
    """A figure above its interval; of a difference with its p."""
    if entry is None:
        return Cell("")
    if entry["value"] is None:
        return Cell("undefined", str(entry.get("reason", "")))
    chance = f" p = {entry['p']:.2g}" if entry.get("p") is not None else ""
    if entry.get("low") is None or entry.get("high") is None:
        return Cell(f"{entry['value']:.3f}", chance.strip())
    return Cell(f"{entry['value']:.3f}", f"[{entry['low']:.3f}, {entry['high']:.3f}]{chance}")


def _defined(entry: Entry | None) -> Cell:
    return Cell("") if entry is None or entry["value"] is None else entry_cell(entry)


def _cell(cell: Cell | str) -> str:
    text, small = (cell, "") if isinstance(cell, str) else cell
    return f"{escape(text)}<br><small>{escape(small)}</small>" if small else escape(text)
