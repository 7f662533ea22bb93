"""One training of many: a fresh network, the same budget, other images; and what a trained network says of cases."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from hrcam_lightning.callbacks.explainers import MODEL, Explainer
from hrcam_lightning.data import LocalizationDataModule
from hrcam_lightning.data.sampling import BalancedSampler, EpochSampler, groups_of
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.null import seeded
from hrcam_lightning.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lightning.pytorch import LightningModule
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

    from hrcam_lightning.data import Layout
    from hrcam_lightning.data.module import Images, Sample, Split
    from hrcam_lightning.metrics.estimate import Floats
    from hrcam_lightning.model import LocalizationOutput
    from hrcam_lightning.task import LocalizationTask

# What a training does not depend on: where its files are, what is shown of it, and other loops.
_IDLE = (
    "default_root_dir", "callbacks", "logger", "log_every_n_steps", "profiler", "enable_progress_bar",
    "enable_model_summary", "enable_checkpointing", "num_sanity_val_steps", "limit_test_batches",
    "limit_predict_batches", "accelerator", "devices", "fast_dev_run",
)  # fmt: skip


class StudyData(LocalizationDataModule):
    """Splits as they are given, for one training.

    Args:
        source: The data module whose cases they are.
        splits: The cases of each.
    """

    def __init__(self, source: LocalizationDataModule, splits: Mapping[str, Dataset[Sample]]) -> None:
        super().__init__(source.batch_size, source.num_workers, augmentation=source.augmentation)
        self.source, self.splits = source, splits

    @property
    def layout(self) -> Layout:
        """That of the source."""
        return self.source.layout

    @property
    def data_hash(self) -> str:
        """That of the source."""
        return self.source.data_hash

    def dataset(self, split: Split | Literal["predict"]) -> Dataset[Sample]:
        """The cases of a split."""
        return self.splits[split]

    def training_order(self) -> EpochSampler | BalancedSampler:
        """Every training case once an epoch, or each class equally often where the source does so."""
        if getattr(self.source, "sampling", "natural") == "balanced":
            return BalancedSampler(groups_of(self.training_labels().tolist()), self._epoch)
        return EpochSampler(len(self.splits["train"]), self._epoch)  # type: ignore[arg-type]  # all have a length

    def training_images(self) -> Images:
        """The source's: images come scaled from there."""
        return self.source.training_images()

    def training_labels(self) -> Tensor:
        """Labels of the training cases."""
        cases = self.splits["train"]
        return torch.tensor([int(cases[index]["label"]) for index in range(len(cases))])  # type: ignore[arg-type]


class _Steps(Callback):
    """Say after each step how much of the training is done."""

    def __init__(self, show: Callable[[float], None]) -> None:
        self.show = show

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:  # noqa: ANN401
        """Show it."""
        self.show(trainer.global_step / max(1, trainer.estimated_stepping_batches))


def train(
    task: LocalizationTask,
    data: StudyData,
    settings: Mapping[str, Any],
    folder: Path,
    seed: int,
    show: Callable[[float], None],
) -> LocalizationTask:
    """Train a copy of a task from the start, to the end of its budget: no case chooses among its epochs.

    Network, order of cases and views follow from the seed alone; torch's random state is afterwards as it was.

    Args:
        task: The task; its own network, if it has one, is not looked at.
        data: The cases.
        settings: Arguments of the trainer. Its callbacks are left out: one that stops early would make budgets unequal.
        folder: Where lightning may write.
        seed: Of the training.
        show: Told after each step what share is done.
    """
    fresh = copy.deepcopy(task)
    fresh.model = None
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    if isinstance(task.lr_scheduler, str):  # no schedule by name looks at validation cases
        quiet["limit_val_batches"] = 0
    with _hushed(), seeded(seed):
        trainer = Trainer(
            **{
                **settings,
                **quiet,
                "default_root_dir": folder,
                "callbacks": [_Steps(show)],
                "num_sanity_val_steps": 0,
            }
        )
        trainer.fit(fresh, datamodule=data)
    return fresh.eval()


def explain_to(
    path: Path, task: LocalizationTask, loader: DataLoader[Sample], device: torch.device, explainer: Explainer
) -> Floats:
    """Write the maps (n, *S) of the positive class to a file, float32 in logits; return the logits (n,).

    Args:
        path: Where to; the file is there once all maps are.
        task: A trained task.
        loader: The cases, in order.
        device: Where to work.
        explainer: What makes the maps.
    """
    # Not by way of `explain`: the task's own maps are averaged over views, if it is so set.
    own = explainer.method == MODEL and not explainer.settings
    logits: list[Floats] = []
    with replacing(path) as part:
        file, done = None, 0
        for images, output in _answers(task, loader, device):
            maps = output.maps if own else explainer.maps(task.network, images)
            if file is None:
                shape = (len(loader.dataset), *maps.shape[2:])  # type: ignore[arg-type]  # all have a length
                file = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
            file[done : done + len(maps)] = maps[:, 0].float().cpu().numpy()
            done += len(maps)
            logits.append(output.logits[:, 0].double().cpu().numpy())
        if file is not None:
            file.flush()
    return np.concatenate(logits)


def logits_of(task: LocalizationTask, loader: DataLoader[Sample], device: torch.device) -> Floats:
    """Logits (n,) of cases, in order."""
    answers = [output.logits[:, 0].double().cpu().numpy() for _, output in _answers(task, loader, device)]
    return np.concatenate(answers)


def _answers(
    task: LocalizationTask, loader: DataLoader[Sample], device: torch.device
) -> Iterator[tuple[Tensor, LocalizationOutput]]:
    task.to(device)
    for batch in loader:
        images = batch["image"].to(device)
        with torch.no_grad():
            output = task(images)
        yield images, output
    task.to("cpu")


@contextmanager
def _hushed() -> Iterator[None]:
    """Without lightning's word on devices and on each training's end."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch.utilities.rank_zero", "fabric.utilities")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def key_of(*parts: object) -> str:
    """A short hash of settings, by which a finished training is known again.

    Raises:
        InputError: If a setting has no name of its own: a lambda, a local function, a network.
    """
    text = json.dumps(parts, sort_keys=True, default=_named)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shaping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a trainer on which the weights depend."""
    return {name: value for name, value in settings.items() if name not in _IDLE}


def _named(value: object) -> object:
    """What JSON does not know, by name: from Python, parts are classes and functions."""
    if isinstance(value, partial):
        return [_named(value.func), value.args, value.keywords]
    name = getattr(value, "__qualname__", None)
    own = name or f"{type(value).__qualname__} {value!r}"
    # Neither an address nor the description of a network, which leaves its weights out, says what it is.
    if "<lambda>" in own or "<locals>" in own or " at 0x" in own or isinstance(value, nn.Module):
        raise InputError(
            f"filtered-retrain knows a finished training by its settings, and cannot tell {name or type(value)} from "
            "another of that name: give a class, a function of a module, or functools.partial of one"
        )
    return f"{value.__module__}.{own}"
