"""`metrics.csv` of a training run: one row an epoch, whole after a resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from hrcam_lightning.files import write_csv

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor


class MetricsFile(Callback):
    """Write what was logged, one row an epoch, to ``metrics.csv`` in the run folder.

    A resumed run keeps the rows of the epochs before it. Lightning's CSVLogger starts a new file instead, and deletes
    the old one if it is told to use the same folder.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._before: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the rows of the epochs that a checkpoint resumes from."""
        path = self._path(trainer)
        done = trainer.current_epoch
        self._rows = []
        if done and path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                self._rows = [dict(row) for row in csv.DictReader(file) if int(row.get("epoch") or done) < done]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the figures of earlier epochs, which Lightning keeps."""
        self._before = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row. Runs after validation, so that its figures are there."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # An epoch without validation, or without a loss of the levels, must not show the last one's figures as its own.
        values = {
            name: f"{float(value):.6g}"
            for name, value in sorted(trainer.callback_metrics.items())
            if value is not self._before.get(name)
        }
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "learning_rate": f"{rate:.6g}",
            **values,
        }
        self._rows.append(row)
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        write_csv(self._path(trainer), self._rows, columns)

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "metrics.csv"
