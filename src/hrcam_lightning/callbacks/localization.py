"""Scores of the maps, beside the floors that no map should fall below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from rich.progress import track

from hrcam_lightning.callbacks.explainers import MODEL, Explainer, explainers_of
from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.callbacks.report import print_table, write_cases, write_metrics
from hrcam_lightning.errors import InputError
from hrcam_lightning.metrics import CaseScores, case_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch, LocalizationDataModule
    from hrcam_lightning.task import LocalizationTask, StepOutput

DEFAULT = ("random", "center")


class LocalizationMetrics(Callback):
    """Score the model's maps and those of other explainers by the same code on the same cases.

    Every validation logs the figures and sets the thresholds that find the share `recall` of the validation lesions;
    they are kept in the checkpoint, so that `test` never chooses its own. An explainer that the checkpoint has no
    threshold for reads the validation cases first. `validate` and `test` print a table and write
    ``<stage>/metrics.json`` and ``<stage>/cases.csv`` into the run folder.

    Args:
        recall: Share of validation lesions whose peak reaches the threshold.
        explainers: What stands beside the model's own map: names of `hrcam_lightning.explain.NAMES`, or mappings as
            ``{method: layercam, layers: pyramid, name: fused}``. They explain the network on the image as it is.

    Raises:
        InputError: If `recall` is not a share, or an explainer is unknown.
    """

    def __init__(self, recall: float = 0.8, explainers: Sequence[str | dict[str, Any]] = DEFAULT) -> None:
        if not 0 < recall <= 1:
            raise InputError(f"localization.recall is {recall}, but is a share of the lesions, above 0 and up to 1")
        self.recall = recall
        self.explainers = explainers_of(explainers)
        self._thresholds: dict[str, list[float]] = {}
        self._scores: dict[str, CaseScores] = {}
        self._names: dict[int, str] = {}

    def state_dict(self) -> dict[str, Any]:
        """The explainers' thresholds; the model's own are a buffer of the task."""
        return {"thresholds": self._thresholds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back from a checkpoint."""
        self._thresholds = state_dict.get("thresholds", {})  # of an earlier version: none

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew."""
        self._scores = {
            name: CaseScores().to(pl_module.device) for name in (MODEL, *(one.name for one in self.explainers))
        }
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
        labels = _one_hot(batch["label"], output.maps.shape[1])
        probabilities = pl_module.probabilities(output.logits)
        maps = {one.name: one.maps(pl_module.network, batch["image"]) for one in self.explainers}
        maps[MODEL] = output.maps
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

    def on_test_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Set the thresholds that the checkpoint does not have, on validation cases."""
        new = [one for one in self.explainers if one.key not in self._thresholds]
        data = getattr(trainer, "datamodule", None)
        if new and data is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._thresholds |= self._on_validation_cases(new, trainer, pl_module, data)

    def _on_validation_cases(
        self, explainers: list[Explainer], trainer: Trainer, task: LocalizationTask, data: LocalizationDataModule
    ) -> dict[str, list[float]]:
        try:
            loader, device = data.in_order("val"), task.device
        except InputError:  # there are none, and the table will say so
            return {}
        scores = {one.key: CaseScores().to(device) for one in explainers}
        # Every process reads all of them: there are few, and all then have the same thresholds.
        for batch in track(loader, "Thresholds of the explainers", transient=True, disable=not trainer.is_global_zero):
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), device)
            for one in explainers:
                maps = one.maps(task.network, batch["image"]).to(device)
                labels = _one_hot(batch["label"], maps.shape[1])
                scores[one.key].update(batch["case"], labels, labels, maps, batch["mask"])
        return {key: some.compute().thresholds(self.recall) for key, some in scores.items()}

    def _report(self, trainer: Trainer, task: LocalizationTask, stage: str) -> None:
        assert task.task is not None
        assert task.classes is not None
        fitting = trainer.state.fn == "fit"
        resamples = 0 if fitting else 1000  # no interval is shown while training
        tables = {name: scores.compute() for name, scores in self._scores.items()}
        if stage == "val":
            task.thresholds.copy_(torch.tensor(tables[MODEL].thresholds(self.recall)))
            self._thresholds = {one.key: tables[one.name].thresholds(self.recall) for one in self.explainers}
        known = {one.name: self._thresholds[one.key] for one in self.explainers if one.key in self._thresholds}
        thresholds = {MODEL: task.thresholds.tolist(), **known}
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
        print_table(results, stage, [one.name for one in self.explainers if one.floor])


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    if labels.ndim == 2:
        return labels
    return labels[:, None] if classes == 1 else F.one_hot(labels, classes)
