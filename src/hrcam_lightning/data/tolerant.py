"""Prediction of a folder goes on where a scan cannot be read."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from hrcam_lightning.data.module import Sample, collate
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from hrcam_lightning.data.contract import Batch, Layout


class TolerantDataset(Dataset[Sample]):
    """Cases of which some may be unreadable: such a case is a sample of its name and the reason.

    Args:
        dataset: Cases whose headers could be read.
        names: Name of each.
        layout: Channels and axes that the network takes.
        failures: Reason by case, of those whose headers could not.
    """

    def __init__(
        self, dataset: Dataset[Sample], names: Sequence[str], layout: Layout, failures: dict[str, str]
    ) -> None:
        assert isinstance(dataset, Sized)
        self.dataset, self.names, self.layout = dataset, names, layout
        self.failures = list(failures.items())

    def __len__(self) -> int:
        return len(self.failures) + len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index < len(self.failures):
            return {"failed": self.failures[index]}
        index -= len(self.failures)
        try:
            sample = self.dataset[index]
        except InputError as error:
            return {"failed": (self.names[index], str(error))}
        channels, dims = len(sample["image"]), sample["image"].ndim - 1
        if (channels, dims) != (self.layout.channels, self.layout.dims):
            wanted = f"{self.layout.channels} channels and {self.layout.dims} axes"
            reason = f"{self.names[index]}: has {channels} channels and {dims} axes, but the network takes {wanted}"
            return {"failed": (self.names[index], reason)}
        return sample


def collate_readable(samples: Sequence[Sample]) -> Batch | dict[str, Any]:
    """Put the samples that could be read into a batch, and the names of the others under ``failed``."""
    read = [sample for sample in samples if "failed" not in sample]
    batch: dict[str, Any] = {**collate(read)} if read else {"case": []}
    batch["failed"] = [sample["failed"] for sample in samples if "failed" in sample]
    return batch
