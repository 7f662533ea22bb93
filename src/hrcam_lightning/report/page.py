"""One file that holds the whole report: its style, its scripts and its data. It asks no network for anything."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from hrcam_lightning.files import replacing
from hrcam_lightning.report.arrays import squeeze
from hrcam_lightning.report.browser import browser_html, embedded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.report.browser import Browser

SCRIPTS = ("elements.js", "arrays.js", "colours.js", "planes.js", "list.js", "controls.js", "case.js", "viewer.js")
"""The browser's scripts, in the order in which they stand in one module; the last starts it."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Plain text.
        html: Safe HTML: whoever made it has escaped what it names.
        anchor: Fragment that leads to it.
    """

    title: str
    html: str
    anchor: str


def write_page(
    path: Path,
    title: str,
    lead: str,
    sections: Sequence[Section],
    browser: Browser | None,
    scripts: Sequence[str] = (),
) -> int:
    """Write the report, whole or not at all.

    Args:
        path: HTML file.
        title: Plain text.
        lead: Plain text under the title.
        sections: In order; the case browser comes after them.
        browser: None for a report without cases.
        scripts: JavaScript, run one after another once the page is there; deflated, so that a large library costs a
            third. Scripts in the sections run before these.

    Returns:
        Size in bytes.
    """
    parts = [
        f'<section id="{escape(section.anchor)}"><h2>{escape(section.title)}</h2>\n'
        f'<div class="body">{section.html}</div></section>\n'
        for section in sections
    ]
    links = [(section.anchor, section.title) for section in sections]
    if browser is not None:
        parts.append(browser_html(browser))
        links.append(("cases", "Cases"))
    body = "".join(parts)
    if scripts:
        packed = embedded([squeeze(script.encode()) for script in scripts])
        body += f'<script type="application/json" id="scripts">{packed}</script>\n'
        body += f"<script>{_asset('scripts.js')}</script>\n"
    if browser is not None:
        body += f'<script type="module">\n{"".join(map(_asset, SCRIPTS))}</script>\n'
    page = Template(_asset("page.html")).substitute(
        title=escape(title),
        lead=escape(lead),
        style=_asset("report.css"),
        links="".join(f'<li><a href="#{escape(anchor)}">{escape(name)}</a></li>' for anchor, name in links),
        body=body,
    )
    content = page.encode("utf-8")
    with replacing(path) as part:
        part.write_bytes(content)
    return len(content)


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
