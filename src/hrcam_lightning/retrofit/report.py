"""What a retrofit says of itself: ``retrofit.csv``, ``retrofit.json`` and a table on the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from hrcam_lightning.files import write_csv, write_json
from hrcam_lightning.retrofit.choice import score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hrcam_lightning.data.contract import TaskKind
    from hrcam_lightning.retrofit.choice import Candidate
    from hrcam_lightning.retrofit.features import Floats
    from hrcam_lightning.retrofit.solver import Labels


def agreement(base: Floats, head: Floats, labels: Labels, task: TaskKind) -> dict[str, float | None]:
    """How well the head, which the maps explain, stands for the base.

    Args:
        base: (N, K) logits of the base.
        head: (N, K) logits of the head.
        labels: (N,) class numbers, or (N, K) findings.
        task: Kind of label.

    Returns:
        ``base/NAME`` and ``head/NAME``, NAME being accuracy for a multiclass task and AUROC for any other; the share of
        ``same_decisions``; and the Spearman ``rank_correlation`` of the logits, averaged over classes.
    """
    if task == "multiclass":
        name, same = "accuracy", base.argmax(1) == head.argmax(1)
    else:
        name, same = "auroc", (base > 0) == (head > 0)
    varying = (np.ptp(base, 0) > 0) & (np.ptp(head, 0) > 0)
    ranks = [spearmanr(base[:, k], head[:, k]).statistic for k in np.flatnonzero(varying)]
    found = {
        f"base/{name}": score(base, labels, task),
        f"head/{name}": score(head, labels, task),
        "same_decisions": float(same.mean()),
        "rank_correlation": float(np.mean(ranks)) if ranks else math.nan,
    }
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


@dataclass(frozen=True)
class Report:
    """What is written of a retrofit, once its maps have been validated.

    Attributes:
        found: The heads to choose from.
        content: The choice, and what was read.
        task: Kind of label.
    """

    found: Sequence[Candidate]
    content: Mapping[str, Any]
    task: TaskKind

    def write(self, folder: Path) -> None:
        """Write what each λ costs to ``retrofit.csv`` and the rest to ``retrofit.json``."""
        columns = ["equivariance", "l2", "train_loss", "val_loss", "val_se", _score(self.task), "energy"]
        rows = [
            {name: _text(value) for name, value in zip(columns, _numbers(candidate), strict=True)}
            for candidate in self.found
        ]
        write_csv(folder / "retrofit.csv", rows, columns)
        write_json(folder / "retrofit.json", self.content)


def show(found: Sequence[Candidate], chosen: Candidate, task: TaskKind, match: Mapping[str, float | None]) -> None:
    """Print what each λ costs, and how the head stands to the base."""
    table = Table(
        title="retrofit", title_justify="left", caption="> chosen: the largest λ within one standard error of the best"
    )
    for name in ("", "λ", "l2", "train/loss", "val/loss", f"val/{_score(task).removeprefix('val_')}", "energy"):
        table.add_column(name, justify="right")
    for one in found:
        strength, l2, train, loss, error, value, energy = _numbers(one)
        cells = [
            f"{strength:g}",
            f"{l2:g}",
            f"{train:.4f}",
            f"{loss:.4f} ± {error:.4f}",
            f"{value:.3f}",
            f"{energy:.3g}",
        ]
        table.add_row(">" if one is chosen else "", *cells)
    console = Console()
    console.print(table)
    words = ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in match.items())
    console.print(f"Validation: {words}", highlight=False)


def _numbers(one: Candidate) -> tuple[float, ...]:
    return one.equivariance, one.l2, one.solution.loss, one.val_loss, one.val_se, one.val_score, one.solution.energy


def _score(task: TaskKind) -> str:
    return "val_accuracy" if task == "multiclass" else "val_auroc"


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
