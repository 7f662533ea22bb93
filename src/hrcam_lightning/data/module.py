"""What every data module shares: loaders, the order of training cases, collation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.data.ceiling import Ceiling
    from hrcam_lightning.data.contract import Batch, Layout
    from hrcam_lightning.data.known import KnownLesions

Split = Literal["train", "val", "test"]
AnySplit = Literal["train", "val", "test", "reversed"]
"""What test and predict may take: `reversed` is a second test split, of phantoms whose spurious cue is reversed."""
Sample = dict[str, Any]
"""One case: the keys of `Batch` without the batch axis."""


class LocalizationDataModule(LightningDataModule, ABC):
    """Data module whose batches are `hrcam_lightning.data.contract.Batch` and that says what network fits them.

    Args:
        batch_size: Cases a batch.
        num_workers: Loader processes; 0 reads in the main one, which is quickest for small images on few cores.
    """

    def __init__(self, batch_size: int = 16, num_workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size is {batch_size}, but must be at least 1")
        if num_workers < 0:
            raise InputError(f"data.num_workers is {num_workers}, but must not be negative")
        self.batch_size = batch_size
        self.num_workers = num_workers

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What the data decide of the network."""

    @abstractmethod
    def dataset(self, split: Split | Literal["predict"]) -> Dataset[Sample]:
        """The cases of a split.

        Raises:
            InputError: If there are none.
        """

    @abstractmethod
    def training_order(self) -> EpochSampler:
        """The order in which the training cases are visited."""

    def known_lesions(self, split: Split) -> KnownLesions:
        """What is known of the lesions of a split beyond their masks; by case, nothing if not overridden."""
        return {}

    def ceiling(self, split: Split) -> Ceiling | None:
        """What the ideal observer made of a split; None if that is not known."""
        return None

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training cases, in another order each epoch."""
        return self._loader(self.dataset("train"), sampler=self.training_order(), drop_last=True)

    def in_order(self, split: Split) -> DataLoader[Sample]:
        """Every case of a split once, in the order of the set; the training cases too."""
        return self._loader(self.dataset(split))

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


class EpochSampler(Sampler[int]):
    """A permutation for each epoch that follows from the run's seed and the epoch alone.

    A resumed run goes on with the order that an uninterrupted one would have had.

    Args:
        count: Cases an epoch.
        epoch: Says which epoch it is.
        start: First case of an epoch; constant 0 for a fixed set.
    """

    def __init__(self, count: int, epoch: Callable[[], int], start: Callable[[int], int] = lambda _: 0) -> None:
        self.count, self.epoch, self.start = count, epoch, start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        order = np.random.default_rng([torch.initial_seed() % 2**63, epoch]).permutation(self.count)
        yield from (int(index) for index in self.start(epoch) + order)


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
    }
    if "label" in first:
        batch["label"] = torch.stack([torch.as_tensor(sample["label"]) for sample in samples])
        batch["mask"] = torch.stack([sample["mask"] for sample in samples])
    if "subject" in first:
        batch["subject"] = [sample["subject"] for sample in samples]
    if "cue" in first:
        batch["cue"] = torch.stack([sample["cue"] for sample in samples])
    return batch


def _size(image: Tensor) -> str:
    return " x ".join(str(n) for n in image.shape[1:]) + f" ({image.shape[0]} channels)"
