"""Scores of the maps, beside the floors that no map should fall below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.callbacks.report import MODEL, print_table, write_cases, write_metrics
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import center_maps, random_maps
from hrcam_lightning.metrics import CaseScores, case_number

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch
    from hrcam_lightning.task import LocalizationTask, StepOutput

FLOORS = ("random", "center")


class LocalizationMetrics(Callback):
    """Score the model's maps and the null explainers' by the same code on the same cases.

    Every validation logs the figures and sets the thresholds that find the share `recall` of the validation lesions;
    they are kept in the checkpoint, so that `test` never chooses its own. `validate` and `test` print a table and
    write ``<stage>/metrics.json`` and ``<stage>/cases.csv`` into the run folder.

    Args:
        recall: Share of validation lesions whose peak reaches the threshold.

    Raises:
        InputError: If `recall` is not a share.
    """

    def __init__(self, recall: float = 0.8) -> None:
        if not 0 < recall <= 1:
            raise InputError(f"localization.recall is {recall}, but is a share of the lesions, above 0 and up to 1")
        self.recall = recall
        self._floor_thresholds: dict[str, list[float]] = {}
        self._scores: dict[str, CaseScores] = {}
        self._names: dict[int, str] = {}

    def state_dict(self) -> dict[str, Any]:
        """The floors' thresholds; the model's own are a buffer of the task."""
        return {"floor_thresholds": self._floor_thresholds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back from a checkpoint."""
        self._floor_thresholds = state_dict["floor_thresholds"]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew."""
        self._scores = {name: CaseScores().to(pl_module.device) for name in (MODEL, *FLOORS)}
        self._names = {}

    on_test_epoch_start = on_validation_epoch_start  # type: ignore[assignment]

    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LocalizationTask,
        outputs: StepOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score a batch."""
        output, cases = outputs["output"], batch["case"]
        classes, size = output.maps.shape[1], output.maps.shape[2:]
        labels = one_hot(batch["label"], classes)
        probabilities = pl_module.probabilities(output.logits)
        maps = {
            MODEL: output.maps,
            "random": random_maps(cases, classes, size),
            "center": center_maps(len(cases), classes, size),
        }
        for name, scores in self._scores.items():
            scores.update(cases, labels, probabilities, maps[name].to(pl_module.device), batch["mask"])
        self._names |= {case_number(case): case for case in cases}

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Set the thresholds, then log; write files if this is `validate`."""
        if not trainer.sanity_checking:
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Report with the thresholds of the checkpoint."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: Trainer, task: LocalizationTask, stage: str) -> None:
        assert task.task is not None
        assert task.classes is not None
        fitting = trainer.state.fn == "fit"
        resamples = 0 if fitting else 1000  # no interval is shown while training
        tables = {name: scores.compute() for name, scores in self._scores.items()}
        if stage == "val":
            task.thresholds.copy_(torch.tensor(tables[MODEL].thresholds(self.recall)))
            self._floor_thresholds = {name: tables[name].thresholds(self.recall) for name in FLOORS}
        thresholds = {MODEL: task.thresholds.tolist(), **self._floor_thresholds}
        normal = task.classes.index("normal") if task.task == "multiclass" and "normal" in task.classes else None
        results = {name: table.localization(thresholds.get(name), normal, resamples) for name, table in tables.items()}
        results[MODEL] = {**tables[MODEL].classification(task.task, resamples), **results[MODEL]}
        # Every process has the same figures by now; the floors' do not change while training.
        figures = {f"{stage}/{name}": estimate.value for name, estimate in results[MODEL].items()}
        task.log_dict(figures, sync_dist=True)
        names = {number: name for part in gather(self._names) for number, name in part.items()}
        if fitting or not trainer.is_global_zero:
            return
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(trainer.default_root_dir) / stage
            write_metrics(folder / "metrics.json", results, stage)
            write_cases(folder / "cases.csv", tables, task.classes, names)
        print_table(results, stage)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels of any kind of task as (B, K)."""
    if labels.ndim == 2:
        return labels
    return labels[:, None] if classes == 1 else F.one_hot(labels, classes)
