"""What README and docs show: pages, their blocks, their shell commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its language, the file that it is (``title="..."``), its text."""

    language: str
    title: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order, all of them or those of one language."""
    found = re.findall(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```', page.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(*one) for one in found if language in (None, one[0])]


def lines(block: Block) -> list[str]:
    """The lines of a shell block, those that a backslash goes on with put together."""
    whole = re.sub(r"\\\n\s*", "", block.text)
    return [line.strip() for line in whole.splitlines() if line.strip()]


def commands(page: Path) -> list[str]:
    """The lines of the page's shell blocks in order."""
    return [line for block in blocks(page, "sh") for line in lines(block)]
