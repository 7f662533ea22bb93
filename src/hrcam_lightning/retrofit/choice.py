"""How strongly a head is held to move with the image: chosen on validation cases, by image labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.metrics.roc import auroc
from hrcam_lightning.retrofit.solver import losses, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.data.contract import TaskKind
    from hrcam_lightning.retrofit.features import Floats, Pooled
    from hrcam_lightning.retrofit.solver import Labels, Problem, Solution

STRENGTHS = (0.0, 1e-2, 1e-1, 1.0, 1e1)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Candidate:
    """A head and what it costs.

    Attributes:
        equivariance: λ.
        l2: Strength of the ridge penalty.
        solution: Its weights.
        val_loss: Mean loss over the validation cases.
        val_se: Standard error of that mean.
        val_score: AUROC over the validation cases, or accuracy for a multiclass task; NaN where it is undefined.
    """

    equivariance: float
    l2: float
    solution: Solution
    val_loss: float
    val_se: float
    val_score: float


def candidates(
    problem: Problem, validation: Pooled, strengths: Sequence[float], ridges: Sequence[float]
) -> list[Candidate]:
    """For each λ the head of the ridge penalty with the lowest validation loss.

    Args:
        problem: The training cases.
        validation: The validation cases.
        strengths: Values of λ.
        ridges: Strengths of the ridge penalty to choose from.
    """
    best: dict[float, Candidate] = {}
    for l2 in sorted(ridges, reverse=True):
        solution = None
        for equivariance in sorted(strengths, reverse=True):  # from the firmest on: each solution is near the next
            solution = problem.solve(l2, equivariance, solution)
            candidate = _judge(problem, solution, validation, equivariance, l2)
            if equivariance not in best or candidate.val_loss < best[equivariance].val_loss:
                best[equivariance] = candidate
    return [best[equivariance] for equivariance in sorted(best)]


def choose(found: Sequence[Candidate]) -> Candidate:
    """The largest λ whose validation loss lies within one standard error of the lowest.

    The one-standard-error rule (Breiman et al., *Classification and Regression Trees*, 1984, section 3.4.3).
    """
    best = min(found, key=lambda candidate: candidate.val_loss)
    near = [candidate for candidate in found if candidate.val_loss <= best.val_loss + best.val_se]
    return max(near, key=lambda candidate: candidate.equivariance)


def score(logits: Floats, labels: Labels, task: TaskKind) -> float:
    """AUROC, averaged over the classes that have cases of both kinds; accuracy for a multiclass task; NaN if undefined.

    Args:
        logits: (N, K).
        labels: (N,) class numbers, or (N, K) findings.
        task: Kind of label.
    """
    if task == "multiclass":
        return float((logits.argmax(1) == labels).mean())
    truth = targets(labels, task, logits.shape[1])
    values = auroc(logits.T, truth.T)
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _judge(problem: Problem, solution: Solution, data: Pooled, equivariance: float, l2: float) -> Candidate:
    logits = problem.logits(solution, data)
    each = losses(logits, data.labels, problem.task)
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else 0.0
    return Candidate(equivariance, l2, solution, float(each.mean()), error, score(logits, data.labels, problem.task))
