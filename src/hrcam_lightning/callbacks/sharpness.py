"""From the mean to the peak: a curriculum over the sharpness of a pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from hrcam_lightning.errors import InputError
from hrcam_lightning.losses import class_shares, uninformed_loss
from hrcam_lightning.pooling import AttentionPooling, LogSumExpPooling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch
    from hrcam_lightning.task import LocalizationTask

    Pools = LogSumExpPooling | AttentionPooling

MEMORY = 50
"""Training batches over which the loss is averaged."""


class SharpnessCurriculum(Callback):
    """Begin with a pooling close to the mean, and sharpen it, and demand agreement, as the network learns.

    On subtle findings a network needs hundreds of steps before it sees anything at all. In these a sharp pooling learns
    from a few pixels of noise, and agreement between views is had most cheaply from a map that says nothing: such a
    training ends where it began. So sharpness rises from `start` to the pooling's own in equal ratios, and the weight
    of disagreement from 0 to what it would be without a curriculum, by what the network knows of the training cases:
    the skill ``1 − loss / loss of the best constant answer``, both over the last batches. At the skill `full` both are
    there. A skill that falls takes them back, so that a step too far mends itself.

    Validation, test and prediction, and so the choice of the best checkpoint, always have the pooling's own sharpness.
    Works with `LogSumExpPooling` and `AttentionPooling` on any data, and beside `SubtletyCurriculum`; logs
    ``train/sharpness`` and ``train/skill`` as they are at the end of an epoch.

    Args:
        start: Sharpness of the first step, above 0 and at most the pooling's own.
        full: Skill from which both are whole, above 0 and at most 1.

    Raises:
        InputError: If an argument is out of range, or the pooling has no sharpness.
    """

    def __init__(self, start: float = 0.01, full: float = 0.3) -> None:
        if not start > 0:
            raise InputError(f"SharpnessCurriculum: start is {start}, but must be above 0, where the mean is")
        if not 0 < full <= 1:
            raise InputError(f"SharpnessCurriculum: full is {full}, but is a skill, above 0 and up to 1")
        self.start, self.full = start, full
        self.target: float | None = None  # the pooling's own sharpness, once training starts
        self.seen: Tensor | None = None  # running sums over batches: of 1, of the loss, of the shares of the classes
        self.skill = 0.0

    @property
    def progress(self) -> float:
        """How far the curriculum is, 0 to 1."""
        return min(1.0, max(0.0, self.skill) / self.full)

    @property
    def sharpness(self) -> float:
        """Sharpness of the next training step."""
        assert self.target is not None
        return float(self.target * (self.start / self.target) ** (1 - self.progress))

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of the batches."""
        return {"seen": self.seen, "skill": self.skill}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.seen, self.skill = state_dict["seen"], state_dict["skill"]

    def on_train_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Look up where it ends."""
        own = _pooling(pl_module).sharpness
        if self.start > own:
            raise InputError(
                f"SharpnessCurriculum: start is {self.start}, but the pooling's own sharpness is {own}: begin at it or "
                "below"
            )
        self.target = own

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LocalizationTask, batch: Batch, batch_idx: int
    ) -> None:
        """Set both for this batch alone."""
        _pooling(pl_module).sharpness = self.sharpness
        pl_module.consistency_share = self.progress

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LocalizationTask, outputs: Mapping[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        """Give the pooling its own sharpness back, and learn from the batch's loss.

        The best constant answer is that to the labels of the very batches that were lost on: neither a sampler nor a
        batch without findings passes for knowledge.
        """
        self._restore(pl_module)
        assert pl_module.classes is not None
        shares = class_shares(pl_module.task, batch["label"].cpu(), len(pl_module.classes))
        loss = outputs["cross_entropy"].float()
        # The same on every process, or each would pool in its own way.
        mean = trainer.strategy.reduce(torch.cat([loss.view(1), shares.to(loss)]), reduce_op="mean")
        sums = torch.as_tensor(mean).cpu().double()
        if not sums.isfinite().all():
            return  # such a step is skipped in 16-bit precision, and must not be remembered for ever
        new = torch.cat([torch.ones(1).to(sums), sums])
        self.seen = new if self.seen is None else (1 - 1 / MEMORY) * self.seen + new
        lost, *mix = (self.seen[1:] / self.seen[0]).tolist()
        weights = None if pl_module.class_weights is None else pl_module.class_weights.cpu()
        ignorance = uninformed_loss(pl_module.task, torch.tensor(mix, dtype=torch.float64), weights)
        self.skill = 1 - lost / ignorance if ignorance > 0 else 0.0  # one label alone: nothing to know

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Log where it is."""
        pl_module.log_dict({"train/sharpness": self.sharpness, "train/skill": self.skill}, sync_dist=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Leave the task as it was."""
        self._restore(pl_module)

    def on_exception(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LocalizationTask, exception: BaseException
    ) -> None:
        """Leave the task as it was, whatever stopped the step."""
        self._restore(pl_module)

    def _restore(self, task: LocalizationTask) -> None:
        task.consistency_share = 1.0
        if self.target is not None:
            _pooling(task).sharpness = self.target


def _pooling(task: LocalizationTask) -> Pools:
    pooling = task.network.pooling
    if not isinstance(pooling, LogSumExpPooling | AttentionPooling):
        raise InputError(
            f"SharpnessCurriculum: {type(pooling).__name__} has no sharpness; use --model.pooling LogSumExpPooling"
        )
    return pooling
