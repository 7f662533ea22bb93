"""What a user sees of a run: nothing that other packages say and nobody can act on."""

from __future__ import annotations

import re
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


def _assert_quiet(said: str) -> None:
    # Lightning writes a warning as place, line and message, without the word.
    assert not re.search(r"\.py:\d+: |Warning|Tip:", said), said


def test_commands_warn_of_nothing_that_nobody_can_mend(tiny_set: Path, tmp_path: Path) -> None:
    """Where other packages speak: the same folder again, a prediction with nothing left to do, a base elsewhere."""
    cases, run = tiny_set / "cases.csv", tmp_path / "run"
    fit = ["fit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(run), "--trainer.max_epochs", "1"]
    said = _said(*fit)
    assert "Best checkpoint" in said
    _assert_quiet(said)
    _assert_quiet(_said(*fit, "--overwrite", "true"))
    _assert_quiet(_said(*again("predict", run, cases)))
    _assert_quiet(_said(*again("predict", run, cases), "--resume"))
    _assert_quiet(_said(*again("retrofit", run, cases), "--trainer.default_root_dir", str(tmp_path / "head")))


def test_a_network_of_another_package_is_configured_without_a_warning(tiny_set: Path, tmp_path: Path) -> None:
    network = "{class_path: monai.networks.nets.resnet10, init_args: {spatial_dims: 2, n_input_channels: 1}}"
    backbone = f"{{class_path: TappedBackbone, init_args: {{network: {network}, layers: [layer1, layer2]}}}}"
    config = tmp_path / "tapped.yaml"
    config.write_text(f"model: {{backbone: {backbone}}}")
    run = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_epochs", "1"]
    quick = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.batch_size", "4"]
    _assert_quiet(_said("fit", "-c", str(config), *CASES, str(tiny_set / "cases.csv"), *quick, *run))
