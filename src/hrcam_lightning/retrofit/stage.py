"""The second stage as a callback: the head is fitted before the first batch is validated."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import track

from hrcam_lightning.errors import InputError
from hrcam_lightning.retrofit.choice import RIDGES, STRENGTHS, candidates, choose
from hrcam_lightning.retrofit.equivariance import Equivariance, Sampling
from hrcam_lightning.retrofit.features import Reading, on_disk
from hrcam_lightning.retrofit.gather import Gathered, aim, gather
from hrcam_lightning.retrofit.head import head_of, install, neighbours_of, taps_of
from hrcam_lightning.retrofit.report import Report, agreement, show
from hrcam_lightning.retrofit.solver import Problem
from hrcam_lightning.transfer import load_matching

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch
    from hrcam_lightning.geometry import Resampling
    from hrcam_lightning.model import LocalizationModel
    from hrcam_lightning.task import LocalizationTask

REASONS = "quiet needs cases without a finding, rotation two equal axes"


class RetrofitStage(Callback):
    """Read a frozen network, fit a linear head to what was read, and put the head in the place of the task's own.

    It runs where validation starts: by then the network is built, checked against the data, loaded and on its device,
    and the validation that follows scores the new maps and sets their thresholds, as after training.

    Args:
        levels: Levels to read.
        equivariance: λ, or ``auto``.
        l2: Strength of the ridge penalty, or ``auto``.
        neighbours: Levels of which neighbours are read; see `neighbours_of` if not given.
        resampling: Where cells are taken to lie. If not given, ``half_pixel`` without λ, which is published, and
            ``receptive_field`` with it: what is held to a place should be shown there.
        sampling: Views and pixels.
        trained: Whether the task is of a checkpoint, so that its own head may be compared.
        weights: File with the weights of the backbone, if they are still to be loaded.

    Attributes:
        report: What it has to say of itself, once it has run.
    """

    def __init__(
        self,
        levels: Sequence[int] | None,
        neighbours: Sequence[int] | None,
        equivariance: float | Literal["auto"],
        l2: float | Literal["auto"],
        resampling: Resampling | None,
        sampling: Sampling,
        trained: bool,
        weights: str | None = None,
    ) -> None:
        for name, value in {"equivariance": equivariance, "l2": l2}.items():
            if value != "auto" and not value >= 0:
                raise InputError(f"{name} is {value}, but a strength must not be negative")
        self.levels, self.neighbours = levels, neighbours
        self.resampling, self.sampling, self.trained = resampling, sampling, trained
        self.strengths = STRENGTHS if equivariance == "auto" else (float(equivariance),)
        self.ridges = RIDGES if l2 == "auto" else (float(l2),)
        self.weights = weights
        self.report: Report | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Do all of it. Tensors made here are kept, so that they must not be those of inference mode."""
        with torch.inference_mode(mode=False), ExitStack() as files:
            self._run(trainer, pl_module, files)

    def _run(self, trainer: Trainer, task: LocalizationTask, files: ExitStack) -> None:
        assert task.task is not None
        assert task.classes is not None
        started = time.monotonic()
        base = task.network
        if self.weights is not None:
            rank_zero_info(load_matching(base, Path(self.weights), whole="backbone"))
        elif not (self.trained or task.weights or base.backbone.brings_weights):
            raise InputError(
                "retrofit needs a trained network: give --ckpt_path, --model.weights, or a --model.backbone that "
                "brings its own weights"
            )
        taps = taps_of(base.backbone.levels, self.levels)
        held = any(self.strengths)
        resampling = self.resampling or ("receptive_field" if held else "half_pixel")
        beside = neighbours_of(base.backbone.levels, taps, self.neighbours, held=held)
        reading = Reading(base, taps, resampling, beside, trainer.precision_plugin.forward_context)
        views = Equivariance(reading, self.sampling) if held else None
        training = _pass(trainer, task, reading, files, "train", views)
        gathered = time.monotonic() - started
        validation = _pass(trainer, task, reading, files, "val")
        problem = Problem.of(
            training.pooled, task.task, task.classes, views.matrices() if views else None, reading.owners
        )
        if views and not problem.penalty.any():
            raise InputError(
                f"views [{', '.join(self.sampling.kinds)}] hold a map to nothing in these cases ({REASONS}): "
                "name others, or set --equivariance 0"
            )
        aimed = views.sampling.aims(_found(task, training)) if views else []
        if views and aimed:
            middle = sorted(self.ridges)[len(self.ridges) // 2]  # the first head only has to point
            first = problem.solve(middle, max(self.strengths))
            _aim(trainer, task, head_of(reading, *problem.folded(first)), views, aimed)
            problem = problem.held(views.matrices(), reading.owners)
        found = candidates(problem, validation.pooled, self.strengths, self.ridges)
        chosen = choose(found)
        install(task, reading, head_of(reading, *problem.folded(chosen.solution)))
        head = problem.logits(chosen.solution, validation.pooled)
        match = agreement(validation.logits, head, validation.pooled.labels, task.task)
        if not self.trained:  # a head at its random start says nothing
            match = {name: value for name, value in match.items() if name.startswith("head/")}
        content = {
            "equivariance": chosen.equivariance,
            "l2": chosen.l2,
            "levels": taps,
            "neighbours": beside,
            "resampling": resampling,
            "train_cases": len(training.pooled.values),
            "val_cases": len(validation.pooled.values),
            "val": match,
            "views": self._stated(len(training.pooled.values), len(aimed), views.seen) if views else None,
            "seconds": {"train_pass": round(gathered, 2), "all": round(time.monotonic() - started, 2)},
        }
        show(found, chosen, task.task, match)
        unseen = [kind for kind in self.sampling.kinds if kind not in views.seen] if views else []
        if unseen:
            Console().print(f"Views that no training case could give: {', '.join(unseen)} ({REASONS})", highlight=False)
        self.report = Report(found, content, task.task)

    def _stated(self, cases: int, aimed: int, seen: Collection[str]) -> dict[str, Any]:
        rule = self.sampling
        return {
            "kinds": [kind for kind in rule.kinds if kind in seen],
            "cases": min(rule.cases, cases),
            "aimed_cases": aimed,
            "draws_per_case_and_sort": rule.draws,
            "pixels_per_draw": rule.pixels,
            "patch_sides": list(rule.sides),
            "seed": rule.seed,
        }


def _pass(
    trainer: Trainer,
    task: LocalizationTask,
    reading: Reading,
    files: ExitStack,
    split: Literal["train", "val"],
    equivariance: Equivariance | None = None,
) -> Gathered:
    """Stream a split, as much of it as ``trainer.limit_<split>_batches`` allows."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    loader = data.in_order(split)
    limit = trainer.limit_train_batches if split == "train" else trainer.limit_val_batches
    batches = min(limit, len(loader)) if isinstance(limit, int) else int(limit * len(loader))
    if not batches:
        raise InputError(f"no batch of the {split} cases is read: raise --trainer.limit_{split}_batches")
    cases = min(len(loader.dataset), batches * data.batch_size)
    values = files.enter_context(on_disk(Path(trainer.default_root_dir), cases, reading.channels))
    shown = _shown(trainer, islice(loader, batches), batches, f"Reading {split}")
    return gather(shown, reading, values, equivariance, _normal(task), partial(_moved, trainer))


def _aim(
    trainer: Trainer, task: LocalizationTask, head: LocalizationModel, views: Equivariance, numbers: list[int]
) -> None:
    """Stream the training cases of these numbers."""
    loader = trainer.datamodule.in_order("train", numbers)  # type: ignore[attr-defined]
    shown = _shown(trainer, loader, len(loader), "Aiming")

    def findings(label: Tensor) -> list[int]:
        return [int(label)] if task.task == "multiclass" else label.flatten().nonzero().flatten().tolist()

    aim(shown, numbers, head, views, findings, partial(_moved, trainer))


def _shown(trainer: Trainer, batches: Iterable[Batch], total: int, words: str) -> Iterable[Batch]:
    return track(batches, description=words, total=total, disable=trainer.progress_bar_callback is None)


def _moved(trainer: Trainer, batch: Batch) -> Batch:
    moved: Batch = trainer.precision_plugin.convert_input(trainer.strategy.batch_to_device(batch))
    return moved


def _found(task: LocalizationTask, training: Gathered) -> list[bool]:
    """Which training cases have a finding."""
    normal = _normal(task)
    return [not normal(torch.from_numpy(np.asarray(label))) for label in training.pooled.labels]


def _normal(task: LocalizationTask) -> Callable[[Tensor], bool]:
    """Which labels mean "no finding"."""
    if task.task != "multiclass":
        return lambda label: not label.any()
    number = task.classes.index("normal") if task.classes and "normal" in task.classes else -1
    return lambda label: int(label) == number
