"""The page as a file."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hrcam_lightning.report
from hrcam_lightning.errors import InputError
from hrcam_lightning.report.page import SCRIPTS, Section, write_page
from tests.report import pages

ASSETS = Path(hrcam_lightning.report.__file__).parent / "assets"


class _Reader(HTMLParser):
    """Collects tags, identifiers and addresses, and fails on a tag that is not closed."""

    VOID = ("meta", "link", "input", "br", "img", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "action"):
                self.addresses.append(str(value))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_asks_for_nothing(tmp_path: Path) -> None:
    sections = [Section("Scores & more", "<p id='p'>1</p>", "scores")]
    page = _read(pages.write(tmp_path, pages.several(), sections=sections, scripts=["1"]))
    assert sorted(page.addresses) == ["#cases", "#scores", "data:,"]
    assert len(set(page.ids)) == len(page.ids)
    assert page.ids.index("scores") < page.ids.index("cases")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert re.findall(r"https?://[\w./]+", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address


def test_titles_are_text_and_sections_are_markup(tmp_path: Path) -> None:
    sections = [Section("<i>A</i>", "<b>$title</b>", "a&b")]
    text = pages.write(tmp_path, None, title="<u>T</u> $body", lead="<s>L</s>", sections=sections).read_text("utf-8")
    assert "<title>&lt;u&gt;T&lt;/u&gt; $body</title>" in text
    assert "&lt;s&gt;L&lt;/s&gt;" in text
    assert '<section id="a&amp;b"><h2>&lt;i&gt;A&lt;/i&gt;</h2>' in text
    assert "<b>$title</b>" in text
    assert '<a href="#a&amp;b">&lt;i&gt;A&lt;/i&gt;</a>' in text


def test_without_cases_there_is_no_browser(tmp_path: Path) -> None:
    page = _read(pages.write(tmp_path, None))
    assert "script" not in page.tags
    assert "cases" not in page.ids


def test_scripts_are_deflated_in_their_order(tmp_path: Path) -> None:
    scripts = ["const text = '</script>';", "x = 'é'; " * 5000]
    text = pages.write(tmp_path, None, scripts=scripts).read_text(encoding="utf-8")
    (packed,) = re.findall(r'id="scripts">(.*?)</script>', text)
    assert [zlib.decompress(base64.b64decode(one)).decode() for one in json.loads(packed)] == scripts
    assert len(text) < 15_000


def test_the_file_is_whole_or_not_there_and_its_size_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    size = write_page(path, "T", "L", (), pages.several())
    assert size == path.stat().st_size
    before = path.read_bytes()
    bad = pages.browser(pages.case("one", maps={"model": {"lesion": pages.RAMP * float("nan")}}))
    with pytest.raises(InputError):
        write_page(path, "T", "L", (), bad)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="cannot be written"):
        write_page(path / "below", "T", "L", (), None)


def test_scripts_are_short_and_all_in_use() -> None:
    others = {"scripts.js", "plots.js"}
    assert {path.name for path in ASSETS.glob("*.js")} - others == set(SCRIPTS)
    for path in ASSETS.iterdir():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 250, path
        if path.suffix == ".js":
            assert text.startswith("// "), path
            assert "</script" not in text, path
            assert "innerHTML" not in text, path
