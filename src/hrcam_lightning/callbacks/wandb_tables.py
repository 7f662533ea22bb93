"""The tables and curves of an evaluation, for loggers of Weights & Biases."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.pytorch import Trainer

    from hrcam_lightning.callbacks.drawing import Pixels

NAMES = ("case", "subject", "class", "family", "curve", "map")
"""Columns that stay text whatever they hold: a case called 0001 is not the number 1."""
FIGURE_COLUMNS = ("figure", "value", "low", "high", "n", "p", "reason")


def log_evaluation(
    trainer: Trainer, stage: str, folder: Path, figures: Mapping[str, Mapping[str, Any]], curves: Pixels | None
) -> None:
    """Send what was written to disk: ``<stage>/table/metrics``, ``cases``, ``lesions``, ``curves``, and their picture.

    Args:
        trainer: Its loggers are asked.
        stage: ``val`` or ``test``.
        folder: Where the tables lie as CSV.
        figures: Content of ``metrics.json``.
        curves: Picture (H, W, 3); None if there is none.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if not loggers:
        return
    rows = [[name, *(entry.get(column) for column in FIGURE_COLUMNS[1:])] for name, entry in figures.items()]
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {"metrics": (list(FIGURE_COLUMNS), rows)}
    for path in (folder / f"{name}.csv" for name in ("cases", "lesions", "curves")):
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                header, *lines = csv.reader(file)
            numeric = [name not in NAMES and _numeric([line[i] for line in lines]) for i, name in enumerate(header)]
            cells = [[_cell(c, number) for c, number in zip(line, numeric, strict=True)] for line in lines]
            tables[path.stem] = (header, cells)
    for logger in loggers:
        for name, (columns, cells) in tables.items():
            logger.log_table(f"{stage}/table/{name}", columns, cells, step=trainer.global_step)
        if curves is not None:
            logger.log_image(f"{stage}/curves", [curves], step=trainer.global_step)


def _numeric(column: list[str]) -> bool:
    """Whether a column may be sorted as numbers; W&B wants one type a column."""
    try:
        return bool([float(text) for text in column if text])
    except ValueError:
        return False


def _cell(text: str, number: bool) -> str | float | None:
    if number:
        return float(text) if text else None
    return text
