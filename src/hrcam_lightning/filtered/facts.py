"""What must be known of the cases of a split before any of them is filtered, by one pass over them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hrcam_lightning.data import Batch
    from hrcam_lightning.metrics.estimate import Floats, Ints


@dataclass(frozen=True)
class Facts:
    """A split of a binary data set.

    Attributes:
        names: (n) cases, in the order of the set.
        labels: (n,) 0 or 1.
        subjects: (n) whose images they are; each case its own subject where the data do not say.
        areas: (n,) pixels of the true mask; 0 of a positive case means that its mask is not known.
        shape: Of an image, (C, *S), the same for all.
        mean: (C,) mean of the images, a channel each.
        digest: Hash of images, labels and masks.
    """

    names: list[str]
    labels: Ints
    subjects: list[str]
    areas: Ints
    shape: tuple[int, ...]
    mean: Floats
    digest: str

    @property
    def subject_numbers(self) -> Ints:
        """(n,) subjects as numbers."""
        return np.unique(self.subjects, return_inverse=True)[1].astype(np.int64)


def read_facts(batches: Iterable[Batch], split: str) -> Facts:
    """Read a split once.

    Raises:
        InputError: If its images differ in shape, or it has not both positive and negative cases.
    """
    names: list[str] = []
    labels: list[int] = []
    subjects: list[str] = []
    areas: list[int] = []
    shape: tuple[int, ...] = ()
    total: Floats = np.zeros(0)
    digest = hashlib.sha256()
    for batch in batches:
        images = batch["image"].numpy()
        if not names:
            shape, total = images.shape[1:], np.zeros(images.shape[1])
        if images.shape[1:] != shape:
            raise InputError(
                f"{batch['case'][0]} is {images.shape[1:]} and {names[0]} is {shape} (channels, axes): "
                "filtered-retrain needs images of one shape"
            )
        masks = batch["mask"][:, 0].numpy()
        names += batch["case"]
        labels += batch["label"].tolist()
        subjects += batch.get("subject", batch["case"])
        areas += masks.sum(tuple(range(1, masks.ndim))).tolist()
        total += images.astype(np.float64).mean(tuple(range(2, images.ndim))).sum(0)
        for array in (images, masks):
            digest.update(np.ascontiguousarray(array).tobytes())
    if len(set(labels)) < 2:
        raise InputError(f"the {split} cases all have the label {labels[0]}: filtered-retrain needs both kinds in each")
    digest.update(repr((names, labels, subjects, shape)).encode())
    counts = np.array(labels, dtype=np.int64), np.array(areas, dtype=np.int64)
    return Facts(names, counts[0], subjects, counts[1], shape, total / len(names), digest.hexdigest())
