"""What a network knows of its training cases, measured as it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from hrcam_lightning.losses import uninformed_loss

if TYPE_CHECKING:
    from torch import Tensor

MEMORY = 50
"""Training batches over which the loss is averaged."""
CHANCE = 0.02
"""Skill below which such an average may be luck."""


@dataclass
class Skill:
    """The share of the best constant answer's loss that a network saves: ``1 − loss / uninformed loss``.

    0 where it knows nothing, 1 where it knows every label, below 0 where it is worse than a guess. Both losses are
    means over the last `MEMORY` batches, older ones fading, and the constant answer is the best for the labels of those
    very batches: neither a sampler nor a batch without findings passes for knowledge.

    Attributes:
        value: The skill; 0 before the first batch, and where all labels are the same, so that there is nothing to know.
        sums: Fading sums over the batches: of 1, of the loss, and of the share of each class; empty before the first.
    """

    value: float = 0.0
    sums: list[float] = field(default_factory=list)

    def learn(self, task: str | None, loss: float, shares: list[float], weights: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            task: Kind of label.
            loss: Its mean cross-entropy. One that is not finite is passed over: 16-bit training skips such a step.
            shares: Share of its cases that are of each class; see `hrcam_lightning.losses.class_shares`.
            weights: Those of the loss, (K,).
        """
        if not math.isfinite(loss):
            return
        new = [1.0, loss, *shares]
        old = self.sums or [0.0] * len(new)
        self.sums = [(1 - 1 / MEMORY) * before + now for before, now in zip(old, new, strict=True)]
        count, lost, *found = self.sums
        mix = torch.tensor(found, dtype=torch.float64) / count
        ignorance = uninformed_loss(task, mix, None if weights is None else weights.cpu())
        self.value = 1 - lost / count / ignorance if ignorance > 0 else 0.0

    def share(self, whole: float) -> float:
        """How much to ask for of what needs knowledge, 0 to 1: nothing by chance, all from the skill `whole` on."""
        if not whole:
            return 1.0
        return min(1.0, self.value / whole) if self.value > CHANCE else 0.0
