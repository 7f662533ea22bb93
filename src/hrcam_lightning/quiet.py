"""Silence what other packages say and no user can act on."""

from __future__ import annotations

import logging
import warnings


def be_quiet() -> None:
    """Filter warnings and log messages of this process."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # Of defaults of foreign networks, such as MONAI's ("relu", {...}): they are as good as lists.
    warnings.filterwarnings("ignore", message=r"\s*Dump of a value that does not round-trip")
    # The run folder is also the checkpoints'; config.yaml stands there first.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A prediction that is resumed may have nothing left to do, and says so itself.
    warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero")
    # A retrofit starts from the checkpoint of another folder.
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_tips)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # says again what our own sentence says
    # Scanners write odd values; what matters of them is checked.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")


def _no_tips(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
