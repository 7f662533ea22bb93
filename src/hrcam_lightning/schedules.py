"""Learning-rate schedules that span the run, by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch.utilities.types import LRSchedulerConfigType
    from torch.optim import Optimizer

Schedule = Literal["constant", "cosine", "one_cycle"]


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """Share of the optimiser's learning rate at `progress` (0 at the start of the run, 1 at its end).

    ``one_cycle`` climbs from 1/25 to 1 over the first 30 % and falls to nearly 0, both along a cosine
    (Smith & Topin 2019, as torch's OneCycleLR); ``cosine`` only falls.
    """
    if schedule == "constant":
        return 1.0
    start = 0.3 if schedule == "one_cycle" else 0.0
    if progress < start:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * progress / start)) / 2
    return max((1 + math.cos(math.pi * (min(progress, 1.0) - start) / (1 - start))) / 2, 1e-4)


def scheduler_config(
    schedule: Schedule | Callable[[Optimizer], LRScheduler],
    optimizer: Optimizer,
    total_steps: float,
    validation_every: int = 1,
) -> LRSchedulerConfigType:
    """What Lightning wants to know of a schedule.

    Args:
        schedule: A name, stepped at every batch over the whole run; or a factory of a torch scheduler, stepped at every
            epoch; if it is a plateau scheduler, at every validation, on ``val/loss``.
        optimizer: What it schedules.
        total_steps: Length of the run.
        validation_every: Epochs from one validation to the next.

    Raises:
        InputError: If a schedule that spans the run is asked for in a run without end.
    """
    if isinstance(schedule, str):
        if schedule != "constant" and not math.isfinite(total_steps):
            raise InputError(f"the schedule {schedule} spans the run, which has no end: give --trainer.max_epochs")
        name: Schedule = schedule
        scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(name, step / total_steps))
        return {"scheduler": scheduler, "interval": "step"}
    made = schedule(optimizer)
    if isinstance(made, ReduceLROnPlateau):
        return {"scheduler": made, "interval": "epoch", "frequency": validation_every, "monitor": "val/loss"}
    return {"scheduler": made, "interval": "epoch"}
