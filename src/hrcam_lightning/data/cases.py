"""Cases from files: generated sets, and a user's own."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from hrcam_lightning.data.contract import Layout, TaskKind
from hrcam_lightning.data.frame import Frame, Framing, Grid
from hrcam_lightning.data.leakage import check_leakage
from hrcam_lightning.data.listing import list_scans, names_scans
from hrcam_lightning.data.module import AnySplit, EpochSampler, LocalizationDataModule, Sample, Split
from hrcam_lightning.data.readers import Normalization, normalize, read_grid, read_image, read_mask
from hrcam_lightning.data.slices import Plane, SliceDataset, axis_of, slab
from hrcam_lightning.data.table import Case, CaseTable, read_table
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.data.scan import Floats


class CaseDataset(Dataset[Sample]):
    """Cases read from their files.

    Args:
        cases: Rows of a table.
        table: The table, for its task and classes.
        normalization: How an image is scaled by its own values.
        framing: How an image is brought to the network's grid.
        plane: What the slices of a row with a range of them are.
        cache: Keep what was read in memory; worth it for small images.
    """

    def __init__(
        self,
        cases: list[Case],
        table: CaseTable,
        normalization: Normalization,
        framing: Framing,
        plane: Plane | None,
        cache: bool,
    ) -> None:
        self.cases = cases
        self.table = table
        self.normalization: Normalization = normalization
        self.framing = framing
        self.plane: Plane | None = plane
        self.cache: dict[int, Sample] | None = {} if cache else None
        self._cued = any(case.cue for case in cases)
        self._warned = False

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        if self.cache is None:
            return self._read(self.cases[index])
        if index not in self.cache:
            self.cache[index] = self._read(self.cases[index])
        return self.cache[index]

    def image(self, index: int) -> Floats:
        """The image (C, *S) of a case on the network's grid, not scaled."""
        case = self.cases[index]
        scan = read_image(case.images)
        frame, cut = self._frame(case, Grid(scan.voxels.shape[1:], scan.affine))
        return frame.image(scan.voxels[:, *cut])

    def grid(self, index: int) -> Grid:
        """The network's grid of a case, from its header alone."""
        case = self.cases[index]
        return self._frame(case, Grid(*read_grid(case.images[0])))[0].grid

    def _frame(self, case: Case, stored: Grid) -> tuple[Frame, tuple[slice, ...]]:
        """The frame of a case, and which part of the file it is of."""
        cut: tuple[slice, ...] = ()
        if case.slices is not None:
            assert self.plane is not None
            name = str(case.images[0])
            cut, stored = slab(stored, axis_of(stored, self.plane, name), case.slices, name)
        return self.framing.of(stored), cut

    def _read(self, case: Case) -> Sample:
        scan = read_image(case.images)
        frame, cut = self._frame(case, Grid(scan.voxels.shape[1:], scan.affine))
        sample: Sample = {
            "image": torch.from_numpy(normalize(frame.image(scan.voxels[:, *cut]), self.normalization)),
            "case": case.name,
            "affine": frame.grid.affine,
            "frame": frame,
        }
        if case.label is not None and self.table.classes is not None:
            mask = torch.zeros(len(self.table.classes), *frame.grid.shape, dtype=torch.bool)
            for name, path in case.masks.items():
                k = self.table.classes.index(name)
                stored = read_mask(path, case.images[0], scan, case.numbers.get(name, ()))[cut]
                if stored.any() and not self._has(case.label, k):
                    raise InputError(
                        f"{path}: the mask shows {name}, but the label of {case.name} does not; mend either"
                    )
                mask[k] = torch.from_numpy(frame.mask(stored))
                if stored.any() and not mask[k].any():
                    self._warn_of_lost(path)
            sample["label"], sample["mask"], sample["subject"] = case.label, mask, case.subject
            if self._cued:
                cue = read_mask(case.cue, case.images[0], scan)[cut] if case.cue else np.zeros(frame.stored.shape, bool)
                sample["cue"] = torch.from_numpy(frame.mask(cue))
        return sample

    def _warn_of_lost(self, path: Path) -> None:
        if not self._warned:
            warnings.warn(
                f"{path}: all that the mask shows lies outside data.framing.shape; the label is kept, and where the "
                "finding is counts as not known (further masks of this kind are not mentioned)",
                stacklevel=2,
            )
        self._warned = True

    def _has(self, label: int | tuple[int, ...], k: int) -> bool:
        if isinstance(label, tuple):
            return bool(label[k])
        return bool(label) if self.table.task == "binary" else label == k


