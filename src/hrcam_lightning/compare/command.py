"""``hrcam compare``: from a list of configurations to a leaderboard."""

from __future__ import annotations

import functools
import signal
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hrcam_lightning.compare.cluster import open_cluster
from hrcam_lightning.compare.datasets import check_data, data_hash, draw
from hrcam_lightning.compare.leaderboard import Row, leaderboard, ordered
from hrcam_lightning.compare.plan import check_records, make_plan, read_record
from hrcam_lightning.compare.runner import alone, run_here
from hrcam_lightning.compare.schema import read_comparison
from hrcam_lightning.compare.scores import read_run
from hrcam_lightning.compare.studies import read_study
from hrcam_lightning.compare.table import COSTS, TRAININGS, leaderboard_table, write_costs, write_leaderboard
from hrcam_lightning.compare.twins import find_twin
from hrcam_lightning.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hrcam_lightning.compare.cluster import Cluster
    from hrcam_lightning.compare.plan import Job, Plan, Record, State
    from hrcam_lightning.compare.schema import Comparison, DataSet
    from hrcam_lightning.compare.scores import Run

SUMMARY = "Train, retrofit and test a matrix of experiments, seeds and data sets, and write a leaderboard."
NOT_DRAWN = "not drawn yet"


def run(args: Sequence[str], version: str, resolve: Callable[[Sequence[str]], str]) -> None:
    """Run ``hrcam compare`` with the words that follow it.

    Args:
        args: The words.
        version: Of this package.
        resolve: From the words of a command to the configuration that they come to.

    Raises:
        InputError: If the comparison cannot be run; nothing was trained by then.
    """
    arguments = _parser().parse_args(args)
    comparison = read_comparison(arguments.config, small=arguments.small)
    out: Path = arguments.out or Path("runs/compare") / comparison.name
    known = functools.cache(lambda words: resolve(list(words)))  # each is asked for twice, and takes seconds
    console = Console(soft_wrap=True, highlight=False)
    cluster = None if arguments.slurm is None else open_cluster(arguments.slurm, out, comparison.budget_minutes)
    for data in comparison.data:
        check_data(data)
    if arguments.dry_run:
        hashes = {one.name: data_hash(one.cases) if one.cases.is_file() else NOT_DRAWN for one in comparison.data}
        plan = make_plan(comparison, out, hashes, version, known)
        console.print(*_shown(plan, comparison), sep="\n")
        return
    # Every configuration is looked at before anything is drawn, which may take long.
    make_plan(comparison, out, dict.fromkeys((one.name for one in comparison.data), NOT_DRAWN), version, known)
    # So that the job at hand is ended too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with alone(out, console.print) as lock:
            hashes = {one.name: _ready(one, console.print) for one in comparison.data}
            plan = make_plan(comparison, out, hashes, version, known)
            check_records(plan)
            _run_all(plan, comparison, cluster or lock, console)
            for data in comparison.data:
                _conclude(plan, comparison, data, out / data.name, console)
    except KeyboardInterrupt:
        console.print("Interrupted: the same command goes on where this one stopped.")
        if cluster:
            console.print("What was submitted goes on; the same command waits for it, scancel ends it.")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)  # for a script that calls this and goes on


def _parser() -> WordParser:
    parser = WordParser(prog="hrcam compare", description=SUMMARY)
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="YAML", help="file of configs/compare/")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="runs/compare/NAME if not given")
    parser.add_argument("--small", action="store_true", help="the small form: its section 'small'")
    parser.add_argument(
        "--slurm", nargs="?", const="{}", metavar="OPTIONS",
        help="submit each job to SLURM, with options of sbatch as YAML: '{partition: gpu, gpus_per_node: 1}'",
    )  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="print what would be done, and an estimate")
    return parser


def _ready(data: DataSet, say: Callable[[str], None]) -> str:
    draw(data, say)
    return data_hash(data.cases)


def _shown(plan: Plan, comparison: Comparison) -> tuple[Table, str]:
    """What is to be done, and how long it may take by what was done before."""
    records = check_records(plan)
    states = {job.name: _state(job, records[job.name], comparison.budget_minutes) for job in plan.jobs}
    table = Table(title=f"{comparison.name}: {len(plan.jobs)} jobs", title_justify="left")
    for column in ("job", "state", "command"):
        table.add_column(column, overflow="fold")
    for job in plan.jobs:
        record, goes_on = records[job.name], states[job.name] == "continue"
        tested = goes_on and record is not None and record.fitted and not job.study
        words = " ".join(("hrcam", *(job.testing() if tested else job.training(resume=goes_on))))
        table.add_row(job.name, states[job.name], words.replace("[", "\\["))
    return table, _estimate(plan, records, states)


