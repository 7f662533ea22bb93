"""From the mean to the peak: a curriculum over the sharpness of a pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from hrcam_lightning.errors import InputError
from hrcam_lightning.losses import uninformed_loss
from hrcam_lightning.pooling import AttentionPooling, LogSumExpPooling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch
    from hrcam_lightning.task import LocalizationTask

    Pools = LogSumExpPooling | AttentionPooling

MEMORY = 50
"""Steps over which the training loss is averaged."""


class SharpnessCurriculum(Callback):
    """Begin with a pooling close to the mean, and sharpen it, and demand agreement, as the network learns.

    On subtle findings a network needs hundreds of steps before it sees anything at all. In these a sharp pooling learns
    from a few pixels of noise, and agreement between views is had most cheaply from a map that says nothing: such a
    training ends where it began. So sharpness rises from `start` to the pooling's own in equal ratios, and the weight
    of disagreement from 0 to the task's own, by what the network knows: the skill ``1 − loss / loss of the best
    constant answer`` of the last steps' training loss. At the skill `full` both are there. A skill that falls takes
    them back, so that a step too far mends itself.

    Validation, test and prediction, and so the choice of the best checkpoint, always have the pooling's own sharpness.
    Works with `LogSumExpPooling` and `AttentionPooling` on any data, and beside `SubtletyCurriculum`; logs
    ``train/sharpness`` and ``train/skill``, those of an epoch's last step.

    Args:
        start: Sharpness of the first step, above 0 and at most the pooling's own.
        full: Skill from which the pooling's own sharpness and the whole weight hold, above 0 and at most 1.

    Raises:
        InputError: If an argument is out of range, or the pooling has no sharpness.
    """

    def __init__(self, start: float = 0.01, full: float = 0.3) -> None:
        if not start > 0:
            raise InputError(f"SharpnessCurriculum: start is {start}, but must be above 0, where the mean is")
        if not 0 < full <= 1:
            raise InputError(f"SharpnessCurriculum: full is {full}, but is a skill, above 0 and up to 1")
        self.start, self.full = start, full
        self.target = self.uninformed = 0.0
        self.loss = self.weight = 0.0  # running sums; their ratio is the mean

    @property
    def skill(self) -> float:
        """Share of the ignorance that the network has overcome; 0 before the first step, below it when worse."""
        return 1 - self.loss / self.weight / self.uninformed if self.weight else 0.0

    @property
    def progress(self) -> float:
        """How far the curriculum is, 0 to 1."""
        return min(1.0, max(0.0, self.skill) / self.full)

    @property
    def sharpness(self) -> float:
        """Sharpness of the next training step."""
        return float(self.target * (self.start / self.target) ** (1 - self.progress))

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of the loss."""
        return {"loss": self.loss, "weight": self.weight}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.loss, self.weight = state_dict["loss"], state_dict["weight"]

    def on_train_start(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Look up where it ends, and what a network loses that says the same of every case.

        The task knows the weights of its classes by now.
        """
        self.target = _pooling(pl_module).sharpness
        if self.start > self.target:
            raise InputError(
                f"SharpnessCurriculum: start is {self.start}, but the pooling's own sharpness is {self.target}: "
                "begin at it or below"
            )
        assert pl_module.classes is not None
        labels = trainer.datamodule.training_labels()  # type: ignore[attr-defined]
        weights = None if pl_module.class_weights is None else pl_module.class_weights.cpu()
        self.uninformed = uninformed_loss(pl_module.task, labels, len(pl_module.classes), weights)
        if not self.uninformed:
            raise InputError(
                "SharpnessCurriculum: all training cases have the same label, so that there is nothing to learn"
            )

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LocalizationTask, batch: Batch, batch_idx: int
    ) -> None:
        """Set both for this step alone."""
        _pooling(pl_module).sharpness = self.sharpness
        pl_module.consistency_share = self.progress

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LocalizationTask, outputs: Mapping[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        """Give the pooling its own sharpness back, and learn from the step's loss."""
        _pooling(pl_module).sharpness = self.target
        # The same on every process, or each would pool in its own way.
        loss = float(trainer.strategy.reduce(outputs["cross_entropy"], reduce_op="mean"))
        keep = 1 - 1 / MEMORY
        self.loss, self.weight = keep * self.loss + loss, keep * self.weight + 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Log where it is."""
        pl_module.log_dict({"train/sharpness": self.sharpness, "train/skill": self.skill}, sync_dist=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Leave the task as it was."""
        pl_module.consistency_share = 1.0


def _pooling(task: LocalizationTask) -> Pools:
    pooling = task.network.pooling
    if not isinstance(pooling, LogSumExpPooling | AttentionPooling):
        raise InputError(
            f"SharpnessCurriculum: {type(pooling).__name__} has no sharpness; use --model.pooling LogSumExpPooling"
        )
    return pooling
