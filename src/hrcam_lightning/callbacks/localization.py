"""Scores of the maps, beside the floors that no map should fall below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import center_maps, random_maps
from hrcam_lightning.files import write_csv, write_json
from hrcam_lightning.metrics import CaseScores, Estimate, ScoreTable, case_number

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
        self._scores = {name: CaseScores().to(pl_module.device) for name in ("model", *FLOORS)}
        self._names = {}

    on_test_epoch_start = on_validation_epoch_start

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
        labels = _one_hot(batch["label"], classes)
        probabilities = pl_module.probabilities(output.logits)
        maps = {
            "model": output.maps,
            "random": random_maps(cases, classes, size),
            "center": center_maps(len(cases), classes, size),
        }
        for name, scores in self._scores.items():
            scores.update(cases, labels, probabilities, maps[name].to(pl_module.device), batch["mask"])
        self._names |= {case_number(case): case for case in cases}

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Set the thresholds, then log; write files if this is `validate`."""
        if trainer.sanity_checking:
            return
        tables = {name: scores.compute() for name, scores in self._scores.items()}
        pl_module.thresholds.copy_(torch.tensor(tables["model"].thresholds(self.recall)))
        self._floor_thresholds = {name: tables[name].thresholds(self.recall) for name in FLOORS}
        self._report(trainer, pl_module, "val", tables)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Report with the thresholds of the checkpoint."""
        self._report(trainer, pl_module, "test", {name: scores.compute() for name, scores in self._scores.items()})

    def _report(self, trainer: Trainer, task: LocalizationTask, stage: str, tables: dict[str, ScoreTable]) -> None:
        assert task.task is not None
        assert task.classes is not None
        thresholds = {"model": task.thresholds.tolist(), **self._floor_thresholds}
        results = {name: table.localization(thresholds.get(name)) for name, table in tables.items()}
        results["model"] = {**tables["model"].classification(task.task), **results["model"]}
        flat = {
            f"{stage}/{metric}" if name == "model" else f"{stage}/{name}/{metric}": estimate
            for name, estimates in results.items()
            for metric, estimate in estimates.items()
        }
        fitting = trainer.state.fn == "fit"
        # Every process has computed the same table. The floors do not change while training.
        task.log_dict({f"{stage}/{name}": estimate.value for name, estimate in results["model"].items()})
        names = _gather(self._names)
        if fitting or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / stage
        write_json(folder / "metrics.json", {name: estimate.to_dict() for name, estimate in flat.items()})
        columns, rows = _case_rows(tables, task.classes, names)
        write_csv(folder / "cases.csv", rows, columns)
        print_table(results, stage)


def print_table(results: dict[str, dict[str, Estimate]], title: str) -> None:
    """Print explainers by metrics, each figure above its interval, and the reasons of what is undefined."""
    metrics = results["model"]
    table = Table(
        title=title,
        title_justify="left",
        caption="[95 % bootstrap interval over cases]",
        caption_justify="left",
    )
    table.add_column("map")
    for metric, estimate in metrics.items():
        header = metric.replace("/", "/\n")
        table.add_column(f"{header}\nn = {estimate.n}", justify="right", vertical="bottom")
    for name, estimates in results.items():
        label = name if name == "model" else f"{name}\n(floor)"
        table.add_row(label, *(_cell(estimates.get(metric)) for metric in metrics))
    console = Console()
    console.print(table)
    for metric, estimate in metrics.items():
        if estimate.reason:
            console.print(f"{metric}: undefined, {estimate.reason}", highlight=False, markup=False)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.reason:
        return "undefined"
    return f"{estimate.value:.3f}\n[dim]\\[{estimate.low:.3f}, {estimate.high:.3f}][/dim]"


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    if labels.ndim == 2:
        return labels
    return labels[:, None] if classes == 1 else F.one_hot(labels, classes)


def _case_rows(
    tables: dict[str, ScoreTable], classes: list[str], names: dict[int, str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Rows a case, sorted by name; with several classes the columns carry the class."""
    shown = {
        "label": "label",
        "probability": "probability",
        "peak": "peak",
        "pointing": "pointing",
        "pixel_ap": "pixel_ap",
    }
    columns = ["case"]
    rows: dict[int, dict[str, Any]] = {number: {"case": name} for number, name in names.items()}
    for explainer, table in tables.items():
        for k, class_name in enumerate(classes):
            for attribute in shown:
                if explainer != "model" and attribute not in ("pointing", "pixel_ap"):
                    continue
                column = "/".join(
                    [
                        *([explainer] if explainer != "model" else []),
                        attribute,
                        *([class_name] if len(classes) > 1 else []),
                    ]
                )
                columns.append(column)
                for number, value in zip(table.case, getattr(table, attribute)[:, k], strict=True):
                    rows[int(number)][column] = _plain(float(value))
    return columns, sorted(rows.values(), key=lambda row: row["case"])


def _plain(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _gather(names: dict[int, str]) -> dict[int, str]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return names
    parts: list[dict[int, str]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, names)
    return {number: name for part in parts for number, name in part.items()}