def _state(job: Job, record: Record | None, budget_minutes: float | None) -> State:
    """How far it is, or whether another comparison has done it."""
    state = job.state(record, budget_minutes)
    return "elsewhere" if state not in ("finished", "over budget") and find_twin(job) else state


def _estimate(plan: Plan, records: Mapping[str, Record | None], states: Mapping[str, State]) -> str:
    took: dict[str, list[float]] = {}
    for job in plan.jobs:
        record = records[job.name]
        if record is not None and states[job.name] == "finished":
            seconds = record.train_seconds + record.test_seconds
            for name in ("", job.experiment):
                took.setdefault(name, []).append(seconds)
    left = [job for job in plan.jobs if states[job.name] not in ("finished", "elsewhere", "over budget")]
    if not left:
        return "Nothing is left to do."
    if not took:
        return f"{len(left)} jobs to do; no estimate, for none is finished."
    seconds = sum(statistics.mean(took.get(job.experiment, took[""])) for job in left)
    return f"{len(left)} jobs to do: about {seconds / 60:.0f} min, by the {len(took[''])} that are finished."


def _run_all(plan: Plan, comparison: Comparison, where: Cluster | int, console: Console) -> None:
    """Bring all jobs to their end, on a cluster, or here under a lock."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    budget = comparison.budget_minutes
    states = {job.name: job.state(read_record(job.folder), budget) for job in plan.jobs}
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(comparison.name, total=len(plan.jobs))

        def begin(job: Job) -> None:
            bar.update(task, description=job.name)

        ended = run_here(plan.jobs, budget, where, begin) if isinstance(where, int) else where.run(plan.jobs, begin)
        for job, record in ended:
            if states[job.name] == "finished":
                console.print(f"{job.name}: done before")
            elif record.taken_from:
                console.print(f"{job.name}: copied from {record.taken_from}", markup=False)
            elif states[job.name] != "over budget":
                minutes = (record.train_seconds + record.test_seconds) / 60
                console.print(f"{job.name}: {record.state}, {minutes:.1f} min {record.reason}".rstrip(), markup=False)
            bar.advance(task)


def _conclude(plan: Plan, comparison: Comparison, data: DataSet, folder: Path, console: Console) -> None:
    """Write and show the leaderboard of a set, of what is finished."""
    jobs = [job for job in plan.jobs if job.data == data.name]
    records = [_record_of(job) for job in jobs]
    runs: dict[str, dict[int, Run]] = {}
    reasons: dict[str, list[str]] = {}
    sizes: dict[str, int | None] = {}
    cases: tuple[str, ...] | None = None
    for job, record in zip(jobs, records, strict=True):
        if record.state == "finished":
            made = read_study(job.results, job.experiment) if job.study else {job.row: read_run(job.results)}
            cases = cases or made[job.row].cases
            if made[job.row].cases == cases:
                for name, one in made.items():
                    runs.setdefault(name, {})[job.seed] = one
                sizes[job.row] = record.parameters
                continue
            record = replace(record, reason="its test cases are others than those of the first run")
        reasons.setdefault(job.row, []).append(f"seed {job.seed}: {record.reason}")
    rows = leaderboard(runs, comparison.reference, plan.floors) if runs else []
    rows = [replace(row, parameters=sizes.get(row.name), reason="; ".join(reasons.get(row.name, []))) for row in rows]
    rows += [Row(name, "failed", reason="; ".join(texts)) for name, texts in reasons.items() if name not in runs]
    rows = ordered(rows, comparison.sort_by)
    title = f"{comparison.name} on {data.name}"
    write_leaderboard(folder, rows, comparison, title)
    write_costs(folder / COSTS, jobs, records)
    console.print(leaderboard_table(rows, comparison, title))
    for row in rows:
        if row.reason:
            console.print(f"{row.name}: {row.reason}", markup=False)
    console.print(f"Files: leaderboard.csv, leaderboard.md, {TRAININGS} and {COSTS} in {folder}")


def _record_of(job: Job) -> Record:
    record = read_record(job.folder)
    assert record is not None  # every job was run
    return record
