"""A Lightning trainer with one more verb: `retrofit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from lightning.pytorch import Trainer

from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing
from hrcam_lightning.retrofit.equivariance import Demand, Sampling
from hrcam_lightning.retrofit.stage import RetrofitStage

if TYPE_CHECKING:
    from hrcam_lightning.data import LocalizationDataModule
    from hrcam_lightning.geometry import Resampling
    from hrcam_lightning.task import LocalizationTask


class RetrofitTrainer(Trainer):
    """Lightning's trainer, which can also give a frozen network the maps of HR-CAM."""

    def retrofit(
        self,
        model: LocalizationTask,
        datamodule: LocalizationDataModule,
        ckpt_path: str | None = None,
        weights_only: bool | None = True,
        levels: list[int] | None = None,
        neighbours: list[int] | None = None,
        equivariance: float | Literal["auto"] = "auto",
        l2: float | Literal["auto"] = "auto",
        resampling: Resampling | None = None,
        views: list[Demand] = ["patch", "quiet", "flip", "rotation", "shift"],  # noqa: B006 - a config default, never changed
        view_cases: int = 2000,
        aimed_cases: int = 300,
        pixels: int = 6,
        patch_sides: tuple[float, float] = (0.125, 0.5),
    ) -> None:
        """Fit HR-CAM's linear head to a trained, frozen network by reading the data once and solving convex problems.

        The second stage of HR-CAM (Shinde et al., MICCAI 2019), with a penalty that keeps the maps on what they
        tell of, for which some cases are read again. Writes ``best.ckpt``, ``retrofit.csv`` and ``retrofit.json`` to
        the run folder, and scores the validation cases.

        Args:
            model: The base.
            datamodule: Its data.
            ckpt_path: The base's checkpoint; none where ``--model.weights`` or the backbone brings the weights.
            weights_only: Read plain data alone from it.
            levels: Levels of the backbone to read, by number from fine to coarse; all if not given.
            neighbours: Levels of which a cell's neighbours are read with it, which can move evidence by less than a
                cell; if not given, those with cells up to 2 pixels apart, and none if equivariance is 0.
            equivariance: Strength λ of the penalty on maps that tell of a place elsewhere. 0 is the published form;
                ``auto`` is the largest whose validation loss is within one standard error of the lowest.
            l2: Strength of the ridge penalty on the weights of standardised features; ``auto`` has the lowest
                validation loss.
            resampling: Where the cells of a level are taken to lie; half_pixel if not given and equivariance is 0,
                as published, else receptive_field.
            views: What is demanded of maps: that they do not change outside of a patch that is replaced, are quiet
                where there is no finding, and move with the image when it is flipped, rotated or shifted.
            view_cases: At how many training cases, drawn at random, that is looked at.
            aimed_cases: At how many training cases with a finding, at most as many as view_cases, patches are put on
                the peak of a first head's map; 0 does without, and needs no second look at the cases.
            pixels: At how many pixels of each patch and view, drawn at random.
            patch_sides: Shortest and longest side of a patch, as shares of the image's side: from about the size of
                what is to be found on.

        Raises:
            InputError: If the checkpoint, the data or an option cannot be used.
        """
        if self.world_size > 1:
            raise InputError("retrofit reads the data once, in one process: give --trainer.devices 1")
        for split in ("train", "val"):
            if getattr(self, f"limit_{split}_batches") == 0:
                raise InputError(f"retrofit reads the {split} cases: --trainer.limit_{split}_batches must not be 0")
        seed = torch.initial_seed() % 2**32
        sampling = Sampling(tuple(views), view_cases, aimed=aimed_cases, pixels=pixels, seed=seed, sides=patch_sides)
        trained = ckpt_path is not None
        # A network that stands already has taken its file when it was built, and may have been trained since.
        weights = model.weights if not trained and model.model is None else None
        stage = RetrofitStage(levels, neighbours, equivariance, l2, resampling, sampling, trained, weights)
        # Before the progress bar, which would share the terminal with the stage's own.
        self.callbacks.insert(0, stage)  # type: ignore[attr-defined]
        try:
            self.validate(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only, verbose=False)
        finally:
            self.callbacks.remove(stage)  # type: ignore[attr-defined]
        if stage.report is None:
            raise InputError("retrofit had no validation case to start with, and has changed nothing")
        if not self.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(self.default_root_dir)
            stage.report.write(folder)
            with replacing(folder / "best.ckpt") as part:  # last: who finds it finds all of the result
                self.save_checkpoint(part, weights_only=False)  # with the callbacks' thresholds
