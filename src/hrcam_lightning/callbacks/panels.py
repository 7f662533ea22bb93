"""Fused-map panels: image, truth, levels, fused."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger

from hrcam_lightning.callbacks.drawing import Limits, Panel, draw_panels, make_panel, save
from hrcam_lightning.callbacks.extremes import fetch
from hrcam_lightning.callbacks.localization import LocalizationMetrics, one_hot
from hrcam_lightning.callbacks.scale import MapScale, ScaleFinder
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import safe_name

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from hrcam_lightning.data import Batch
    from hrcam_lightning.model import LocalizationOutput
    from hrcam_lightning.task import LocalizationTask, StepOutput


class _Kept(NamedTuple):
    """A case that may be drawn, of which class, its panel on no scale yet, and its masks as W&B takes them."""

    case: str
    number: int
    panel: Panel
    masks: dict[str, Any]


class FusedMapPanels(Callback):
    """Draw the maps of a few cases, half of them with a lesion, on one colour scale.

    What is drawn is evidence: the map with its bias, so that white is no evidence either way, for any pooling. The
    levels are those of the image as it is; with averaged views the fused map is not quite their sum.

    Training writes one sheet every few epochs, ``maps/epoch_004.png``; `validate` and `test` write one picture a case,
    ``test/maps/<case>.png``, and a sheet of the cases of best, median and worst pixel AP, ``test/cases.png``, if
    `LocalizationMetrics` is there to say which. With a W&B logger the same sheets go there, and each case as an image
    with its masks.

    Args:
        cases: How many cases; 0 for no pictures, of the best and worst ones neither.
        every_n_epochs: How often in training; 0 for never.
        limits: Logits at the two ends of the colour scale, the same for every case, so that maps may be compared by
            eye. If not given, every validation finds them, see `ScaleFinder`, and `test` and `predict` have those of
            the checkpoint. Give a pair to compare epochs or runs.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(self, cases: int = 8, every_n_epochs: int = 1, limits: Limits | None = None) -> None:
        if cases < 0 or every_n_epochs < 0:
            raise InputError("fused_maps: cases and every_n_epochs must not be negative")
        if limits is not None and not limits[0] < limits[1]:
            raise InputError(f"fused_maps.limits is {list(limits)}, but the first must be below the second")
        self.cases, self.every_n_epochs, self.limits = cases, every_n_epochs, limits
        self.scale: MapScale | None = None
        self._finder = ScaleFinder()
        self._shown: MapScale | None = None
        self._panels: dict[bool, list[_Kept]] = {}

    @property
    def shown_limits(self) -> Limits | None:
        """Ends of the colour scale: those given, else those found; None if there are neither."""
        return self.limits or (self.scale.limits if self.scale else None)

    def state_dict(self) -> dict[str, Any]:
        """The scale of the last validation."""
        return {"scale": asdict(self.scale) if self.scale else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back from a checkpoint."""
        self.scale = MapScale(**state_dict["scale"]) if state_dict["scale"] else None

    def on_train_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Remove the sheets of an earlier run in the same folder; a resumed run keeps those of its own epochs."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _remove_sheets(Path(trainer.default_root_dir) / "maps", trainer.current_epoch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Forget the last epoch's cases."""
        self._finder = ScaleFinder()
        self._panels = {True: [], False: []}

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
        """Measure all cases, and keep the first of each kind."""
        output = outputs["output"]
        self._finder.update(batch["case"], one_hot(batch["label"], output.maps.shape[1]), output, pl_module.network)
        if not self._wanted(trainer):
            return
        for index in range(len(batch["case"])):
            findings = batch["label"][index] if pl_module.task != "multiclass" else batch["mask"][index]
            abnormal = bool(findings.any())
            if len(self._panels[abnormal]) < self.cases:
                self._panels[abnormal].append(self._keep(pl_module, output, batch, index))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Find the scale, and draw the sheet of this epoch, or of `validate`."""
        if not trainer.sanity_checking:
            self.scale = self._shown = self._finder.compute()
            self._draw(trainer, "val", self._shown)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Draw the test cases on the checkpoint's scale; on their own if it brings none, or one of another network."""
        own = self._finder.compute()
        brought = self.scale is not None and own is not None and self.scale.shape == own.shape
        self._shown = self.scale if brought else own
        self._draw(trainer, "test", self._shown)

    def on_validation_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Draw the best, median and worst cases of `validate`; by now they are known."""
        self._draw_extremes(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Draw the best, median and worst cases."""
        self._draw_extremes(trainer, pl_module, "test")

    def _draw_extremes(self, trainer: Trainer, task: LocalizationTask, stage: Literal["val", "test"]) -> None:
        """The few cases are read and mapped once more, in the first process: none is held while others are scored."""
        if trainer.state.fn == "fit" or not self.cases or not self._wanted(trainer):
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        ranked = next((one.ranked for one in callbacks if isinstance(one, LocalizationMetrics)), [])
        data = getattr(trainer, "datamodule", None)
        path = Path(trainer.default_root_dir) / stage / "cases.png"
        if not ranked or data is None or self._shown is None:
            path.unlink(missing_ok=True)  # of an earlier evaluation
            return
        kept = []
        for one, batch in zip(ranked, fetch(data.dataset(stage), ranked), strict=True):
            moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), task.device)
            with trainer.precision_plugin.forward_context():
                output = task(moved["image"])
            again = self._keep(task, output, moved, 0, one.number)
            title = f"{one.group}: AP {one.score:.2f}\n{again.panel.title}"
            kept.append(again._replace(panel=replace(again.panel, title=title)))
        panels = [_shown(one, self._shown) for one in kept]
        self._log(trainer, f"{stage}/cases", save(path, draw_panels(panels, self.limits or self._shown.limits)), kept)

    def _wanted(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        if trainer.state.fn != "fit":
            return True
        return bool(self.every_n_epochs) and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _keep(
        self, task: LocalizationTask, output: LocalizationOutput, batch: Batch, index: int, number: int | None = None
    ) -> _Kept:
        """Make the panel of a case of a batch, of class `number`; of the first that it shows if not given."""
        truth = batch["mask"][index]
        probability = task.probabilities(output.logits)[index]
        shown = truth.flatten(1).any(-1).nonzero()
        first = int(shown[0]) if len(shown) else int(probability.argmax())
        k = first if number is None else number
        size = truth.shape[1:]
        levels = [
            task.network.upsample(level[index : index + 1], number, size)[0, k]
            for number, level in enumerate(output.level_maps)
        ]
        assert task.classes is not None
        title = f"{batch['case'][index]}\nP({task.classes[k]}) = {probability[k]:.2f}"
        panel = make_panel(
            title, batch["image"][index], truth[k], levels, output.evidence[index, k], batch["affine"][index]
        )
        found = panel.fused >= float(
            task.thresholds[k] + output.bias[k]
        )  # nothing, before validation has set a threshold
        masks = {
            "ground_truth": {"mask_data": panel.truth.astype(np.uint8), "class_labels": {1: task.classes[k]}},
            "predictions": {"mask_data": found.astype(np.uint8), "class_labels": {1: f"{task.classes[k]} (map)"}},
        }
        return _Kept(batch["case"][index], k, panel, masks)

    def _draw(self, trainer: Trainer, stage: str, scale: MapScale | None) -> None:
        # Half of each kind; where one kind runs out the other fills up.
        abnormal, normal = self._panels[True], self._panels[False]
        first = min(len(abnormal), max((self.cases + 1) // 2, self.cases - len(normal)))
        kept = [*abnormal[:first], *normal[: self.cases - first]]
        if not kept or scale is None:
            return
        limits = self.limits or scale.limits
        root, panels = Path(trainer.default_root_dir), [_shown(one, scale) for one in kept]
        if trainer.state.fn == "fit":
            sheet = save(root / "maps" / f"epoch_{trainer.current_epoch:03d}.png", draw_panels(panels, limits))
        else:
            for path in (root / stage / "maps").glob("*.png"):  # of an earlier evaluation
                path.unlink()
            for one, panel in zip(kept, panels, strict=True):
                save(root / stage / "maps" / f"{safe_name(one.case)}.png", draw_panels([panel], limits))
            sheet = save(root / stage / "maps.png", draw_panels(panels, limits))
        self._log(trainer, f"{stage}/maps", sheet, kept)

    def _log(self, trainer: Trainer, key: str, sheet: np.ndarray[Any, Any], kept: list[_Kept]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key, [sheet], step=trainer.global_step)
                logger.log_image(
                    f"{key}/cases",
                    [_grey(one.panel.image) for one in kept],
                    step=trainer.global_step,
                    caption=[one.case for one in kept],
                    masks=[one.masks for one in kept],
                )


def _shown(kept: _Kept, scale: MapScale) -> Panel:
    levels = zip(kept.panel.levels, scale.offsets, strict=True)
    return replace(kept.panel, levels=[level + offsets[kept.number] for level, offsets in levels])


def _remove_sheets(folder: Path, first: int) -> None:
    """Remove the sheets of an epoch and of those after it; whatever else lies there is left alone."""
    for path in folder.glob("epoch_*.png"):
        number = path.stem.removeprefix("epoch_")
        if number.isdecimal() and int(number) >= first:
            path.unlink()


def _grey(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = image.min(), image.max()
    return np.asarray(255 * (image - low) / ((high - low) or 1), dtype=np.uint8)
