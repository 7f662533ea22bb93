"""What every data module shares: loaders, scaling and augmentation of images, collation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from lightning.pytorch import LightningDataModule
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, Sampler

from hrcam_lightning.data.augment import Augmentation, augment
from hrcam_lightning.data.frame import Framing
from hrcam_lightning.data.normalization import Floats, Normalization, Scaling, Shorthand, measure
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from hrcam_lightning.data.ceiling import Ceiling
    from hrcam_lightning.data.contract import Batch, Layout
    from hrcam_lightning.data.known import KnownLesions

Split = Literal["train", "val", "test"]
AnySplit = Literal["train", "val", "test", "reversed"]
"""What test and predict may take: `reversed` is a second test split, of phantoms whose spurious cue is reversed."""
Sample = dict[str, Any]
"""One case: the keys of `Batch` without the batch axis."""


class Images(Protocol):
    """Images by number, as they were before they are scaled."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Floats:
        """The image (C, *S) of a case."""
        ...


class LocalizationDataModule(LightningDataModule, ABC):
    """Data module whose batches are `hrcam_lightning.data.contract.Batch` and that says what network fits them.

    Args:
        batch_size: Cases a batch.
        num_workers: Loader processes; 0 reads in the main one, which is quickest for small images on few cores.
        normalization: How images are scaled; as in the checkpoint if not given, ``zscore`` where there is none.
        augmentation: What is done to training images; nothing if not given.
        framing: How images are brought to the network's grid; as in the checkpoint if not given, else as they are.
    """

    def __init__(
        self,
        batch_size: int = 16,
        num_workers: int = 0,
        normalization: Shorthand | Normalization | None = None,
        augmentation: Augmentation | None = None,
        framing: Framing | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size is {batch_size}, but must be at least 1")
        if num_workers < 0:
            raise InputError(f"data.num_workers is {num_workers}, but must not be negative")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.normalization: Shorthand | Normalization | None = normalization
        self.augmentation = augmentation
        self._scaling: Scaling | None = None
        self._asked_framing = framing
        self._stored_framing: Framing | None = None

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What the data decide of the network."""

    @property
    @abstractmethod
    def data_hash(self) -> str:
        """What tells one data set from another, for a run's records."""

    @abstractmethod
    def dataset(self, split: Split | Literal["predict"]) -> Dataset[Sample]:
        """The cases of a split.

        Raises:
            InputError: If there are none.
        """

    @abstractmethod
    def training_order(self) -> Sampler[int]:
        """The order in which the training cases are visited."""

    @abstractmethod
    def training_images(self) -> Images:
        """The images of the training cases, which some ways of scaling are measured on."""

    @abstractmethod
    def training_labels(self) -> Tensor:
        """Labels of the training cases: (N,) class numbers, or (N, K) findings for a multilabel task."""

    @property
    def scaling(self) -> Scaling:
        """How images are scaled. Measured on the training images when it is first asked for, if it goes by them.

        Raises:
            InputError: If a checkpoint is to be used and does not hold what was measured.
        """
        if self.normalization is not None:
            rule = Normalization.of(self.normalization)
        else:
            rule = self._scaling.rule if self._scaling else Normalization("zscore")
        if self._scaling is None or self._scaling.rule != rule:
            self._scaling = self._measured(rule) if rule.over == "training" else Scaling(rule)
        return self._scaling

    @property
    def framing(self) -> Framing:
        """How images are brought to the network's grid."""
        return self._asked_framing or self._stored_framing or Framing()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: scale and grid of the images that the network has learnt from."""
        return {"normalization": self.scaling.state(), "framing": asdict(self.framing)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Show the checkpoint's network images as it knows them; nothing is measured again.

        A network that took images as they were may be given any framing: the user's scans may need one to fit it. One
        that was trained on crops may be given another crop, or none.

        Raises:
            InputError: If the user asks for another scale, or for another framing than a network was trained with.
        """
        stored = Scaling.of_state(state_dict["normalization"])
        if self.normalization is not None and Normalization.of(self.normalization) != stored.rule:
            raise InputError(
                f"the checkpoint was trained with data.normalization '{stored.rule}', "
                f"but '{Normalization.of(self.normalization)}' is asked for: leave it out, or train anew with it"
            )
        self._scaling = stored
        framing = Framing(**state_dict["framing"])
        if self._asked_framing is not None and not _agree(framing, self._asked_framing):
            raise InputError(
                f"the checkpoint was trained with data.framing {_words(framing)}, but {_words(self._asked_framing)} "
                "is asked for: leave it out, or train anew with it"
            )
        self._stored_framing = framing

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches where they are, which is on the device; no others."""
        if self.augmentation is None or self.trainer is None or not self.trainer.training:
            return batch
        return augment(batch, self.augmentation, torch.initial_seed(), self.trainer.global_step)

    def sources(self) -> dict[str, str]:
        """What tells the files of each case to predict from others; nothing for cases that are drawn."""
        return {}

    def sight(self) -> dict[str, str]:
        """Options that decide how `predict` shows a case to the network, as they were given."""
        return {"data.framing": str(self._asked_framing), "data.normalization": str(self.normalization)}

    def known_lesions(self, split: Split) -> KnownLesions:
        """What is known of the lesions of a split beyond their masks; by case, nothing if not overridden."""
        return {}

    def ceiling(self, split: Split) -> Ceiling | None:
        """What the ideal observer made of a split; None if that is not known."""
        return None

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training cases, in another order each epoch."""
        return self._loader(self.dataset("train"), sampler=self.training_order(), drop_last=True)

    def in_order(self, split: Split, numbers: Sequence[int] | None = None) -> DataLoader[Sample]:
        """Every case of a split once, in the order of the set; the training cases too.

        Args:
            split: Of the set.
            numbers: The cases that are wanted, by their place in it and in order; all if not given. They come in the
                batches that they would be in with all the others, so that images of one batch are of one size.
        """
        if numbers is None:
            return self._loader(self.dataset(split))
        blocks = groupby(numbers, key=lambda number: number // self.batch_size)
        return DataLoader(
            self.dataset(split),
            batch_sampler=[list(block) for _, block in blocks],
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Validation cases."""
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        """Test cases."""
        return self._loader(self.dataset("test"))

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Cases to predict; labels and masks are not needed."""
        return self._loader(self.dataset("predict"))

    def _loader(
        self, dataset: Dataset[Sample], sampler: Sampler[int] | None = None, drop_last: bool = False
    ) -> DataLoader[Sample]:
        assert isinstance(dataset, Sized)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last and len(dataset) >= self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _measured(self, rule: Normalization) -> Scaling:
        """Measure on the training images, in one process for all."""
        trainer = self.trainer
        if trainer is not None and trainer.ckpt_path:
            raise InputError(
                f"the checkpoint does not know the scale of its training images, but data.normalization is '{rule}': "
                "use a checkpoint that was trained with it, or scale each image by itself"
            )
        if trainer is None or trainer.world_size == 1:
            return measure(rule, self._read_training_images())
        found: Scaling | InputError | None = None
        if trainer.is_global_zero:
            try:
                found = measure(rule, self._read_training_images())
            except InputError as error:  # the other processes wait for an answer, whatever it is
                found = error
        found = trainer.strategy.broadcast(found)
        if isinstance(found, InputError):
            raise found
        assert found is not None
        return found

    def _read_training_images(self) -> Iterable[Floats]:
        images = _Unscaled(self.training_images())
        loader = DataLoader(images, batch_size=None, num_workers=self.num_workers)
        shown = self.trainer is not None and self.trainer.progress_bar_callback is not None
        for image in track(loader, "Measuring the training images", total=len(images), disable=not shown):
            yield image.numpy()


def _agree(trained: Framing, asked: Framing) -> bool:
    """Whether a network that was trained with one framing sees the same voxels in another, but for what is cut off."""
    if trained == Framing():
        return True
    if "stretch" in (trained.fit, asked.fit):
        return trained == asked
    return (trained.orientation, trained.spacing) == (asked.orientation, asked.spacing)


class _Unscaled(Dataset["Tensor"]):
    """Images alone, for a loader."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.images.image(index))


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples into a batch.

    Raises:
        InputError: If their images differ in shape.
    """
    first = samples[0]
    for sample in samples[1:]:
        if sample["image"].shape != first["image"].shape:
            raise InputError(
                f"{first['case']} is {_size(first['image'])} and {sample['case']} is {_size(sample['image'])}: images "
                "of different shape cannot share a batch; bring them to one shape or use --data.batch_size 1"
            )
    batch: Batch = {
        "image": torch.stack([sample["image"] for sample in samples]),
        "case": [sample["case"] for sample in samples],
        "affine": [sample["affine"] for sample in samples],
        "frame": [sample["frame"] for sample in samples],
    }
    if "label" in first:
        batch["label"] = torch.stack([torch.as_tensor(sample["label"]) for sample in samples])
        batch["mask"] = torch.stack([sample["mask"] for sample in samples])
    if "subject" in first:
        batch["subject"] = [sample["subject"] for sample in samples]
    if "slice" in first:
        batch["slice"] = [sample["slice"] for sample in samples]
    if "cue" in first:
        batch["cue"] = torch.stack([sample["cue"] for sample in samples])
    return batch


def _words(framing: Framing) -> str:
    """The settings that are given, as in YAML."""
    given = [f"{name}: {value}" for name, value in asdict(framing).items() if value is not None]
    return "{" + ", ".join(given) + "}"


def _size(image: Tensor) -> str:
    return " x ".join(str(n) for n in image.shape[1:]) + f" ({image.shape[0]} channels)"
