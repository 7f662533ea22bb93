"""The page: sections, the case browser and scripts in one file."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from hrcam_lightning.files import replacing
from hrcam_lightning.report.browser import Browser, browser_html

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A part of the page."""

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
    """Write one self-contained file, and return its size in bytes."""
    parts = [f'<section id="{one.anchor}"><h2>{escape(one.title)}</h2>{one.html}</section>' for one in sections]
    parts += [browser_html(browser)] if browser else []
    parts += ["<script>" + script.replace("</script", "<\\/script") + "</script>" for script in scripts]
    head = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><h1>{escape(title)}</h1><p>{lead}</p>"
    with replacing(path) as part:
        part.write_text(head + "".join(parts), encoding="utf-8")
    return path.stat().st_size
