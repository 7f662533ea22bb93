"""Scores of the maps, beside the floors that no map should fall below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from rich.progress import track

from hrcam_lightning.callbacks.curves import OBSERVER, curves_of, draw_curves, write_curves
from hrcam_lightning.callbacks.drawing import save
from hrcam_lightning.callbacks.explainers import MODEL, Explainer, explainers_of
from hrcam_lightning.callbacks.extremes import Ranked, extremes
from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.callbacks.report import (
    Ceilings,
    Results,
    print_table,
    write_cases,
    write_lesions,
    write_maps,
    write_metrics,
)
from hrcam_lightning.callbacks.truth import SeenCase, match_lesions, observer_scores
from hrcam_lightning.callbacks.wandb_tables import log_evaluation
from hrcam_lightning.errors import InputError
from hrcam_lightning.metrics import CaseScores, case_number
from hrcam_lightning.metrics.efficiency import ceiling_estimates, efficiency_estimates
from hrcam_lightning.metrics.predicted import predicted_classes, youden_thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch, Ceiling, LocalizationDataModule
    from hrcam_lightning.data.known import KnownLesions
    from hrcam_lightning.data.module import Split
    from hrcam_lightning.metrics import ScoreTable
    from hrcam_lightning.metrics.estimate import Floats
    from hrcam_lightning.task import LocalizationTask, StepOutput

DEFAULT = ("random", "center")

Points = dict[str, list[float]]
"""Thresholds found on validation cases: ``lesion`` and ``overlap``, one a class; ``box``, one a kind of box score; of
the model also ``class``, the probability from which on each class is called."""


class LocalizationMetrics(Callback):
    """Score the model's maps and those of other explainers by the same code on the same cases.

    Every validation logs the figures and sets the thresholds: those that find the share `recall` of the validation
    lesions, and those of the best overlap and boxes. They are kept in the checkpoint, so that `test` never chooses its
    own. An explainer that the checkpoint has no thresholds for reads the validation cases first. `validate` and `test`
    print a table and write ``metrics.json``, ``maps.json`` (how each map is made, and its thresholds), ``cases.csv``,
    ``lesions.csv``, ``curves.csv`` and ``curves.png`` into the run folder's ``<stage>/``; with a W&B logger the same go
    there.

    Attributes:
        ranked: After `validate` and `test`, in the first process: the model's best, median and worst cases.

    Args:
        recall: Share of validation lesions whose peak reaches the threshold.
        tolerance: Pixels by which the peak may miss the lesion in ``pointing@…px``.
        radius: Pixels that two detections (FROC) are apart at least.
        explainers: What stands beside the model's own map: names of `hrcam_lightning.explain.NAMES`, dotted names of
            functions of yours, or mappings as ``{method: layercam, layers: pyramid, name: fused}``. They explain the
            network on the image as it is.

    Raises:
        InputError: If `recall` is not a share, a distance is out of range, or an explainer is unknown.
    """

    def __init__(
        self,
        recall: float = 0.8,
        tolerance: float = 5.0,
        radius: int = 3,
        explainers: Sequence[str | dict[str, Any]] = DEFAULT,
    ) -> None:
        if not 0 < recall <= 1:
            raise InputError(f"localization.recall is {recall}, but is a share of the lesions, above 0 and up to 1")
        if tolerance < 0 or radius < 1:
            raise InputError(
                f"localization.tolerance is {tolerance} and localization.radius {radius}, but they are pixels, "
                "at least 0 and 1"
            )
        self.recall, self.tolerance, self.radius = recall, tolerance, radius
        self.explainers = explainers_of(explainers)
        self._points: dict[str, Points] = {}
        self._scores: dict[str, CaseScores] = {}
        self._cases: dict[int, SeenCase] = {}
        self._read = 0
        self._known: KnownLesions = {}
        self._ceiling: Ceiling | None = None
        self.ranked: list[Ranked] = []

    def state_dict(self) -> dict[str, Any]:
        """The thresholds of each explainer."""
        return {"points": self._points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back from a checkpoint."""
        self._points = state_dict.get("points", {})  # a checkpoint of 0.1.0 has none

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew; thresholds of the overlap are those of the cases at hand, and known at the end only."""
        self._start(pl_module, {})

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew, with the thresholds of validation cases."""
        kept = torch.tensor(self._points.get(MODEL, {}).get("lesion", []))
        if kept.isfinite().any() and not pl_module.thresholds.isfinite().any():
            self._points.pop(MODEL)  # forgotten by the task, being of maps of another kind
        self._start(pl_module, self._points)

    def _start(self, task: LocalizationTask, points: dict[str, Points]) -> None:
        self._scores = {
            name: self._new_scores(task, points.get(key, {}).get("overlap")) for name, key in self._rows.items()
        }
        self._cases, self._read, self.ranked = {}, 0, []

    @property
    def _rows(self) -> dict[str, str]:
        """What the thresholds of each row of the table are kept under."""
        return {MODEL: MODEL, **{one.name: one.key for one in self.explainers}}

    def _new_scores(self, task: LocalizationTask, thresholds: list[float] | None = None) -> CaseScores:
        return CaseScores(thresholds, self.tolerance, self.radius).to(task.device)

    def _points_of(self, table: ScoreTable) -> Points:
        return {"lesion": table.thresholds(self.recall), **table.operating_points()}

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
        labels = one_hot(batch["label"], output.maps.shape[1])
        probabilities = pl_module.probabilities(output.logits)
        maps = {one.name: one.maps(pl_module.network, batch["image"]) for one in self.explainers}
        maps[MODEL] = output.maps
        for name, scores in self._scores.items():
            scores.update(
                cases, labels, probabilities, maps[name], batch["mask"], batch.get("subject"), batch.get("cue")
            )
        subjects = batch.get("subject") or [""] * len(cases)
        for row, case in enumerate(cases):
            # A distributed sampler deals cases out in turn.
            place = (self._read + row) * trainer.world_size + trainer.global_rank
            self._cases.setdefault(case_number(case), SeenCase(case, batch["affine"][row], place, subjects[row]))
        self._read += len(cases)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Set the thresholds, then log; write files if this is `validate`."""
        if not trainer.sanity_checking:
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Report with the thresholds of the checkpoint."""
        self._report(trainer, pl_module, "test")

    def on_validation_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Read what is known of the cases, for `validate`."""
        self._read_truth(trainer, "val")

    def _read_truth(self, trainer: Trainer, split: Split) -> None:
        """Before hours are spent on what a broken table would end."""
        data = getattr(trainer, "datamodule", None)
        self._known, self._ceiling = {}, None
        writing = trainer.state.fn != "fit" and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if writing and data is not None:
            self._known, self._ceiling = data.known_lesions(split), data.ceiling(split)

    def on_test_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Read what is known of the cases; set the thresholds that the checkpoint does not have."""
        self._read_truth(trainer, "test")
        new = [one for one in self.explainers if one.key not in self._points]
        data = getattr(trainer, "datamodule", None)
        if new and data is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._points |= self._on_validation_cases(new, trainer, pl_module, data)

    def _on_validation_cases(
        self, explainers: list[Explainer], trainer: Trainer, task: LocalizationTask, data: LocalizationDataModule
    ) -> dict[str, Points]:
        try:
            loader = data.in_order("val")
        except InputError:  # there are none, and the table will say so
            return {}
        scores = {one.key: self._new_scores(task) for one in explainers}
        # Every process reads all of them: there are few, and all then have the same thresholds.
        for batch in track(loader, "Thresholds of the explainers", transient=True, disable=not trainer.is_global_zero):
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), task.device)
            for one in explainers:
                maps = one.maps(task.network, batch["image"])
                labels = one_hot(batch["label"], maps.shape[1])
                scores[one.key].update(batch["case"], labels, labels, maps, batch["mask"])
        return {key: self._points_of(some.compute()) for key, some in scores.items()}

    def _report(self, trainer: Trainer, task: LocalizationTask, stage: str) -> None:
        assert task.task is not None
        assert task.classes is not None
        fitting = trainer.state.fn == "fit"
        resamples = 0 if fitting else 1000  # no interval is shown while training
        tables = {name: scores.compute() for name, scores in self._scores.items()}
        model = tables[MODEL]
        if stage == "val":
            self._points = {key: self._points_of(tables[name]) for name, key in self._rows.items()}
            self._points[MODEL]["class"] = youden_thresholds(model.probability, model.label)
            task.thresholds.copy_(torch.tensor(self._points[MODEL]["lesion"]))
        thresholds = {name: self._points[key]["lesion"] for name, key in self._rows.items() if key in self._points}
        thresholds[MODEL] = task.thresholds.tolist()
        normal = task.classes.index("normal") if task.task == "multiclass" and "normal" in task.classes else None
        points = self._points if stage == "test" else {}  # on the cases that set them they are an oracle's
        called = predicted_classes(model.probability, task.task, points.get(MODEL, {}).get("class"))
        results = {
            name: tables[name].localization(thresholds.get(name), normal, resamples, points.get(key), called)
            for name, key in self._rows.items()
        }
        results[MODEL] = {**model.classification(task.task, resamples), **results[MODEL]}
        # Every process has the same figures by now; the floors' do not change while training.
        figures = {f"{stage}/{name}": estimate.value for name, estimate in results[MODEL].items()}
        task.log_dict(figures, sync_dist=True)
        parts = gather(self._cases)
        if fitting or not trainer.is_global_zero:
            return
        # Of a case that was dealt out twice the first place is its own.
        seen = sorted((item for part in parts for item in part.items()), key=lambda item: -item[1].place)
        self._write(trainer, task, stage, tables, results, thresholds, points, dict(seen), called)

    def _write(
        self,
        trainer: Trainer,
        task: LocalizationTask,
        stage: str,
        tables: dict[str, ScoreTable],
        results: Results,
        thresholds: dict[str, list[float]],
        points: dict[str, Points],
        cases: dict[int, SeenCase],
        called: Floats,
    ) -> None:
        """Write the files of `validate` or `test`, in the first process, and print the table."""
        assert task.classes is not None
        model, floors = tables[MODEL], [one.name for one in self.explainers if one.floor]
        observer = observer_scores(model, cases, self._ceiling, task.classes)
        ceiling = None
        if observer is not None and self._ceiling is not None:
            auroc = task.task != "multiclass"
            ceiling = Ceilings(
                self._ceiling.kind,
                ceiling_estimates(model, observer, auroc=auroc),
                efficiency_estimates(model, observer, auroc=auroc),
            )
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(trainer.default_root_dir) / stage
            names = {number: case.name for number, case in cases.items()}
            differences = {name: model.differences(table) for name, table in tables.items() if name != MODEL}
            figures = write_metrics(folder / "metrics.json", results, stage, differences, ceiling)
            used = {
                name: {**points.get(key, {}), "lesion": thresholds.get(name, [])} for name, key in self._rows.items()
            }
            write_maps(folder / "maps.json", self.explainers, used)
            subjects = {number: case.subject for number, case in cases.items()}
            write_cases(folder / "cases.csv", tables, task.classes, names, called, subjects)
            lesions = match_lesions(model, cases, self._known, task.classes)
            write_lesions(folder / "lesions.csv", tables, task.classes, names, thresholds, lesions)
            curves = curves_of(tables, thresholds, lesions, observer)
            write_curves(folder / "curves.csv", curves)
            areas = {name: estimates["lroc"].value for name, estimates in results.items()}
            areas |= {OBSERVER: ceiling.scores["lroc"].value} if ceiling else {}
            sheet = save(folder / "curves.png", draw_curves(curves, floors, areas)) if curves else None
            if not curves:
                (folder / "curves.png").unlink(missing_ok=True)  # of an earlier evaluation
            log_evaluation(trainer, stage, folder, figures, sheet)
            self.ranked = extremes(model, cases)
        print_table(results, stage, floors, ceiling)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels of any kind of task as (B, K)."""
    if labels.ndim == 2:
        return labels
    return labels[:, None] if classes == 1 else F.one_hot(labels, classes)
