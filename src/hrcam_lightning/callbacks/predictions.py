"""Maps and probabilities of predicted cases, as files that open in a viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from lightning.pytorch import Callback
from PIL import Image
from rich.console import Console

from hrcam_lightning.callbacks.drawing import Limits, overlay
from hrcam_lightning.callbacks.panels import FusedMapPanels
from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.callbacks.scale import DEFAULT
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing, safe_name, write_csv

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from hrcam_lightning.data import Batch
    from hrcam_lightning.task import LocalizationTask, StepOutput

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class PredictionWriter(Callback):
    """Write what `predict` finds, a batch at a time.

    For NIfTI ``<case>_map.nii.gz``: float32 logits on the image's grid, with its affine; several classes are a
    fourth axis. For pictures ``<case>_map.npy``, (K, H, W), and one overlay a class as PNG. And
    ``predictions.csv``: for each case and class the probability, and the map's highest value and where it is, in
    voxels.

    Args:
        folder: Where to; ``predictions`` in the run folder if not given.
        limits: Logits at the two ends of the overlays' colour scale; those of `FusedMapPanels` if not given.
    """

    def __init__(self, folder: str | None = None, limits: Limits | None = None) -> None:
        if limits is not None and not limits[0] < limits[1]:
            raise InputError(f"predictions.limits is {list(limits)}, but the first must be below the second")
        self.folder = folder
        self.limits = limits
        self._scale: Limits = (-DEFAULT, DEFAULT)
        self._rows: list[dict[str, Any]] = []
        self._files: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Start anew, on the scale of the checkpoint."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        found = [one.shown_limits for one in callbacks if isinstance(one, FusedMapPanels)]
        self._scale = next((limits for limits in (self.limits, *found) if limits), (-DEFAULT, DEFAULT))
        self._rows, self._files = [], {}

    def on_predict_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LocalizationTask,
        outputs: StepOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the maps of a batch."""
        output = outputs["output"]
        probabilities = pl_module.probabilities(output.logits).cpu().numpy()
        maps, evidence = output.maps.cpu().numpy(), output.evidence.cpu().numpy()
        assert pl_module.classes is not None
        for index, case in enumerate(batch["case"]):
            name = safe_name(case)
            if self._files.setdefault(name, case) != case:
                raise InputError(f"the cases '{case}' and '{self._files[name]}' would write the same file, {name}")
            self._write(self._folder(trainer) / name, maps[index], evidence[index], batch, index, pl_module.classes)
            self._rows += [
                _row(case, class_name, float(probabilities[index, k]), maps[index, k])
                for k, class_name in enumerate(pl_module.classes)
            ]

    def on_predict_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Write the table."""
        folder = self._folder(trainer)
        parts = gather(self._rows)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rows = [row for part in parts for row in part]
        write_csv(folder / "predictions.csv", rows, list(rows[0]) if rows else ["case"])
        count = len({row["case"] for row in rows})
        Console().print(f"{count} cases written to {folder}", highlight=False, soft_wrap=True)

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "predictions"

    def _write(self, base: Path, maps: Array, evidence: Array, batch: Batch, index: int, classes: list[str]) -> None:
        affine = batch["affine"][index]
        if affine is not None:
            write_nifti(base.with_name(f"{base.name}_map.nii.gz"), maps, affine)
            return
        with replacing(base.with_name(f"{base.name}_map.npy")) as part:
            np.save(part, maps)
        image = batch["image"][index].float().mean(0).cpu().numpy()
        for k, class_name in enumerate(classes):
            with replacing(base.with_name(f"{base.name}_{safe_name(class_name)}.png")) as part:
                Image.fromarray(overlay(image, evidence[k], self._scale)).save(part)


def write_nifti(path: Path, maps: Array, affine: np.ndarray[Any, Any]) -> None:
    """Write maps (K, *S) as NIfTI; 2D ones as one slice, several classes as a fourth axis."""
    voxels = maps if maps.ndim == 4 else maps[..., None]
    data = voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1)
    with replacing(path) as part:
        image = nib.Nifti1Image(np.ascontiguousarray(data, dtype=np.float32), affine)  # type: ignore[no-untyped-call]
        nib.save(image, part)


def _row(case: str, class_name: str, probability: float, class_map: Array) -> dict[str, Any]:
    peak = np.unravel_index(int(class_map.argmax()), class_map.shape)
    return {
        "case": case,
        "class": class_name,
        "probability": f"{probability:.6g}",
        "peak": f"{class_map.max():.6g}",
        **{f"peak_{axis}": int(position) for axis, position in zip("ijk", peak, strict=False)},
    }
