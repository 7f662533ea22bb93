"""What a user sees of a run: nothing that other packages say and nobody can act on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.command_line import CASES, SMALL, again

if TYPE_CHECKING:
    from pathlib import Path


def _said(*words: str) -> str:
    """All that a command writes, in a process of its own: pytest has filters that a user has not."""
    run = subprocess.run(
        [sys.executable, "-m", "hrcam_lightning", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    return run.stdout


def test_a_run_warns_of_nothing_that_nobody_can_mend(tiny_set: Path, tmp_path: Path) -> None:
    cases = tiny_set / "cases.csv"
    fit = ["fit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    said = _said(*fit) + _said(*fit, "--overwrite", "true") + _said(*again("predict", tmp_path, cases))
    assert "Best checkpoint" in said
    assert "Warning" not in said
    assert "Tip" not in said
