"""Maps, masks and probabilities of predicted cases, as files that open in a viewer."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console

from hrcam_lightning.callbacks.journal import Journal, Rows, fingerprint
from hrcam_lightning.callbacks.panels import FusedMapPanels
from hrcam_lightning.callbacks.prediction_files import COLUMNS, Prediction, write_prediction
from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.callbacks.scale import DEFAULT
from hrcam_lightning.callbacks.stacks import SliceScore, SliceStacks
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import safe_name, write_csv

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from hrcam_lightning.callbacks.drawing import Limits
    from hrcam_lightning.data import Batch
    from hrcam_lightning.task import LocalizationTask, StepOutput

WAITING = 8  # cases that may wait to be written while the next are computed: more would only fill memory
LOGGED = 64  # overlays that go to W&B
SEEN = ("view_averaging", "window", "window_overlap")  # what may change a trained network's maps


class PredictionWriter(Callback):
    """Write what `predict` finds, case by case, while the next cases are computed.

    All files are on the grid of the case's own file. For NIfTI and DICOM ``<case>_map.nii.gz``: float32 logits;
    ``<case>_mask.nii.gz``: where the map reaches the threshold that was found on validation cases; several classes are
    a fourth axis. For pictures ``<case>_map.npy`` (K, H, W) and a mask a class as PNG. One picture a class:
    ``<case>_<class>.png``, of volumes with middle and peak slices in three planes. And ``predictions.csv``: for each
    case and class the probability, the map's highest value and where it is (voxels from 0 and millimetres), and the
    number and size of the parts of the mask. Slices are put back into their volumes.

    What cannot be read is left out and listed in ``unreadable.csv``; the others are done.

    Args:
        folder: Where to; ``predictions`` in the run folder if not given.
        limits: Logits at the two ends of the overlays' colour scale; those of `FusedMapPanels` if not given.
        resume: Leave out the cases that an earlier run with the same checkpoint and settings has done, unless their
            files have changed since.
        slice_score: Probability of a volume that is seen slice by slice: the highest of its slices, or their mean.

    Attributes:
        checkpoint: File that the network is read from, by which `resume` knows it; of the trainer if not given.

    Raises:
        InputError: If the limits are not in order.
    """

    def __init__(
        self,
        folder: str | None = None,
        limits: Limits | None = None,
        resume: bool = False,
        slice_score: SliceScore = "max",
    ) -> None:
        if limits is not None and not limits[0] < limits[1]:
            raise InputError(f"predictions.limits is {list(limits)}, but the first must be below the second")
        self.folder, self.limits, self.resume = folder, limits, resume
        self.slice_score: SliceScore = slice_score
        self.checkpoint: str | None = None
        self.unreadable: dict[str, str] = {}
        self.done = 0
        self._scale: Limits = (-DEFAULT, DEFAULT)
        self._done: set[str] = set()
        self._sources: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LocalizationTask, stage: str) -> None:  # type: ignore[override]
        """Tell the data module what is done already.

        Raises:
            InputError: If two cases would write the same file, or what is to be resumed was made otherwise.
        """
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        self._sources = data.sources() if data is not None else {}
        self._journal = Journal(self._folder(trainer), trainer.global_rank)
        self._dry = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        settings = {
            **(data.sight() if data is not None else {}),
            **{f"model.{name}": str(getattr(pl_module, name)) for name in SEEN},
            "predictions.slice_score": self.slice_score,
        }
        found: dict[str, str] = {}
        if not self._dry:
            found = self._journal.begin(fingerprint(self.checkpoint or trainer.ckpt_path), settings, resume=self.resume)
        # Before any process begins to write, all have looked.
        done = {case: source for part in gather(found) for case, source in part.items()}
        self._done = {case for case, source in done.items() if self._sources.get(case, source) == source}
        if self.resume and not self._dry:
            self._journal.tidy(self._done)
            gather(None)  # before that nobody writes either
        self.unreadable, self._files = {}, {}
        for case in (*done, *self._sources):
            self._claim(case)
        if data is not None:
            data.leave_out = frozenset(self._done)

    def on_predict_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew, on the scale of the checkpoint."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        found = [one.shown_limits for one in callbacks if isinstance(one, FusedMapPanels)]
        self._scale = next((limits for limits in (self.limits, *found) if limits), (-DEFAULT, DEFAULT))
        self._stacks = SliceStacks(self.slice_score)
        self._waiting: deque[Future[None]] = deque()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="predictions")

    def on_predict_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LocalizationTask,
        outputs: StepOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hand the cases of a batch to the writer."""
        for case, reason in batch.get("failed", []):
            self.unreadable.setdefault(case, reason)
        if not batch["case"]:
            return
        output = outputs["output"]
        if "slice" in batch and trainer.world_size > 1:
            raise InputError("slices are put back into volumes in one process: give --trainer.devices 1")
        probabilities = pl_module.probabilities(output.logits).cpu().numpy()
        maps, bias = output.maps.cpu().numpy(), output.bias.cpu().numpy()
        images = batch["image"].float().mean(1).cpu().numpy()
        for index, case in enumerate(batch["case"]):
            if not (np.isfinite(maps[index]).all() and np.isfinite(probabilities[index]).all()):
                name = batch["slice"][index].case if "slice" in batch else case
                self.unreadable[name] = f"{name}: the network's map holds NaN or infinity; predict in 32 bits"
                continue
            found: Prediction | None = Prediction(
                case, images[index], maps[index], bias, probabilities[index], batch["frame"][index]
            )
            assert found is not None
            if "slice" in batch:
                found = self._stacks.add(batch["slice"][index], found)
            if found is not None:
                self._hand_over(found, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Wait for the writer."""
        while self._waiting:
            self._waiting.popleft().result()
        self._writer.shutdown()

    def on_exception(self, trainer: Trainer, pl_module: LocalizationTask, exception: BaseException) -> None:  # type: ignore[override]
        """Let what is being written be finished; what waits is not begun."""
        if hasattr(self, "_writer"):
            self._writer.shutdown(cancel_futures=True)

    def teardown(self, trainer: Trainer, pl_module: LocalizationTask, stage: str) -> None:  # type: ignore[override]
        """Write the tables; also where everything was done already, and nothing was left to predict."""
        if stage != "predict" or self._dry:
            return
        self.unreadable = {case: reason for part in gather(self.unreadable) for case, reason in part.items()}
        if not trainer.is_global_zero:
            return
        folder, done = self._folder(trainer), self._journal.rows()
        rows = [row for found in done.values() for row in found]
        write_csv(folder / "predictions.csv", rows, COLUMNS)
        failed = [{"case": case, "reason": reason} for case, reason in sorted(self.unreadable.items())]
        if failed:
            write_csv(folder / "unreadable.csv", failed, ["case", "reason"])
        else:
            (folder / "unreadable.csv").unlink(missing_ok=True)
        self._log(trainer, folder, rows)
        earlier = f", {len(self._done)} of them before" if self._done else ""
        self.done = len(done)
        Console().print(f"{len(done)} cases written to {folder}{earlier}", highlight=False, soft_wrap=True)

    def _hand_over(self, found: Prediction, task: LocalizationTask) -> None:
        self._claim(found.case)
        if self._dry:
            return
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        assert task.classes is not None
        self._waiting.append(self._writer.submit(self._write, found, task.classes, task.thresholds.tolist()))

    def _claim(self, case: str) -> None:
        name = safe_name(case)
        if self._files.setdefault(name, case) != case:
            raise InputError(f"the cases '{case}' and '{self._files[name]}' would write the same file, {name}")

    def _write(self, found: Prediction, classes: list[str], thresholds: list[float]) -> None:
        rows = write_prediction(self._journal.folder, found, classes, thresholds, self._scale)
        self._journal.add(found.case, rows, self._sources.get(found.case, ""))

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "predictions"

    def _log(self, trainer: Trainer, folder: Path, rows: Rows) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                pictures = [folder / f"{safe_name(row['case'])}_{safe_name(row['class'])}.png" for row in rows]
                data = [
                    [*(row.get(column) for column in COLUMNS), wandb.Image(str(path)) if number < LOGGED else None]
                    for number, (row, path) in enumerate(zip(rows, pictures, strict=True))
                ]
                logger.log_table("predictions", [*COLUMNS, "overlay"], data)
