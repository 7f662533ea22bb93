"""Fixtures of the tests of a retrofit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hrcam_lightning.cli import main
from tests.command_line import CASES, SMALL
from tests.retrofit.command import CAM

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def base(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CAM of one epoch on the tiny set; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    run = ["--trainer.default_root_dir", "base", "--trainer.max_epochs", "1"]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *CAM, *run])
    return tmp_path / "base"
