"""Cases from files: generated sets, and a user's own."""

from __future__ import annotations

import hashlib
import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.data import DataLoader

from hrcam_lightning.data.ceiling import Ceiling, read_ceiling
from hrcam_lightning.data.contract import Layout, TaskKind
from hrcam_lightning.data.dataset import CaseDataset
from hrcam_lightning.data.known import TABLE, KnownLesions, read_lesions
from hrcam_lightning.data.leakage import check_leakage
from hrcam_lightning.data.listing import list_scans, names_scans
from hrcam_lightning.data.module import AnySplit, LocalizationDataModule, Sample, Split
from hrcam_lightning.data.normalization import Normalization, Scaling, Shorthand
from hrcam_lightning.data.readers import read_image
from hrcam_lightning.data.sampling import BalancedSampler, EpochSampler, Sampling, groups_of
from hrcam_lightning.data.slices import Plane, SliceDataset, axis_of
from hrcam_lightning.data.table import CaseTable, generated_hash, read_table, source_of
from hrcam_lightning.data.tolerant import TolerantDataset, collate_readable
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.data.augment import Augmentation
    from hrcam_lightning.data.frame import Framing


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
        normalization: How images are scaled: ``zscore``, ``minmax``, ``none``, or in full; a volume as a whole, also
            where its slices are taken. As the checkpoint's network knows them if not given, ``zscore`` for a new one.
        augmentation: What is done to training images; nothing if not given.
        sampling: Which training cases an epoch sees: ``natural``, each once, or ``balanced``, each class equally often
            (with several findings a case: the rarest of each decides).
        framing: How images are brought to the network's grid: orientation, spacing, shape. As the checkpoint's network
            knows them if not given, as they are for a new one.
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
        normalization: Shorthand | Normalization | None = None,
        augmentation: Augmentation | None = None,
        sampling: Sampling = "natural",
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
        super().__init__(batch_size, num_workers, normalization, augmentation, framing)
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
        self.sampling: Sampling = sampling
        self.slices: Plane | None = slices
        self.min_foreground, self.volumes, self.negative = min_foreground, volumes, negative
        self.cache = cache
        self.check_leakage = check_leakage
        self.leave_out: frozenset[str] = frozenset()
        self._datasets: dict[tuple[str, Scaling, str], CaseDataset | SliceDataset] = {}

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
        predicting = self._predicting
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
        """Task and classes of the table; channels and axes of an image that can be read.

        Raises:
            InputError: If the image cannot be read; in prediction, if none can.
        """
        shape = self._first_shape()
        return Layout(
            self.table.task, self.table.classes, channels=shape[0], dims=len(shape) - 1 if self.slices is None else 2
        )

    def state_dict(self) -> dict[str, Any]:
        """Also which slices the network has learnt from."""
        return {**super().state_dict(), "slices": self.slices}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As for all data, but a network of axial slices is not shown coronal ones.

        Raises:
            InputError: If another plane is asked for, too.
        """
        super().load_state_dict(state_dict)
        plane = state_dict.get("slices")
        if None not in (plane, self.slices) and plane != self.slices:
            raise InputError(
                f"the checkpoint was trained with data.slices {plane}, but {self.slices} is asked for: give {plane}"
            )

    @property
    def data_hash(self) -> str:
        """Hash of a generated set, as its ``dataset.json`` has it; of a table of one's own, SHA-256 of its bytes alone.

        Raises:
            InputError: If the table cannot be used.
        """
        assert self.table.cases  # read and found good
        known = generated_hash(Path(self.path))
        return known or hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def _first_shape(self) -> tuple[int, ...]:
        """Of the first image; in prediction of the first that the network takes, else of the first to be read."""
        if not self._predicting:
            return read_image(self.table.cases[0].images).voxels.shape
        module = self.trainer.lightning_module if self.trainer else None
        channels, dims = getattr(module, "channels", None), 3 if self.slices else getattr(module, "dims", None)
        shapes: list[tuple[int, ...]] = []
        unreadable: InputError | None = None
        for case in self.table.cases:
            try:
                shape = read_image(case.images).voxels.shape
            except InputError as error:
                unreadable = unreadable or error
                continue
            if channels in (None, shape[0]) and dims in (None, len(shape) - 1):
                return shape
            shapes.append(shape)
        if not shapes:
            assert unreadable is not None
            raise unreadable
        return shapes[0]

    def dataset(self, split: Split | Literal["predict"]) -> CaseDataset | SliceDataset:
        """The cases of a split, or their slices; the same object each time, so that its cache lasts.

        Raises:
            InputError: If there are none, or if they have no labels.
        """
        # A checkpoint, which is loaded late, may bring another scale and grid.
        key = (split, self.scaling, repr(self.framing))
        if key not in self._datasets:
            wanted = {"predict": self.predict_split, "test": self.test_split}.get(split, split)
            made = self._volumes(wanted, self.scaling, labelled=split != "predict")
            self._datasets[key] = made if self.slices is None else self._sliced(made, split)
            if split != "predict":
                self._warn_of_one_class(self._labels(self._datasets[key]), wanted)
        return self._datasets[key]

    def sources(self) -> dict[str, str]:
        """Paths, sizes and times of change of each case's files."""
        return {case.name: source_of(case) for case in self.table.cases}

    def sight(self) -> dict[str, str]:
        """Options that decide how `predict` shows a case to the network."""
        return {**super().sight(), "data.slices": str(self.slices)}

    def known_lesions(self, split: Split) -> KnownLesions:
        """What a ``lesions.csv`` beside the table says, of all splits."""
        return read_lesions(Path(self.path).with_name(TABLE))

    def ceiling(self, split: Split) -> Ceiling | None:
        """What ``hrcam-synth observer --write`` has left beside the table."""
        return read_ceiling(Path(self.path).parent, self.test_split if split == "test" else split)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Cases to predict, but for those to be left out; a batch is of one where the images differ in shape.

        A case that cannot be read is named under ``failed`` of its batch, and the others are done.
        """
        made = self._volumes(self.predict_split, self.scaling, labelled=False)
        failures: dict[str, str] = {}
        cases, shapes = [], set()
        for index, case in enumerate(made.cases):
            if case.name in self.leave_out:
                continue
            try:
                grid = made.grid(index)
                if self.slices is not None:
                    axis_of(grid, self.slices, str(case.images[0]))
                shapes.add(grid.shape)
                cases.append(case)
            except InputError as error:
                failures[case.name] = str(error)
        made.cases = cases
        chosen: CaseDataset | SliceDataset = made
        names = [case.name for case in cases]
        if self.slices is not None and cases:
            chosen = self._sliced(made, "predict")
            names = [place.case for _, place in chosen.places]
        tolerant = TolerantDataset(chosen, names, self.layout, failures)
        return DataLoader(
            tolerant,
            batch_size=self.batch_size if len(shapes) == 1 else 1,
            num_workers=self.num_workers,
            collate_fn=collate_readable,
            pin_memory=torch.cuda.is_available(),
        )

    def training_order(self) -> EpochSampler | BalancedSampler:
        """Every training case once an epoch, or each class equally often.

        Slices come so that few volumes are asked for at a time, unless they are balanced.
        """
        dataset = self.dataset("train")
        if self.sampling == "balanced":
            return BalancedSampler(groups_of(self.training_labels().tolist()), self._epoch)
        if isinstance(dataset, SliceDataset):
            return dataset.order(self._epoch)
        return EpochSampler(len(dataset), self._epoch)

    def training_images(self) -> CaseDataset:
        """The training cases as they are in their files, brought to the network's grid; of slices, their volumes."""
        return self._volumes("train", Scaling(Normalization("none")), labelled=True)

    def training_labels(self) -> Tensor:
        """Labels of the training cases."""
        return torch.tensor(self._labels(self.dataset("train")))

    @property
    def _predicting(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "predict"

    def _volumes(self, wanted: str, scaling: Scaling, *, labelled: bool) -> CaseDataset:
        cases = [case for case in self.table.cases if wanted in ("all", case.split)]
        if not cases:
            raise InputError(f"{self.path}: no case is in the split '{wanted}'; give a column 'split', or more cases")
        if labelled and self.table.task is None:
            raise InputError(f"{self.path}: has no column 'label', which all but predict needs")
        return CaseDataset(cases, self.table, scaling, self.framing, self.slices, self.cache)

    def _sliced(self, made: CaseDataset, split: str) -> SliceDataset:
        assert self.slices is not None
        whole = split == "predict"
        return SliceDataset(made, self.slices, self.min_foreground, self.negative, self.volumes, whole=whole)

    def _labels(self, dataset: CaseDataset | SliceDataset) -> list[int | tuple[int, ...] | None]:
        return dataset.labels if isinstance(dataset, SliceDataset) else [case.label for case in dataset.cases]

    def _warn_of_one_class(self, labels: Sequence[object], split: str) -> None:
        if self.table.task == "binary" and len(set(labels)) == 1:
            name = self.table.classes[0] if 1 in labels and self.table.classes else "negative"
            warnings.warn(
                f"{self.path}: every case of the split '{split}' is {name}; AUROC is undefined there", stacklevel=3
            )
