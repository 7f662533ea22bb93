"""A page in a real browser: opened, touched, and read off the screen."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest

from hrcam_lightning.report.arrays import FINE, GREY
from hrcam_lightning.report.browser import COLOURS
from tests.report import pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Dialog, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOWN = "(name) => document.getElementById('viewer').dataset.case === name"
PIXELS = """([selector, number]) => {
  const canvas = document.querySelectorAll(selector)[number];
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, ...data.data];
}"""


@contextmanager
def started() -> Iterator[Chromium]:
    """A Chromium without a window; skips the test where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = next(filter(None, map(shutil.which, NAMES)), play.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium on the PATH, and none of playwright's own: nox -s browser")
        browser = play.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Chromium, folder: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page; whatever it complains of, or asks of a network, fails the test."""
    complaints: list[str] = []
    contexts = []

    def complain(what: str) -> None:
        complaints.append(what)

    def refuse(dialog: Dialog) -> None:
        complain(dialog.message)
        dialog.dismiss()

    def open_page(
        content: Any, fragment: str = "", size: tuple[int, int] = (1280, 1000), scheme: Any = "light", **changes: Any
    ) -> Page:
        path = pages.write(folder, content, **changes)
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complain(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda asked: complain(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
        page.goto(f"{path.as_uri()}{fragment}")
        if content is not None:
            page.wait_for_selector("#viewer[data-case]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def pixels(page: Page, selector: str = "#planes canvas", number: int = 0) -> np.ndarray[Any, Any]:
    """(H, W, 3) of a canvas."""
    height, width, *values = page.evaluate(PIXELS, [selector, number])
    pixels = np.array(values).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return np.asarray(pixels[..., :3])


def slide(page: Page, name: str, value: float) -> None:
    page.locator(name).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )
    settle(page)


def settle(page: Page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")


def go(page: Page, name: str) -> None:
    page.wait_for_function(SHOWN, arg=name)
    assert page.inner_text("#case-name") == name


def names(page: Page) -> list[str]:
    return list(page.locator("#list .name").all_inner_texts())


def expected(threshold: float, opacity: float) -> np.ndarray[Any, Any]:
    """(H, W, 3): grey levels of the image, and over them the colours of what reaches the threshold."""
    grey = np.rint(pages.SHADES * GREY)[..., None] * 255 / GREY
    place = np.rint((pages.RAMP + 4) / 12 * FINE) / FINE
    colour = np.rint(mpl.colormaps[COLOURS](place)[..., :3] * 255)
    over = np.where(threshold <= pages.RAMP, opacity, 0.0)[..., None]
    return np.asarray(grey + over * (colour - grey))
