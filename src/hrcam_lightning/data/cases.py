"""Cases from files: generated sets, and a user's own."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from hrcam_lightning.data.ceiling import Ceiling, read_ceiling
from hrcam_lightning.data.contract import Layout, TaskKind
from hrcam_lightning.data.known import TABLE, KnownLesions, read_lesions
from hrcam_lightning.data.module import AnySplit, EpochSampler, LocalizationDataModule, Sample, Split
from hrcam_lightning.data.readers import Normalization, normalize, read_mask, read_scan
from hrcam_lightning.data.table import Case, CaseTable, read_table
from hrcam_lightning.errors import InputError


class CaseDataset(Dataset[Sample]):
    """Cases read from their files.

    Args:
        cases: Rows of a table.
        table: The table, for its task and classes.
        normalization: How an image is scaled by its own values.
        cache: Keep what was read in memory; worth it for small images.
    """

    def __init__(self, cases: list[Case], table: CaseTable, normalization: Normalization, cache: bool) -> None:
        self.cases = cases
        self.table = table
        self.normalization: Normalization = normalization
        self.cache: dict[int, Sample] | None = {} if cache else None
        self._cued = any(case.cue for case in cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        if self.cache is None:
            return self._read(self.cases[index])
        if index not in self.cache:
            self.cache[index] = self._read(self.cases[index])
        return self.cache[index]

    def _read(self, case: Case) -> Sample:
        scan = read_scan(case.image)
        sample: Sample = {
            "image": torch.from_numpy(normalize(scan.voxels, self.normalization)),
            "case": case.name,
            "affine": scan.affine,
        }
        if case.label is not None and self.table.classes is not None:
            mask = torch.zeros(len(self.table.classes), *scan.voxels.shape[1:], dtype=torch.bool)
            for name, path in case.masks.items():
                k = self.table.classes.index(name)
                mask[k] = torch.from_numpy(read_mask(path, case.image, scan))
                if mask[k].any() and not self._has(case.label, k):
                    raise InputError(
                        f"{path}: the mask shows {name}, but the label of {case.name} does not; mend either"
                    )
            sample["label"], sample["mask"], sample["subject"] = case.label, mask, case.subject
            if self._cued:
                cue = read_mask(case.cue, case.image, scan) if case.cue else np.zeros(scan.voxels.shape[1:], bool)
                sample["cue"] = torch.from_numpy(cue)
        return sample

    def _has(self, label: int | tuple[int, ...], k: int) -> bool:
        if isinstance(label, tuple):
            return bool(label[k])
        return bool(label) if self.table.task == "binary" else label == k


class CaseDataModule(LocalizationDataModule):
    """Cases of a ``cases.csv``: 2D or 3D NIfTI, PNG, JPEG.

    Args:
        cases: The table. Only ``image`` and ``label`` are needed, for prediction only ``image``.
        task: Kind of label; found out from the table if not given.
        classes: Names of the maps, in order; found out from the table if not given.
        negative: Label of a case without any finding.
        shares: Shares of train, val and test where the table has no ``split`` column.
        test_split: Which cases `test` takes.
        predict_split: Which cases `predict` takes.
        normalization: How an image is scaled by its own values.
        cache: Keep what was read in memory; worth it for small images.
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
        cache: bool = False,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.path = cases
        self._task: TaskKind | None = task
        self._classes = classes
        self._read = partial(read_table, Path(cases), negative=negative, shares=shares)
        self.test_split = test_split
        self.predict_split = predict_split
        self.normalization: Normalization = normalization
        self.cache = cache
        self._datasets: dict[str, CaseDataset] = {}

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
        return self._read(task=task, classes=classes, labelled=not predicting)

    @cached_property
    def layout(self) -> Layout:
        """Task and classes of the table; channels and axes of its first image."""
        shape = read_scan(self.table.cases[0].image).voxels.shape
        return Layout(self.table.task, self.table.classes, channels=shape[0], dims=len(shape) - 1)

    def dataset(self, split: Split | Literal["predict"]) -> CaseDataset:
        """The cases of a split; the same object each time, so that its cache lasts.

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
            if split != "predict":
                self._check_labels(cases, wanted)
            self._datasets[split] = CaseDataset(cases, self.table, self.normalization, self.cache)
        return self._datasets[split]

    def known_lesions(self, split: Split) -> KnownLesions:
        """What a ``lesions.csv`` beside the table says, of all splits."""
        return read_lesions(Path(self.path).with_name(TABLE))

    def ceiling(self, split: Split) -> Ceiling | None:
        """What ``hrcam-synth observer --write`` has left beside the table."""
        return read_ceiling(Path(self.path).parent, self.test_split if split == "test" else split)

    def training_order(self) -> EpochSampler:
        """Every training case once an epoch."""
        return EpochSampler(len(self.dataset("train")), self._epoch)

    def _check_labels(self, cases: list[Case], split: str) -> None:
        if self.table.task is None:
            raise InputError(f"{self.path}: has no column 'label', which all but predict needs")
        if self.table.task == "binary":
            found = {case.label for case in cases}
            if len(found) == 1:
                name = self.table.classes[0] if found == {1} and self.table.classes else "negative"
                warnings.warn(
                    f"{self.path}: every case of the split '{split}' is {name}; AUROC is undefined there",
                    stacklevel=3,
                )