class CaseDataModule(LocalizationDataModule):
    """Cases of a ``cases.csv``: 2D or 3D NIfTI, PNG, JPEG, TIFF, DICOM; volumes whole or slice by slice.

    Args:
        cases: The table. Only ``image`` and ``label`` are needed, for prediction only ``image``; prediction also takes
            a scan, a folder of them, or a glob.
        task: Kind of label; found out from the table if not given.
        classes: Names of the maps, in order; found out from the table if not given.
        negative: Label of a case without any finding.
        shares: Shares of train, val and test where the table has no ``split`` column.
        test_split: Which cases `test` takes.
        predict_split: Which cases `predict` takes.
        normalization: How an image is scaled by its own values; a volume as a whole, also where its slices are taken.
        framing: How images are brought to the network's grid: orientation, spacing, shape.
        slices: Take the slices of volumes, as 2D images.
        min_foreground: Share of a slice that must be exceeded by what is not background; others are left out, but not
            if a mask shows something, and never in prediction.
        volumes: Volumes whose slices are mixed in training, and that each loader process keeps in memory.
        allow_outside: Follow paths and links that lead out of the table's folder.
        cache: Keep what was read in memory; worth it for small images.
        check_leakage: Refuse the same image in two splits, and a mask as an image, by the bytes of the files.
        batch_size: Cases a batch.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        cases: str,
        task: TaskKind | None = None,
        classes: list[str] | None = None,
        negative: str = "normal",
        shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
        test_split: AnySplit = "test",
        predict_split: AnySplit | Literal["all"] = "all",
        normalization: Normalization = "zscore",
        framing: Framing | None = None,
        slices: Plane | None = None,
        min_foreground: float = 0.0,
        volumes: int = 8,
        allow_outside: bool = False,
        cache: bool = False,
        check_leakage: bool = True,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 <= min_foreground < 1:
            raise InputError(f"data.min_foreground is {min_foreground}, but a share from 0 to below 1 is needed")
        if volumes < 1:
            raise InputError(f"data.volumes is {volumes}, but must be at least 1")
        self.path = cases
        self._task: TaskKind | None = task
        self._classes = classes
        self._read = partial(read_table, Path(cases), negative=negative, shares=shares, allow_outside=allow_outside)
        self.test_split = test_split
        self.predict_split = predict_split
        self.normalization: Normalization = normalization
        self.framing = framing or Framing()
        self.slices: Plane | None = slices
        self.min_foreground, self.volumes, self.negative = min_foreground, volumes, negative
        self.cache = cache
        self.check_leakage = check_leakage
        self._datasets: dict[str, CaseDataset | SliceDataset] = {}

    @cached_property
    def table(self) -> CaseTable:
        """The table, read when it is first asked for.

        A trained network's task and classes say what labels mean, unless arguments do; a table of a few test cases
        need not hold all classes. Prediction reads images alone.

        Raises:
            InputError: If it cannot be used.
        """
        module = self.trainer.lightning_module if self.trainer else None
        task = self._task or getattr(module, "task", None)
        classes = self._classes or getattr(module, "classes", None)
        predicting = self.trainer is not None and self.trainer.state.fn == "predict"
        if names_scans(self.path):
            if not predicting:
                raise InputError(
                    f"{self.path}: scans without labels can be predicted only; give a table of cases, such as "
                    "`hrcam cases folder DIR` writes"
                )
            return list_scans(self.path)
        table = self._read(task=task, classes=classes, labelled=not predicting)
        if self.slices is None and any(case.slices for case in table.cases):
            raise InputError(f"{self.path}: has a column 'slices', so say which way they are cut: --data.slices axial")
        if self.check_leakage and not predicting:
            check_leakage(Path(self.path), table.cases)
        return table

    @cached_property
    def layout(self) -> Layout:
        """Task and classes of the table; channels and axes of its first image."""
        shape = read_image(self.table.cases[0].images).voxels.shape
        dims = len(shape) - 1 if self.slices is None else 2
        return Layout(self.table.task, self.table.classes, channels=shape[0], dims=dims)

    def dataset(self, split: Split | Literal["predict"]) -> CaseDataset | SliceDataset:
        """The cases of a split, or their slices; the same object each time, so that its cache lasts.

        Raises:
            InputError: If there are none, or if they have no labels.
        """
        if split not in self._datasets:
            wanted = {"predict": self.predict_split, "test": self.test_split}.get(split, split)
            cases = [case for case in self.table.cases if wanted in ("all", case.split)]
            if not cases:
                raise InputError(
                    f"{self.path}: no case is in the split '{wanted}'; give a column 'split', or more cases"
                )
            if split != "predict" and self.table.task is None:
                raise InputError(f"{self.path}: has no column 'label', which all but predict needs")
            made = CaseDataset(cases, self.table, self.normalization, self.framing, self.slices, self.cache)
            self._datasets[split] = made if self.slices is None else self._sliced(made, split)
            if split != "predict":
                dataset = self._datasets[split]
                labels = dataset.labels if isinstance(dataset, SliceDataset) else [case.label for case in cases]
                self._warn_of_one_class(labels, wanted)
        return self._datasets[split]

    def training_order(self) -> EpochSampler:
        """Every training case once an epoch; slices so that few volumes are asked for at a time."""
        dataset = self.dataset("train")
        return (
            dataset.order(self._epoch) if isinstance(dataset, SliceDataset) else EpochSampler(len(dataset), self._epoch)
        )

    def _sliced(self, made: CaseDataset, split: str) -> SliceDataset:
        assert self.slices is not None
        whole = split == "predict"
        return SliceDataset(made, self.slices, self.min_foreground, self.negative, self.volumes, whole=whole)

    def _warn_of_one_class(self, labels: Sequence[object], split: str) -> None:
        if self.table.task == "binary" and len(set(labels)) == 1:
            name = self.table.classes[0] if 1 in labels and self.table.classes else "negative"
            warnings.warn(
                f"{self.path}: every case of the split '{split}' is {name}; AUROC is undefined there", stacklevel=3
            )
