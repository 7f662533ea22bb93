"""Fixtures: tiny phantom sets made by synth itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning.cli import main
from synth import PhantomSpec
from synth.cli import main as synth_main
from tests.command_line import CASES, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SPEC = {
    "name": "tiny",
    "task": "binary",
    "shape": [16, 16],
    "spacing_mm": [1.0, 2.0],
    "splits": {"train": 8, "val": 6, "test": 6},
    "texture": {"components": [{"sd": 0.05, "length_mm": 1.5}]},
    "noise": {"kind": "gaussian", "sd": 0.03},
    "lesions": {"lesion": {"cnr": 4, "radius_mm": 2, "edge_mm": 1, "polarity": "bright", "count": 1}},
}


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    """Tiny tensors are quicker on one thread, and repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    PhantomSpec.from_dict(SPEC).to_yaml(path)
    return path


@pytest.fixture(scope="session")
def tiny_set(spec_path: Path) -> Path:
    """A binary 2D set on disk; its first cases of each split include both kinds."""
    folder = spec_path.parent / "set"
    assert synth_main(["generate", str(folder), "--config", str(spec_path), "--seed", "3"]) == 0
    return folder


@pytest.fixture
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Offline, and closed afterwards: a second logger in one process would silently use the open run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    import wandb

    wandb.finish()


@pytest.fixture
def fitted(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two epochs on the tiny set; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    run = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "2"]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run])
    return tmp_path / "run"
