"""What the tests of the report share: a tested run, and a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hrcam_lightning.cli import main
from tests.command_line import CASES, SMALL, again
from tests.report import screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Page

EXPLAINERS = '[{method: gradcam, name: "grad <b>"}, random, center]'


@pytest.fixture(scope="session")
def tested_run(tmp_path_factory: pytest.TempPathFactory, tiny_set: Path) -> Path:
    """A run of one epoch on the tiny set, tested beside an explainer of a hostile name; to be copied, not changed."""
    folder, cases = tmp_path_factory.mktemp("report") / "run", tiny_set / "cases.csv"
    main(["fit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "1"])
    main(again("test", folder, cases, "--explainers", EXPLAINERS, "--fused_maps.cases", "0"))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with screen.started() as browser:
        yield browser


@pytest.fixture
def show(chromium: Chromium, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page; whatever it complains of, or asks of a network, fails the test."""
    with screen.opened(chromium, tmp_path) as open_page:
        yield open_page
