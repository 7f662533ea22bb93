"""Phantoms drawn as they are needed: nothing on disk, and fresh ones each epoch if asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from hrcam_lightning.data.contract import Layout
from hrcam_lightning.data.frame import Framing, Grid
from hrcam_lightning.data.known import KnownLesion, KnownLesions, diameter
from hrcam_lightning.data.module import AnySplit, LocalizationDataModule, Sample, Split
from hrcam_lightning.data.normalization import Floats, Normalization, Scaling, Shorthand
from hrcam_lightning.data.sampling import EpochSampler
from hrcam_lightning.errors import InputError
from synth import PhantomCase, Phantoms, PhantomSpec, SpecError
from synth.dataset import GENERATOR_VERSION
from synth.spec import SPLITS

if TYPE_CHECKING:
    from torch import Tensor

    from hrcam_lightning.data.augment import Augmentation
    from synth.lesion import Lesion

GENERATOR = f"synth {GENERATOR_VERSION}"
"""What this version writes into the ``dataset.json`` of the sets that it draws."""


class PhantomDataset(Dataset[Sample]):
    """Phantoms by index.

    Args:
        phantoms: Where they are drawn.
        first: Index of the first one.
        count: How many there are. Indices beyond may be asked for all the same: phantoms are endless.
        scaling: How images are scaled.
        contrast: One number, of the lesions' contrast over that of the specification. A tensor in shared memory, so
            that a change reaches the loader processes.
    """

    def __init__(
        self,
        phantoms: Phantoms,
        first: int,
        count: int,
        scaling: Scaling,
        contrast: Tensor | None = None,
    ) -> None:
        self.phantoms = phantoms
        self.contrast = contrast
        self._contrasted = {1.0: phantoms}
        self.first = first
        self.count = count
        self.scaling = scaling

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Floats:
        """The image (1, *S) of a case, not scaled."""
        return self._case(index).image[None]

    def _case(self, index: int) -> PhantomCase:
        try:
            return self._source()[self.first + index]
        except SpecError as error:  # a lesion that found no room
            raise InputError(f"case {self.first + index} of the spec '{self.phantoms.spec.name}': {error}") from error

    def __getitem__(self, index: int) -> Sample:
        case = self._case(index)
        sample: Sample = {
            "image": torch.from_numpy(self.scaling(case.image[None])),
            "label": case.label,
            "mask": torch.from_numpy(case.masks),
            "case": case.name,
            "affine": case.affine,
            "frame": Framing().of(Grid(case.image.shape, case.affine)),
        }
        if self.phantoms.spec.cue is not None:
            cue = np.zeros(case.image.shape, bool) if case.cue is None else case.cue
            sample["cue"] = torch.from_numpy(cue)
        return sample

    def _source(self) -> Phantoms:
        """The phantoms at the contrast of the moment."""
        factor = 1.0 if self.contrast is None else float(self.contrast)
        if factor not in self._contrasted:
            self._contrasted[factor] = Phantoms(contrasted(self.phantoms.spec, factor), self.phantoms.seed)
        return self._contrasted[factor]


def contrasted(spec: PhantomSpec, factor: float) -> PhantomSpec:
    """The same specification with lesions of `factor` times the contrast: d′, CNR and intensity change alike.

    A case keeps its lesions' places, sizes and shapes, and each its strength times the factor.
    """
    lesions = {}
    for name, lesion in spec.lesions.items():
        scaled: dict[str, Any] = {lesion.control: (factor * lesion.amplitude[0], factor * lesion.amplitude[1])}
        lesions[name] = replace(lesion, **scaled)
    return replace(spec, lesions=lesions)


class PhantomDataModule(LocalizationDataModule):
    """Phantoms of a spec, the same as ``hrcam-synth generate`` writes for the same spec and seed.

    The first epoch sees the set's training cases, validation and test see its validation and test cases. With `fresh`
    every further epoch sees phantoms that were never drawn before and are in no split.

    Args:
        spec: Path of the spec.
        seed: Seed of the set; not that of the training run.
        fresh: Draw new training phantoms each epoch.
        counts: Cases of train, val, test and reversed (where there is a cue); the spec's own if not given.
        test_split: Which cases `test` takes.
        predict_split: Which cases `predict` takes.
        normalization: How images are scaled: ``zscore``, ``minmax``, ``none``, or in full. As the checkpoint's network
            knows them if not given, ``zscore`` for a new one.
        augmentation: What is done to training images; nothing if not given.
        batch_size: Cases a batch.
        num_workers: Loader processes.

    """

    def __init__(
        self,
        spec: str,
        seed: int = 0,
        fresh: bool = False,
        counts: dict[str, int] | None = None,
        test_split: AnySplit = "test",
        predict_split: AnySplit = "test",
        normalization: Shorthand | Normalization | None = None,
        augmentation: Augmentation | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, normalization, augmentation)
        if seed < 0:
            raise InputError(f"data.seed is {seed}, but must not be negative")
        self.path = spec
        self.seed = seed
        self.fresh = fresh
        self._counts = counts or {}
        self.test_split: AnySplit = test_split
        self.predict_split: AnySplit = predict_split
        self._contrast: Tensor = torch.ones((), dtype=torch.float64).share_memory_()  # type: ignore[no-untyped-call]

    @cached_property
    def spec(self) -> PhantomSpec:
        """The spec, read when it is first asked for.

        Raises:
            InputError: If it cannot be used.
        """
        try:
            return PhantomSpec.from_yaml(self.path)
        except (SpecError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"the spec {self.path} cannot be used: {reason}") from error

    def set_contrast(self, factor: float) -> None:
        """From now on draw training lesions of `factor` times the contrast; validation and test keep the spec's.

        Raises:
            InputError: If such lesions cannot be drawn.
        """
        try:
            Phantoms(contrasted(self.spec, factor), self.seed).check()
        except SpecError as error:
            raise InputError(
                f"lesions of {factor:g} times the contrast of {self.path} cannot be drawn: {error}"
            ) from error
        self._contrast.fill_(factor)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cases of each split, in the order in which cases are numbered.

        Raises:
            InputError: If one is not a number of cases, or the reversed split has cases and the spec has no cue.
        """
        for name, count in self._counts.items():
            if name not in SPLITS or count < 0:
                raise InputError(f"data.counts: '{name}: {count}' is not a number of cases of {', '.join(SPLITS)}")
        counts = {name: {**self.spec.splits, **self._counts}.get(name, 0) for name in SPLITS}
        if counts["reversed"] and self.spec.cue is None:
            raise InputError(f"data.counts: 'reversed: {counts['reversed']}' needs a cue, which {self.path} has not")
        return counts

    @property
    def layout(self) -> Layout:
        """Task, classes and axes of the spec; one channel."""
        return Layout(self.spec.task, list(self.spec.classes), channels=1, dims=len(self.spec.shape))

    def dataset(self, split: Split | Literal["predict"]) -> PhantomDataset:
        """The phantoms of a split.

        Raises:
            InputError: If the spec has no such split.
        """
        return self._dataset(split, self.scaling)

    def _dataset(self, split: Split | Literal["predict"], scaling: Scaling) -> PhantomDataset:
        name = {"predict": self.predict_split, "test": self.test_split}.get(split, split)
        if name not in SPLITS:
            raise InputError(f"'{name}' is not a split of the spec '{self.spec.name}'; it may have {', '.join(SPLITS)}")
        if self.counts[name] < 1:
            raise InputError(
                f"the spec '{self.spec.name}' has no cases in the split '{name}'; give --data.counts.{name}"
            )
        before = list(self.counts)[: list(self.counts).index(name)]
        first = sum(self.counts[earlier] for earlier in before)
        phantoms = Phantoms(self.spec, self.seed)
        drawn = phantoms.reversed if name == "reversed" else phantoms
        contrast = self._contrast if split == "train" else None
        return PhantomDataset(drawn, first, self.counts[name], scaling, contrast)

    def training_images(self) -> PhantomDataset:
        """The training phantoms of the first epoch, not scaled."""
        return self._dataset("train", Scaling(Normalization("none")))

    def training_labels(self) -> Tensor:
        """Labels of the training phantoms of the first epoch; nothing is drawn but these."""
        images = self.training_images()
        return torch.tensor([images.phantoms.label(images.first + index) for index in range(len(images))])

    def known_lesions(self, split: Split) -> KnownLesions:
        """What the phantoms of a split are made of; draws them anew."""
        dataset = self.dataset(split)
        drawn = (dataset.phantoms[dataset.first + index] for index in range(len(dataset)))
        return {case.name: [_known(lesion) for lesion in case.lesions] for case in drawn}

    @property
    def data_hash(self) -> str:
        """SHA-256 of specification, seed and counts: all that phantoms follow from."""
        settings = [self.spec.to_dict(), self.seed, self.counts, self.fresh]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def training_order(self) -> EpochSampler:
        """The training phantoms; with `fresh`, those of epoch e > 0 lie behind the whole set."""
        count, total = self.counts["train"], sum(self.counts.values())

        def start(epoch: int) -> int:
            return total + (epoch - 1) * count if self.fresh and epoch else 0

        return EpochSampler(count, self._epoch, start)


def _known(lesion: Lesion) -> KnownLesion:
    return KnownLesion(
        class_name=lesion.class_name,
        centre_mm=lesion.centre_mm,
        centre_voxel=lesion.centre_voxel,
        family=lesion.family,
        size_mm=diameter(lesion.radii_mm),
        volume_mm3=lesion.volume_mm3,
        contrast=lesion.delta,
        cnr=lesion.cnr,
        dprime=lesion.dprime,
    )
