"""Tables of an evaluation as W&B takes them: one type a column."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

from hrcam_lightning.callbacks.wandb_tables import log_evaluation

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_numbers_are_numbers_and_names_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def log_table(_: object, key: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        found[key] = (columns, data, step)

    monkeypatch.setattr(WandbLogger, "log_table", log_table)
    (tmp_path / "cases.csv").write_text("case,subject,predicted,pointing,empty\n0001,07,1,0.5,\n0002,08,,1,\n")
    (tmp_path / "lesions.csv").write_text("case,class,lesion,family\n0001,2,1,3\n")
    trainer: Any = SimpleNamespace(loggers=[WandbLogger.__new__(WandbLogger)], global_step=3)
    log_evaluation(trainer, "test", tmp_path, {"auroc": {"value": 0.5, "n": 9}}, None)
    assert found == {
        "test/table/metrics": (
            ["figure", "value", "low", "high", "n", "p", "reason"], [["auroc", 0.5, None, None, 9, None, None]], 3,
        ),
        "test/table/cases": (
            ["case", "subject", "predicted", "pointing", "empty"],
            [["0001", "07", 1.0, 0.5, ""], ["0002", "08", None, 1.0, ""]],
            3,
        ),
        "test/table/lesions": (["case", "class", "lesion", "family"], [["0001", "2", 1.0, "3"]], 3),
    }  # fmt: skip
