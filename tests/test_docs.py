"""The documentation as a site: every page is reached, every link leads somewhere, nothing comes from the network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.pages import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LINK = re.compile(r"!?\[(?:[^\]]|\][^(\[])*?\]\(([^)\s]+)\)")


def test_the_navigation_lists_every_page_once() -> None:
    entries = [page for section in SITE["nav"] for pages in section.values() for page in pages]
    listed = [page if isinstance(page, str) else next(iter(page.values())) for page in entries]
    there = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.name != "README.md"]
    assert sorted(listed) == sorted(there)


def test_the_site_asks_nothing_of_the_network() -> None:
    assert SITE["theme"]["font"] is False
    assert [(ROOT / "docs" / script).is_file() for script in SITE["extra"]["polyfills"]] == [True]
    assert "offline" in SITE["plugins"]
    assert [(ROOT / "docs" / sheet).is_file() for sheet in SITE["extra_css"]] == [True]
    assert "extra_javascript" not in SITE


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them; of an API page also what it documents."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r" +", "-", heading.strip()) for heading in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        if page.name != "README.md":  # the site holds docs/ and nothing else
            assert target.is_relative_to(ROOT / "docs"), link
        if anchor.startswith(("hrcam_lightning.", "synth.")):
            package, name = anchor.rsplit(".", 1)
            assert f"::: {package}" in target.read_text(encoding="utf-8"), link
            assert re.search(rf"^class {name}\b|^def {name}\b", _source(package), re.M), link
        elif anchor:
            assert anchor in _anchors(target), link


def _source(package: str) -> str:
    """All code of a module or package."""
    place = ROOT.joinpath("src", *package.split("."))
    files = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_every_page_that_is_rendered_names_modules_that_are_there() -> None:
    named = [name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)]
    assert len(named) == len(set(named)) >= 12
    for name in named:
        places = [root.joinpath(*name.split(".")) for root in (ROOT, ROOT / "src")]
        assert any(place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places), name
