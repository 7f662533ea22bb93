"""Folds of the training cases: by subject, each label apart, the same for the same table."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.metrics.estimate import Ints


def folds_of(subjects: Sequence[str], labels: Ints, folds: int) -> Ints:
    """The fold of each case, (n,) 0 to `folds` − 1.

    Subjects are dealt out in the order of a hash of their name, those with a positive case first, so that folds differ
    by at most one subject of each kind.

    Args:
        subjects: (n) whose cases they are.
        labels: (n,) 0 or 1.
        folds: How many.

    Raises:
        InputError: If a fold would have no subject of a kind.
    """
    positive = dict.fromkeys(subjects, False)
    for subject, label in zip(subjects, labels.tolist(), strict=True):
        positive[subject] |= bool(label)
    counts = sum(positive.values()), len(positive) - sum(positive.values())
    if folds < 2 or min(counts) < folds:
        raise InputError(
            f"folds is {folds}, but must be at least 2 and at most the training subjects of either kind: there are "
            f"{counts[0]} with and {counts[1]} without a positive case"
        )
    order = sorted(positive, key=lambda one: (not positive[one], hashlib.sha256(one.encode()).digest()))
    home = {subject: rank % folds for rank, subject in enumerate(order)}
    return np.array([home[subject] for subject in subjects], dtype=np.int64)
