"""Passes over the cases through a frozen network: all that the head is fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrcam_lightning.errors import InputError
from hrcam_lightning.retrofit.features import Pooled
from hrcam_lightning.views import spacing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from hrcam_lightning.data import Batch
    from hrcam_lightning.model import LocalizationModel
    from hrcam_lightning.retrofit.equivariance import Equivariance
    from hrcam_lightning.retrofit.features import Floats, Reading


@dataclass(frozen=True)
class Gathered:
    """What a pass brings.

    Attributes:
        pooled: Features and labels.
        logits: (N, K) of the base's own head.
    """

    pooled: Pooled
    logits: Floats


@torch.no_grad()
def gather(
    batches: Iterable[Batch],
    reading: Reading,
    values: np.memmap[tuple[int, ...], np.dtype[np.float32]],
    equivariance: Equivariance | None = None,
    normal: Callable[[Tensor], bool] = lambda label: not label.any(),
    to_device: Callable[[Batch], Batch] = lambda batch: batch,
) -> Gathered:
    """Stream a split through the network, each case once, and the cases that take part in Q once for each change.

    Args:
        batches: Of every case, in the order of the set.
        reading: What is read.
        values: (N, C), filled.
        equivariance: Updated, if given.
        normal: Whether a case of this label is without any finding.
        to_device: Brings a batch to where the network is, in the precision that it takes.

    Raises:
        InputError: If a feature is not finite.
    """
    labels, logits, done = [], [], 0
    chosen = equivariance.sampling.chosen(len(values)) if equivariance else set()
    for batch in batches:
        batch = to_device(batch)
        images, size = batch["image"], batch["image"].shape[2:]
        features = reading.features(images)
        pooled = reading.pooled(features, size).cpu().numpy()
        if not np.isfinite(pooled).all():
            case = batch["case"][int(np.isfinite(pooled).all(1).argmin())]
            raise InputError(f"{case}: the network's features are not finite; try --trainer.precision 32-true")
        values[done : done + len(images)] = pooled
        labels.append(batch["label"].cpu().numpy().astype(np.int64))
        logits.append(reading.logits(features, size).double().cpu().numpy())
        rows = [row for row in range(len(images)) if done + row in chosen]
        if equivariance and rows:
            equivariance.update(
                images[rows],
                [feature[rows] for feature in features],
                [done + row for row in rows],
                [normal(batch["label"][row]) for row in rows],
                [spacing_of(batch["affine"][row], len(size)) for row in rows],
            )
        done += len(images)
    return Gathered(Pooled(values[:done], np.concatenate(labels)), np.concatenate(logits))


@torch.no_grad()
def aim(
    batches: Iterable[Batch],
    numbers: Sequence[int],
    head: LocalizationModel,
    equivariance: Equivariance,
    findings: Callable[[Tensor], Sequence[int]],
    to_device: Callable[[Batch], Batch] = lambda batch: batch,
) -> None:
    """Stream some training cases once more, and once for each small patch aimed at what a first head finds in them.

    Args:
        batches: Of these cases, in this order.
        numbers: Their numbers in the training set.
        head: The network with the first head.
        equivariance: Updated.
        findings: The maps of a label's findings, by number.
        to_device: Brings a batch to where the network is, in the precision that it takes.
    """
    done = 0
    for batch in batches:
        batch = to_device(batch)
        images, size = batch["image"], batch["image"].shape[2:]
        features = equivariance.reading.features(images)
        flat = head.read(features, size).maps.flatten(2).argmax(-1).cpu()
        places = np.stack(np.unravel_index(flat.numpy(), tuple(size)), -1)
        peaks = [places[row, list(findings(label))].tolist() for row, label in enumerate(batch["label"])]
        equivariance.aim(images, features, numbers[done : done + len(images)], peaks)
        done += len(images)
