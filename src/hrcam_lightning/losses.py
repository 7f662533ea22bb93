"""Cross-entropy of the three kinds of task, with weights against unequal classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ClassWeights = Literal["none", "balanced"] | list[float]


def cross_entropy(task: str | None, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over cases, and over findings if multilabel.

    The mean is over the number of cases, not over their weights: so the loss of a set is the mean of the losses of its
    cases, however they are put into batches.

    Args:
        task: Kind of label.
        logits: (B, K).
        labels: (B,) class numbers, or (B, K) findings if multilabel.
        weights: (K,), of cases of each class if multiclass, else of cases with the finding.
    """
    if task == "multiclass":
        return F.cross_entropy(logits, labels, weights, reduction="none").mean()
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits).view_as(logits), pos_weight=weights)


def class_shares(task: str | None, labels: Tensor, classes: int) -> Tensor:
    """Share of the cases (K,) that are of each class, or have each finding.

    Args:
        task: Kind of label.
        labels: (N,) class numbers, or (N, K) findings.
        classes: Number of maps K.
    """
    if task == "multiclass":
        return torch.bincount(labels, minlength=classes).double() / len(labels)
    return labels.reshape(len(labels), classes).double().mean(0)


def uninformed_loss(task: str | None, shares: Tensor, weights: Tensor | None = None) -> float:
    """The least mean cross-entropy of any answer that is the same for every case: what a network must fall below.

    Args:
        task: Kind of label.
        shares: (K,), see `class_shares`.
        weights: As in `cross_entropy`.
    """
    own = torch.ones_like(shares) if weights is None else weights.to(shares)
    found = own * shares
    if task == "multiclass":
        return float(-torch.xlogy(found, found / found.sum()).sum())
    without = 1 - shares
    answer = found / (found + without)
    return float(-(torch.xlogy(found, answer) + torch.xlogy(without, 1 - answer)).mean())


def given_weights(weights: Sequence[float], classes: Sequence[str]) -> Tensor:
    """Weights that the user chose.

    Raises:
        InputError: If they are not one positive number a class.
    """
    chosen = torch.tensor(list(weights), dtype=torch.float32)
    if len(chosen) != len(classes) or not (chosen > 0).all() or not chosen.isfinite().all():
        raise InputError(
            f"model.class_weights is {list(weights)}; one positive number is needed for each of {', '.join(classes)}"
        )
    return chosen


def balanced_weights(task: str | None, labels: Tensor, classes: Sequence[str]) -> Tensor:
    """Weights that give each class of the training cases the same sum.

    Multiclass: cases over (classes times cases of the class), so that the mean weight of a case is 1. Else: cases
    without the finding over cases with it.

    Args:
        task: Kind of label.
        labels: Of the training cases, (N,) or (N, K).
        classes: Names of the K maps.

    Raises:
        InputError: If a class is in no case, or in every one.
    """
    count = len(labels)
    if task == "multiclass":
        found = torch.bincount(labels, minlength=len(classes))
        weights = count / (len(classes) * found)
    else:
        found = labels.view(count, len(classes)).sum(0)
        weights = (count - found) / found
    for name, cases in zip(classes, found.tolist(), strict=True):
        if cases in (0, count):
            raise InputError(
                f"{name} is in {cases} of {count} training cases, which cannot be balanced: "
                "give numbers as --model.class_weights, or none"
            )
    return weights.float()
