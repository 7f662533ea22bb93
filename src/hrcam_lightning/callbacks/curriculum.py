"""From plain lesions to subtle ones: a curriculum over the contrast of phantoms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from hrcam_lightning.data.phantoms import PhantomDataModule
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from hrcam_lightning.task import LocalizationTask


class SubtletyCurriculum(Callback):
    """Begin with training lesions of `start` times the contrast, and lower it to that of the specification.

    At the contrast of the target a network may see too little to begin to learn from. The factor falls in equal
    ratios, one step an epoch: as soon as the epoch's training loss is below `ready` times that of a network that
    says nothing (log 2 a finding, log K among K classes), and at the latest on a straight schedule that ends at the
    share `until` of the run. With ``data.fresh`` no phantom is seen twice, so that the training loss
    is a validation of the difficulty at hand. Validation and test cases are always those of the specification, and
    the best checkpoint is chosen on them.

    Works with `PhantomDataModule`; logs ``train/contrast_factor``.

    Args:
        start: Contrast of the first epoch over that of the specification, at least 1.
        steps: Number of steps down to 1.
        ready: Loss below which the next step is taken, as a share of a knowledge-free network's.
        until: Share of the run after which the specification's own contrast holds in any case.

    Raises:
        InputError: If an argument is out of range, or the data are no phantoms.
    """

    def __init__(self, start: float = 2.0, steps: int = 5, ready: float = 0.6, until: float = 0.6) -> None:
        if not start >= 1:
            raise InputError(f"SubtletyCurriculum: start is {start}, but must be at least 1, the specification's own")
        if steps < 1:
            raise InputError(f"SubtletyCurriculum: steps is {steps}, but must be at least 1")
        for name, share in {"ready": ready, "until": until}.items():
            if not 0 < share <= 1:
                raise InputError(f"SubtletyCurriculum: {name} is {share}, but is a share, above 0 and up to 1")
        self.start, self.steps, self.ready, self.until = start, steps, ready, until
        self.step = 0

    @property
    def factor(self) -> float:
        """Contrast of the training lesions over that of the specification."""
        return float(self.start ** (1 - self.step / self.steps))

    def state_dict(self) -> dict[str, Any]:
        """How far down it is."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.step = state_dict["step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the contrast of the first epoch, or of the one that a checkpoint resumes."""
        if not trainer.max_epochs or trainer.max_epochs < 0:
            raise InputError("SubtletyCurriculum steps down over a share of the run: give --trainer.max_epochs")
        self._set(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LocalizationTask) -> None:  # type: ignore[override]
        """Log the factor of this epoch, then choose that of the next."""
        pl_module.log("train/contrast_factor", self.factor, sync_dist=True)
        assert trainer.max_epochs is not None
        assert pl_module.classes is not None
        done = (trainer.current_epoch + 1) / trainer.max_epochs
        loss = float(trainer.callback_metrics["train/loss"])
        ready = loss < self.ready * math.log(len(pl_module.classes) if pl_module.task == "multiclass" else 2)
        latest = math.floor(self.steps * min(1.0, done / self.until) + 1e-9)
        self.step = min(self.steps, max(self.step + ready, latest))
        self._set(trainer)

    def _set(self, trainer: Trainer) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, PhantomDataModule):
            raise InputError("SubtletyCurriculum changes the contrast of phantoms: use --data PhantomDataModule")
        data.set_contrast(self.factor)
