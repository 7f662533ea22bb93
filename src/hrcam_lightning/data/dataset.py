"""Cases read from their files, one at a time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from hrcam_lightning.data.frame import Frame, Framing, Grid
from hrcam_lightning.data.module import Sample
from hrcam_lightning.data.readers import read_grid, read_image, read_mask
from hrcam_lightning.data.slices import Plane, axis_of, slab
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.data.normalization import Scaling
    from hrcam_lightning.data.scan import Floats
    from hrcam_lightning.data.table import Case, CaseTable


class CaseDataset(Dataset[Sample]):
    """Cases read from their files.

    Args:
        cases: Rows of a table.
        table: The table, for its task and classes.
        scaling: How images are scaled.
        framing: How an image is brought to the network's grid.
        plane: What the slices of a row with a range of them are.
        cache: Keep what was read in memory; worth it for small images.
    """

    def __init__(
        self,
        cases: list[Case],
        table: CaseTable,
        scaling: Scaling,
        framing: Framing,
        plane: Plane | None,
        cache: bool,
    ) -> None:
        self.cases = cases
        self.table = table
        self.scaling = scaling
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
        try:
            return self.framing.of(stored), cut
        except InputError as error:
            raise InputError(f"{case.images[0]}: {error}") from error

    def _read(self, case: Case) -> Sample:
        scan = read_image(case.images)
        frame, cut = self._frame(case, Grid(scan.voxels.shape[1:], scan.affine))
        sample: Sample = {
            "image": torch.from_numpy(self.scaling(frame.image(scan.voxels[:, *cut]))),
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
