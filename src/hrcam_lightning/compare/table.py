"""The leaderboard as files: ``.csv`` with all figures, ``.md`` with a few, ``trainings.csv`` and ``costs.csv``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from hrcam_lightning.compare.leaderboard import clear_winner
from hrcam_lightning.files import replacing, write_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hrcam_lightning.compare.leaderboard import Row
    from hrcam_lightning.compare.plan import Job, Record
    from hrcam_lightning.compare.schema import Comparison

LEADERBOARD, TRAININGS, COSTS = "leaderboard", "trainings.csv", "costs.csv"


def write_leaderboard(folder: Path, rows: Sequence[Row], comparison: Comparison, title: str) -> None:
    """Write the files of a set. Nothing in them depends on how long anything took."""
    _write_csv(folder / f"{LEADERBOARD}.csv", rows, comparison.reference)
    _write_trainings(folder / TRAININGS, rows)
    header, cells = _cells(rows, comparison)
    about = (
        "Mean over trainings [95 % interval over cases and trainings], or ± standard deviation over trainings. Sorted "
        f"by {comparison.sort_by}; bold where the interval of the best is apart from all others'. Difference: to "
        f"{comparison.reference}, same cases and seeds; p by permutation over subjects, of these trainings."
    )
    lines = [
        f"# {title}",
        "",
        about,
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)),
    ]
    lines += _each_training(rows, _shown(rows, comparison))
    missing = [f"- {row.name}: {row.reason}" for row in rows if row.reason]
    lines += ["", "Not finished:", "", *missing] if missing else []
    with replacing(folder / f"{LEADERBOARD}.md") as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def leaderboard_table(rows: Sequence[Row], comparison: Comparison, title: str) -> Table:
    """As much of it as a terminal of 80 columns has room for: three metrics and the difference."""
    shown = _shown(rows, comparison)[:3]
    table = Table(title=title, title_justify="left", caption="[95 % interval over cases and trainings]")
    table.add_column("map", overflow="fold")
    for name in (*shown, f"{comparison.sort_by}:\ndifference (p)"):
        table.add_column(name.replace("/", "/\n"), justify="right", overflow="fold")
    for row in rows:
        name = f"{row.name}\n({row.kind})" if row.kind in ("floor", "failed") else row.name
        gap = _gap(row, comparison.sort_by)
        texts = [_text(row, metric) for metric in shown] + [gap]
        cells = [text.replace(" [", "\n\\[", 1) for text in texts]
        wins = [clear_winner(rows, metric) is row for metric in shown] + [False]
        table.add_row(name, *(f"[bold]{cell}[/bold]" if won else cell for cell, won in zip(cells, wins, strict=True)))
    return table


def write_costs(path: Path, jobs: Sequence[Job], records: Sequence[Record]) -> None:
    """Write what each job took."""
    rows: list[dict[str, Any]] = [
        {
            "experiment": job.experiment,
            "seed": job.seed,
            "state": record.state,
            "train_minutes": f"{record.train_seconds / 60:.3g}",
            "test_minutes": f"{record.test_seconds / 60:.3g}",
            "parameters": "" if record.parameters is None else record.parameters,
            "map_over_backbone": "" if record.map_cost is None else record.map_cost,
            "reason": record.reason,
        }
        for job, record in zip(jobs, records, strict=True)
    ]
    write_csv(path, rows, list(rows[0]))


def _write_csv(path: Path, rows: Sequence[Row], reference: str) -> None:
    table: list[dict[str, Any]] = []
    for row in rows:
        cells: dict[str, Any] = {
            "row": row.name,
            "kind": row.kind,
            "seeds": " ".join(map(str, row.seeds)),
            "cases": row.cases or "",
            "reference": reference,
        }
        for metric, found in row.estimates.items():
            cells |= {
                metric: _number(found.value),
                f"{metric}_low": _number(found.low),
                f"{metric}_high": _number(found.high),
            }
            gap = row.differences.get(metric)
            if gap is not None:
                ends = {"": gap.value, "_low": gap.low, "_high": gap.high, "_p": gap.p}
                cells |= {f"{metric}_difference{ending}": _number(value) for ending, value in ends.items()}
        for metric, (value, spread) in row.figures.items():
            cells |= {metric: _number(value)} | ({} if math.isnan(spread) else {f"{metric}_sd": _number(spread)})
        cells |= {f"efficiency/{metric}": _number(value) for metric, value in row.efficiency.items()}
        table.append({**cells, "parameters": row.parameters or "", "reason": row.reason})
    columns = list(dict.fromkeys(name for cells in table for name in cells))
    last = ["parameters", "reason"]
    write_csv(path, table, [*(name for name in columns if name not in last), *last])


def _write_trainings(path: Path, rows: Sequence[Row]) -> None:
    """All figures of every training by itself."""
    table: list[dict[str, Any]] = [
        {"row": row.name, "kind": row.kind, "seed": seed} | {name: _number(value) for name, value in figures.items()}
        for row in rows
        for seed, figures in row.trainings.items()
    ]
    write_csv(path, table, list(dict.fromkeys(name for cells in table for name in cells)) or ["row", "kind", "seed"])


def _each_training(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """A table of maps by seeds: a mean hides the training that failed. None where there is one training of each."""
    trained = [row for row in rows if row.kind in ("model", "explainer")]
    seeds = sorted({seed for row in trained for seed in row.trainings})
    if len(seeds) < 2:
        return []
    table = [["map", *(f"seed {seed}" for seed in seeds)], ["---"] * (1 + len(seeds))]
    for row in trained:
        cells = [_of_training(row.trainings[seed], shown) if seed in row.trainings else "" for seed in seeds]
        table.append([row.name, *cells])
    return ["", f"Each training, {' / '.join(shown)}:", "", *(f"| {' | '.join(cells)} |" for cells in table)]


def _of_training(figures: Mapping[str, float], shown: Sequence[str]) -> str:
    values = [figures.get(name, math.nan) for name in shown]
    return " / ".join("-" if math.isnan(value) else f"{value:.3f}" for value in values)


def _shown(rows: Sequence[Row], comparison: Comparison) -> list[str]:
    """Metrics that any row has."""
    return [metric for metric in comparison.columns if any(not math.isnan(row.value(metric)) for row in rows)]


def _cells(rows: Sequence[Row], comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    shown = _shown(rows, comparison)
    winners = {metric: clear_winner(rows, metric) for metric in shown}
    sort_by = comparison.sort_by
    paired = any(sort_by in row.differences for row in rows)
    shares = [metric for metric in shown if any(metric in row.efficiency for row in rows)]
    sized = any(row.parameters is not None for row in rows)  # the networks of a study are not kept
    header = ["map", "seeds", *shown]
    header += [f"{sort_by}: difference (p)"] * paired
    header += [*(f"{metric}: share of ceiling" for metric in shares), *["parameters"] * sized]
    cells = []
    for row in rows:
        name = f"{row.name} ({row.kind})" if row.kind in ("floor", "failed") else row.name
        texts = [f"**{_text(row, metric)}**" if winners[metric] is row else _text(row, metric) for metric in shown]
        gaps = [_gap(row, sort_by)] * paired
        efficiency = [f"{row.efficiency[metric]:.3f}" if metric in row.efficiency else "" for metric in shares]
        parameters = [f"{row.parameters:,}" if row.parameters is not None else ""] * sized
        cells.append([name, str(len(row.seeds) or ""), *texts, *gaps, *efficiency, *parameters])
    return header, cells


def _text(row: Row, metric: str) -> str:
    found = row.estimates.get(metric)
    if found is not None:
        return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    value, spread = row.figures.get(metric, (math.nan, math.nan))
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if math.isnan(spread) else f"{value:.3f} ± {spread:.3f}"


def _gap(row: Row, metric: str) -> str:
    gap = row.differences.get(metric)
    if gap is None:
        return ""
    chance = "" if math.isnan(gap.p) else f" ({gap.p:.2g})"
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]{chance}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
