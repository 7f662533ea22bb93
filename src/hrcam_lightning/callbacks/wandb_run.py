"""What a run was, and what it led to, for loggers of Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.pytorch import Trainer

    from hrcam_lightning.data import LocalizationDataModule


def log_run(trainer: Trainer, settings: Mapping[str, Any], data: LocalizationDataModule) -> None:
    """Send the whole configuration and the hash of the data set to the run's config.

    Args:
        trainer: Its loggers are asked.
        settings: Content of ``config.yaml``.
        data: What it is trained on.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            found = {"settings": dict(settings), "data_hash": data.data_hash}
            logger.experiment.config.update(found, allow_val_change=True)


def log_checkpoint(trainer: Trainer, path: Path) -> None:
    """Send a checkpoint as an artifact of type ``model``; offline it waits for ``wandb sync``, as all else.

    Lightning's own ``log_model`` refuses to do so offline.

    Args:
        trainer: Its loggers are asked.
        path: The checkpoint.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and path.is_file():
            import wandb

            artifact = wandb.Artifact(f"{path.stem}-{logger.experiment.id}", "model")
            artifact.add_file(str(path))
            logger.experiment.log_artifact(artifact)
