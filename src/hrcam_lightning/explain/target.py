"""What of a classifier's answer is explained."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hrcam_lightning.errors import InputError

Score = Literal["logit", "softmax", "sigmoid", "margin"]
"""A class's logit; its probability among exclusive classes or by itself; its logit less the highest other one."""

Target = int | Tensor | None
"""One class for all samples, a class a sample (B,), or all classes."""


def class_numbers(target: Target, batch: int, outputs: int) -> Tensor | None:
    """The class asked of each sample (B,) int64, None for all classes.

    A network of one logit tells two classes apart: 1, for which the logit speaks, and 0.

    Raises:
        InputError: If a class is outside of what the network tells apart.
    """
    if target is None:
        return None
    wanted = "target must be a class number, or one for each sample of the batch, as integers (B,)"
    try:
        numbers = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(wanted) from error
    if numbers.is_floating_point() or numbers.dtype == torch.bool or numbers.ndim > 1:
        raise InputError(wanted)
    if numbers.ndim == 1 and len(numbers) != batch:
        raise InputError(f"target names {len(numbers)} classes for {batch} samples: give one a sample, or one for all")
    classes = max(outputs, 2)
    if bool((numbers < 0).any()) or bool((numbers >= classes).any()):
        raise InputError(f"target is {numbers.tolist()}, but the network tells the classes 0 to {classes - 1} apart")
    return numbers.to(torch.int64, copy=True).expand(batch)  # what was made under inference mode cannot be gathered by


def scores_of(logits: Tensor, score: Score, classes: Tensor | None) -> Tensor:
    """The scores that are explained, (B, T), at least float32.

    T is 1 for given `classes`, the number of logits for all.

    Args:
        logits: (B, K); with K = 1 the logit of class 1 against class 0.
        score: What to explain.
        classes: (B,), None for all; of a single logit then class 1 alone.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        values = logits if classes is None else torch.where(classes.to(logits.device)[:, None] == 1, logits, -logits)
        return values if score in ("logit", "margin") else values.sigmoid()
    if score == "margin":
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None].masked_fill(own, -torch.inf).amax(-1)
        values = logits - others
    else:
        values = {"logit": logits, "softmax": logits.softmax(-1), "sigmoid": logits.sigmoid()}[score]
    return values if classes is None else values.gather(1, classes.to(logits.device)[:, None])
