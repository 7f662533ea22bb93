"""A Lightning trainer with one more verb: `filtered-retrain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning.callbacks.explainers import MODEL, Explainer
from hrcam_lightning.errors import InputError
from hrcam_lightning.filtered.filters import KINDS, Fill, Kind, Negatives
from hrcam_lightning.filtered.progress import Progress
from hrcam_lightning.filtered.report import report
from hrcam_lightning.filtered.study import Protocol, Study
from hrcam_lightning.retrofit import RetrofitTrainer

if TYPE_CHECKING:
    from hrcam_lightning.data import LocalizationDataModule
    from hrcam_lightning.task import LocalizationTask


class StudyTrainer(RetrofitTrainer):
    """The trainer of all commands, which can also train many times over to see what maps are worth.

    Its trainings are those of trainers made with the same arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - lightning's own
        super().__init__(*args, **kwargs)
        self._settings = kwargs  # lightning takes them by name alone

    def filtered_retrain(
        self,
        model: LocalizationTask,
        datamodule: LocalizationDataModule,
        folds: int = 3,
        seeds: int = 3,
        explainer: str | dict[str, Any] = MODEL,
        threshold: float = 0.5,
        equal_area: bool = True,
        negatives: Negatives = "own",
        fill: Fill = "mean",
        kinds: list[Kind] = KINDS,
    ) -> None:
        """Score heatmaps as segmentations, then train anew on what they show and on what they leave out.

        The protocol of Guan and Loew (arXiv 2201.02771) with controls: docs/filtered.md. Every training is of the same
        network and budget. Writes ``results.csv``, ``cases.csv``, ``dice.csv``, ``metrics.json``, ``table.md`` and two
        pictures to ``filtered_retrain/`` in the run folder; typed again after a kill, it goes on with the training
        that it was at.

        Args:
            model: What is trained; weights that it has already are not used.
            datamodule: Its cases, of a binary task.
            folds: Parts of the training cases, by subject; each is explained by a network trained on the others.
            seeds: Trainings of each kind of image.
            explainer: What makes the maps: ``model``, or any of `hrcam_lightning.explain.NAMES`, or a mapping with
                ``method`` and settings.
            threshold: Strength from which a pixel is of the map's mask, 0 to 1: 0 is tissue that says nothing, 1 the
                peak of the map of an ordinary positive case, on one scale for all images.
            equal_area: Give every image a mask of the same area, the highest pixels of its map, as many as reach the
                threshold on an average positive training case, so that the area does not tell the label; else the
                pixels that reach the threshold.
            negatives: Whose map filters a negative case: its ``own``, of the positive class, or that of a ``positive``
                case drawn by its name, so that not even the shape of masks can tell the label.
            fill: What stands for a pixel that is not shown: the mean of the training images, or the image blurred.
            kinds: Kinds of image to train on; the originals always are.

        Raises:
            InputError: If the data or an option cannot be used.
        """
        if self.world_size > 1:
            raise InputError("filtered-retrain trains in one process: give --trainer.devices 1")
        if self.fast_dev_run:  # type: ignore[attr-defined]
            raise InputError("filtered-retrain has no dry run: give --trainer.max_epochs 1 --seeds 1 for a quick one")
        if model.stop_rate or self._settings.get("max_time") is not None:
            raise InputError(
                "model.stop_rate and trainer.max_time would give trainings unequal budgets: leave them out of "
                "filtered-retrain"
            )
        if getattr(datamodule, "fresh", False):
            raise InputError("phantoms that are drawn anew each epoch have no maps: set --data.fresh false")
        if seeds < 1:
            raise InputError(f"seeds is {seeds}, but must be at least 1")
        if not 0 < threshold <= 1:
            raise InputError(f"threshold is {threshold}, but is a strength, above 0 and up to 1")
        if datamodule.layout.task != "binary":
            raise InputError(
                f"filtered-retrain asks of one finding whether it is there, but the task is {datamodule.layout.task}: "
                "give a table of one finding, with --data.task binary"
            )
        chosen = tuple(dict.fromkeys(["original", *kinds]))
        protocol = Protocol(folds, seeds, fill, threshold, equal_area, negatives, chosen, torch.initial_seed() % 2**32)
        made = Explainer(explainer)
        folder = Path(self.default_root_dir) / "filtered_retrain"
        trainings = folds + len(chosen) * seeds  # the network of all folds is the first one on originals
        device = self.strategy.root_device
        with Progress(trainings, self.progress_bar_callback is not None) as progress:
            study = Study(protocol, model, datamodule, made, self._settings, folder, device, progress)
            findings = study.run()
        report(folder, protocol, made, findings)


# Lightning looks a command up by the name that is typed.
setattr(StudyTrainer, "filtered-retrain", StudyTrainer.filtered_retrain)
