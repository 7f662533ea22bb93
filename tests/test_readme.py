"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from hrcam_lightning.cli import main
from synth.cli import main as synth_main

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/models.md",
    "docs/explain.md",
    "docs/metrics.md",
    "docs/data.md",
    "docs/filtered.md",
    "docs/compare.md",
    "docs/report.md",
)
README = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PAGES)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    splits = ["--splits", "train=4,val=4,test=4"]
    assert synth_main(["generate", "data/demo", "--config", "configs/synth/demo.yaml", *splits]) == 0
    quick = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    main(["fit", "-c", "configs/demo.yaml", "--data.batch_size", "4", *quick])
    names: dict[str, Any] = {}
    for block in _blocks("python"):
        exec(block, names)
    assert names["output"].maps.shape == (1, 1, 64, 64)
    pooled = names["task"].network.pooling(names["output"].maps)
    torch.testing.assert_close(pooled, names["output"].logits)
    assert names["case"].name == "case_000012"


def test_every_option_in_the_shell_examples_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        shlex.split(line) for block in _blocks("sh") for line in block.splitlines() if line.startswith("hrcam ")
    ]
    assert {command[1] for command in commands} == {
        "fit",
        "test",
        "predict",
        "retrofit",
        "filtered-retrain",
        "cases",
        "compare",
        "report",
    }
    for command in commands:
        words = command[1:3] if command[1] == "cases" else command[1:2]
        options = {word.partition("=")[0] for word in command if word.startswith("--")} - {
            "--data",
            "--data.cases",
            "--model.backbone.width",
            "--model.decoder.global_pooling",
            "--trainer.callbacks.sanity",
        }
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert [option for option in options if option not in shown] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README)) | {"docs/images/demo.png"}))
def test_every_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).is_file()
