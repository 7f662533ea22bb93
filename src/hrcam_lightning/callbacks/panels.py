"""Fused-map panels: image, truth, levels, fused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from hrcam_lightning.callbacks.drawing import Limits, Panel, draw_panels, make_panel, pixels
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing, safe_name

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from hrcam_lightning.data import Batch
    from hrcam_lightning.model import LocalizationOutput
    from hrcam_lightning.task import LocalizationTask, StepOutput


class FusedMapPanels(Callback):
    """Draw the maps of a few cases, half of them with a lesion, on one colour scale.

    Training writes one sheet every few epochs, ``maps/epoch_004.png``; `validate` and `test` write one picture a case,
    ``test/maps/<case>.png``. With a W&B logger the same sheets go there, and each case as an image with its masks.

    Args:
        cases: How many cases.
        every_n_epochs: How often in training; 0 for never.
        limits: Logits at the two ends of the colour scale, the same for every case, epoch and run, so that maps may be
            compared by eye. Mean pooling needs wider ones than max pooling.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(self, cases: int = 8, every_n_epochs: int = 1, limits: Limits = (-10.0, 10.0)) -> None:
        if cases < 0 or every_n_epochs < 0:
            raise InputError("fused_maps: cases and every_n_epochs must not be negative")
        if not limits[0] < limits[1]:
            raise InputError(f"fused_maps.limits is {list(limits)}, but the first must be below the second")
        self.cases, self.every_n_epochs, self.limits = cases, every_n_epochs, limits
        self._panels: dict[bool, list[Panel]] = {}
        self._images: list[dict[str, Any]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Forget the last epoch's cases."""
        self._panels = {True: [], False: []}
        self._images = []

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
        """Keep the first cases of each kind."""
        if not self._wanted(trainer):
            return
        share = {True: (self.cases + 1) // 2, False: self.cases // 2}
        for index in range(len(batch["case"])):
            abnormal = bool(batch["mask"][index].any())
            if len(self._panels[abnormal]) < share[abnormal]:
                self._keep(pl_module, outputs["output"], batch, index)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Draw the sheet of this epoch, or of `validate`."""
        self._draw(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Draw the test cases."""
        self._draw(trainer, "test")

    def _wanted(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return False
        if trainer.state.fn != "fit":
            return True
        return bool(self.every_n_epochs) and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _keep(self, task: LocalizationTask, output: LocalizationOutput, batch: Batch, index: int) -> None:
        truth = batch["mask"][index]
        probability = task.probabilities(output.logits)[index]
        shown = truth.flatten(1).any(-1).nonzero()
        k = int(shown[0]) if len(shown) else int(probability.argmax())
        size = truth.shape[1:]
        levels = [
            task.network.upsample(level[index : index + 1], number, size)[0, k]
            for number, level in enumerate(output.level_maps)
        ]
        assert task.classes is not None
        title = f"{batch['case'][index]}\nP({task.classes[k]}) = {probability[k]:.2f}"
        panel = make_panel(
            title, batch["image"][index], truth[k], levels, output.maps[index, k], batch["affine"][index]
        )
        self._panels[bool(truth.any())].append(panel)
        found = panel.fused >= float(task.thresholds[k])  # nothing, before validation has set a threshold
        self._images.append(
            {
                "case": batch["case"][index],
                "image": panel.image,
                "masks": {
                    "ground_truth": {
                        "mask_data": panel.truth.astype(np.uint8),
                        "class_labels": {1: task.classes[k]},
                    },
                    "predictions": {
                        "mask_data": found.astype(np.uint8),
                        "class_labels": {1: f"{task.classes[k]} (map)"},
                    },
                },
            }
        )

    def _draw(self, trainer: Trainer, stage: str) -> None:
        panels = [*self._panels[True], *self._panels[False]]
        if not panels:
            return
        root = Path(trainer.default_root_dir)
        if trainer.state.fn == "fit":
            self._log(
                trainer,
                f"{stage}/maps",
                self._save(root / "maps" / f"epoch_{trainer.current_epoch:03d}.png", panels),
            )
            return
        for panel in panels:
            case = panel.title.partition("\n")[0]
            self._save(root / stage / "maps" / f"{safe_name(case)}.png", [panel])
        self._log(trainer, f"{stage}/maps", self._save(root / stage / "maps.png", panels))

    def _save(self, path: Path, panels: list[Panel]) -> np.ndarray[Any, Any]:
        picture = pixels(draw_panels(panels, self.limits))
        with replacing(path) as part:
            Image.fromarray(picture).save(part)
        return picture

    def _log(self, trainer: Trainer, key: str, sheet: np.ndarray[Any, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key, [sheet], step=trainer.global_step)
                logger.log_image(
                    f"{key}/cases",
                    [_grey(image["image"]) for image in self._images],
                    step=trainer.global_step,
                    caption=[image["case"] for image in self._images],
                    masks=[image["masks"] for image in self._images],
                )


def _grey(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = image.min(), image.max()
    return np.asarray(255 * (image - low) / ((high - low) or 1), dtype=np.uint8)
