"""Faithfulness of the maps at test: does the network look at what they show?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from rich.progress import track

from hrcam_lightning.callbacks import faithfulness_report as report
from hrcam_lightning.callbacks.explainers import MODEL, Explainer, explainers_of
from hrcam_lightning.callbacks.localization import DEFAULT
from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import explain
from hrcam_lightning.explain.faithfulness import deletion, drop_and_increase, insertion
from hrcam_lightning.explain.judging import Fill, filled
from hrcam_lightning.explain.road import road
from hrcam_lightning.explain.sanity import sanity_check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch, LocalizationDataModule
    from hrcam_lightning.explain.target import Score
    from hrcam_lightning.task import LocalizationTask


class FaithfulnessMetrics(Callback):
    """At `test`, judge maps by what the network says of images without the pixels that they show.

    For the first `cases` positive test cases and each class that a case has: areas under insertion and deletion, drop,
    increase and ROAD, of the class's probability, see `hrcam_lightning.explain.faithfulness`. Prints a table and writes
    ``test/faithfulness.json`` and ``test/faithfulness.csv``; with `sanity` also ``test/sanity.csv`` and
    ``test/sanity.png``. It is the network on the image as it is that is asked; the map of the row ``model`` is the one
    that `test` scores, averaged over flips where the model does so (not in the sanity check).

    Positive is a case with a finding; of several exclusive classes every one but ``normal``. Several processes share
    the cases among them.

    Args:
        explainers: What stands beside the model's own map, as `LocalizationMetrics` takes it.
        cases: How many cases at most: perturbed images cost about 100 forward passes a case and explainer.
        steps: Of the curves of insertion and deletion.
        fill: What stands for a pixel that is not there in them: ``blur``, or a constant. ROAD imputes.
        sanity: Randomize the network from its output backwards as well: an explanation a layer, case and explainer.
        chunk: Images in one pass: bounds the memory.

    Raises:
        InputError: If an argument is out of range, or an explainer is unknown.
    """

    def __init__(
        self,
        explainers: Sequence[str | dict[str, Any]] = DEFAULT,
        cases: int = 64,
        steps: int = 32,
        fill: Fill = "blur",
        sanity: bool = False,
        chunk: int = 64,
    ) -> None:
        for name, value in {"cases": cases, "steps": steps, "chunk": chunk}.items():
            if value < 1:
                raise InputError(f"FaithfulnessMetrics: {name} is {value}, but must be at least 1")
        filled(torch.zeros(1, 1, 1, 1), fill, 1.0)  # refuses what is unknown now, and not after the test
        self.explainers = [Explainer(MODEL), *explainers_of(explainers)]
        self.cases, self.steps, self.fill, self.sanity, self.chunk = cases, steps, fill, sanity, chunk

    def on_test_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """See that there is something to read the cases from."""
        if getattr(trainer, "datamodule", None) is None:
            raise InputError("FaithfulnessMetrics reads test cases in their order: test with a data module")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Judge the maps and report."""
        assert pl_module.classes is not None
        cases = 1 if trainer.fast_dev_run else self.cases  # type: ignore[attr-defined]
        scores: list[report.Row] = []
        stages: list[report.Row] = []
        data: LocalizationDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for names, images, maps, target in self._questions(trainer, pl_module, data, cases):
            for one, own in zip(self.explainers, maps, strict=True):
                scores += _rows(names, one.name, self._scores(pl_module, images, own, target))
                if self.sanity:
                    stages += self._stages(pl_module, names, images, target, one)
        scores, stages = ([row for part in gather(rows) for row in part] for rows in (scores, stages))
        if trainer.is_global_zero:
            folder = None if trainer.fast_dev_run else Path(trainer.default_root_dir) / "test"  # type: ignore[attr-defined]
            floors = [one.name for one in self.explainers if one.floor]
            settings = {"cases": cases, "steps": self.steps, "fill": self.fill}
            report.report(folder, scores, [one.name for one in self.explainers], floors, settings)
            if stages and folder is not None:
                report.report_sanity(folder, stages)

    def _questions(
        self, trainer: Trainer, task: LocalizationTask, data: LocalizationDataModule, cases: int
    ) -> Iterator[tuple[list[report.Row], Tensor, list[Tensor], Tensor]]:
        """Rows, images (n, C, *S), maps (n, 1, *S) by explainer and classes (n,) of this process's positive cases."""
        assert task.classes is not None
        seen = 0
        for batch in track(data.in_order("test"), "Faithfulness", transient=True, disable=not trainer.is_global_zero):
            findings = _findings(batch, task)
            positive = findings.any(1).nonzero().flatten()[: cases - seen]
            places = range(seen, seen + len(positive))
            seen += len(positive)
            own = {int(n): place for place, n in zip(places, positive, strict=True)}
            own = {n: place for n, place in own.items() if place % trainer.world_size == trainer.global_rank}
            pairs = [(n, k) for n in own for k in findings[n].nonzero().flatten().tolist()]
            if pairs:
                rows: list[report.Row] = [
                    {"place": own[n], "case": batch["case"][n], "class": task.classes[k]} for n, k in pairs
                ]
                samples, columns = torch.tensor(pairs).T
                images = batch["image"][samples].to(task.device)
                target = columns.to(task.device) if len(task.classes) > 1 else torch.ones_like(columns).to(task.device)
                maps = [self._maps(one, task, images, target, columns) for one in self.explainers]
                yield rows, images, maps, target
            if seen == cases:
                return

    def _maps(
        self, explainer: Explainer, task: LocalizationTask, images: Tensor, target: Tensor, columns: Tensor
    ) -> Tensor:
        if explainer.method == MODEL:
            with torch.no_grad():
                return task(images).maps[torch.arange(len(images)), columns][:, None]  # type: ignore[no-any-return]
        return explain(task.network, images, explainer.method, **{**explainer.settings, "target": target})

    def _scores(self, task: LocalizationTask, images: Tensor, maps: Tensor, target: Tensor) -> dict[str, Tensor]:
        score: Score = "softmax" if task.task == "multiclass" else "sigmoid"
        asked = (task.network, images, maps, target)
        masked = drop_and_increase(*asked, score=score, chunk=self.chunk)
        curves = {
            name: judge(*asked, steps=self.steps, fill=self.fill, score=score, chunk=self.chunk).area
            for name, judge in (("insertion", insertion), ("deletion", deletion))
        }
        removed = road(*asked, score=score, chunk=self.chunk).difference
        return {**curves, "drop": masked.drop, "increase": masked.increase, "road": removed}

    def _stages(
        self, task: LocalizationTask, names: list[report.Row], images: Tensor, target: Tensor, explainer: Explainer
    ) -> list[report.Row]:
        settings = {**explainer.settings, "target": target}
        rows: list[report.Row] = []
        for number, stage in enumerate(sanity_check(task.network, images, explainer.method, **settings), 1):
            values = _rows(names, explainer.name, {"spearman": stage.spearman, "ssim": stage.ssim})
            rows += [{**row, "stage": number, "layer": stage.layer} for row in values]
        return rows


def _findings(batch: Batch, task: LocalizationTask) -> Tensor:
    """Which classes a case has that are worth a map, (B, K) bool, on the CPU."""
    assert task.classes is not None
    labels = batch["label"].cpu()
    if labels.ndim == 1:
        labels = F.one_hot(labels, len(task.classes)) if len(task.classes) > 1 else labels[:, None]
    findings = labels > 0
    if task.task == "multiclass" and "normal" in task.classes:
        findings[:, task.classes.index("normal")] = False
    return findings


def _rows(names: list[report.Row], explainer: str, values: dict[str, Tensor]) -> list[report.Row]:
    figures = {name: some.tolist() for name, some in values.items()}
    return [
        {**row, "explainer": explainer, **{name: some[n] for name, some in figures.items()}}
        for n, row in enumerate(names)
    ]
