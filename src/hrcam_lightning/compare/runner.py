"""Jobs as processes of their own: what ends one is a sentence in its record, and the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hrcam_lightning.compare.cost import measure
from hrcam_lightning.compare.locks import locked
from hrcam_lightning.compare.plan import Record, lost_seconds, read_record
from hrcam_lightning.compare.twins import LOCK, remove_run, take_twin
from hrcam_lightning.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hrcam_lightning.compare.plan import Job, State

LOG = "log.txt"
HRCAM = (sys.executable, "-m", "hrcam_lightning")


@contextmanager
def alone(out: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Wait until no other comparison, and no job that a killed one left behind, is at work in a folder.

    Args:
        out: The folder.
        say: Told if there is something to wait for.

    Yields:
        The lock, which the jobs inherit: it holds as long as one of them lives.

    Raises:
        InputError: If the folder cannot be written to.
    """
    check_writable(out, "--out")
    busy = f"another comparison, or a job that it left behind, is at work in {out}: waiting for its end"
    with locked(out / LOCK, busy, say) as lock:
        yield lock


class JobError(Exception):
    """A job did not come to its end; says why."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


def run_here(
    jobs: Sequence[Job], budget_minutes: float | None, lock: int, begin: Callable[[Job], None]
) -> Iterator[tuple[Job, Record]]:
    """Bring jobs to their end on this machine, one after another; what is finished is not done again.

    Args:
        jobs: Bases first.
        budget_minutes: What each may take, earlier attempts included; None for any time.
        lock: File that their processes hold open.
        begin: Told which one is about to run.

    Yields:
        Each job and its record, as they end.
    """
    for job in jobs:
        record = read_record(job.folder)
        state = job.state(record, budget_minutes)
        if record is None or state not in ("finished", "over budget"):
            begin(job)
            record = run_job(job, state, budget_minutes, lock)
        yield job, record


def run_job(job: Job, state: State, budget_minutes: float | None, lock: int | None) -> Record:
    """Bring a job to its end, from where it is, or take it from a comparison beside this one that has done the same.

    Args:
        job: What is to be done.
        state: Where it is.
        budget_minutes: What it may take, earlier attempts included; None for any time.
        lock: File that its processes hold open; None if there is none, as on another machine.

    Returns:
        What it has written to its record.
    """
    if (taken := take_twin(job)) is not None:
        return taken
    record = read_record(job.folder)
    if state != "continue" or record is None:
        if record is not None and not job.study:  # a study knows which of its trainings are still good
            remove_run(job.folder)
        record = Record(job.key, job.data_hash, tested_on=str(job.cases) if job.fresh else "")
    record = replace(lost_seconds(record, job.folder), state="started", reason="")
    record.write(job.folder)
    try:
        if job.base is not None:
            _check_base(job.base)
        if job.study or not record.fitted:
            record = replace(record, begun=time.time())
            record.write(job.folder)
            words = job.training(resume=(job.folder / "last.ckpt").is_file())
            seconds, ended = _timed(words, job.folder, _left(record, budget_minutes), lock)
            record = replace(record, begun=0.0, fitted=ended is None, train_seconds=record.train_seconds + seconds)
            record.write(job.folder)
            _raise(ended, budget_minutes)
        if not job.study:
            seconds, ended = _timed(job.testing(), job.folder, _left(record, budget_minutes), lock)
            record = replace(record, test_seconds=record.test_seconds + seconds)
            _raise(ended, budget_minutes)
            parameters, map_cost = measure(job.folder / "best.ckpt", job.cases)
            record = replace(record, parameters=parameters, map_cost=map_cost)
        record = replace(record, state="finished")
    except JobError as error:
        record = replace(record, state=error.state, reason=str(error))
    record.write(job.folder)
    return record


def _check_base(base: Job) -> None:
    of_base = read_record(base.folder)
    if of_base is None or of_base.key != base.key or not of_base.fitted:
        raise JobError("failed", f"its base {base.experiment} has no network")


def _left(record: Record, budget_minutes: float | None) -> float | None:
    return None if budget_minutes is None else 60 * budget_minutes - record.train_seconds - record.test_seconds


def _raise(ended: str | None, budget_minutes: float | None) -> None:
    if ended == "":
        raise JobError("over budget", f"killed at its budget of {budget_minutes:g} min")
    if ended:
        raise JobError("failed", ended)


def _timed(words: Sequence[str], folder: Path, limit: float | None, lock: int | None) -> tuple[float, str | None]:
    """Run ``hrcam`` with these words.

    Returns:
        Seconds, and why it failed: None if it did not, empty if it was killed at the limit.
    """
    started = time.monotonic()
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ hrcam {' '.join(words)}\n")
        log.flush()
        process = subprocess.Popen(
            [*HRCAM, *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=() if lock is None else [lock],
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit if limit is None else max(0.0, limit))
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also where the comparison itself is interrupted
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.monotonic() - started
    if code is None:
        return seconds, ""
    return seconds, _why(code, folder / LOG) if code else None


def _why(code: int, log: Path) -> str:
    """The sentence that a failed command left at the end of its log."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}{' (out of memory?)' * (code == -signal.SIGKILL)}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].removeprefix('hrcam: error: ')[:300]} (exit code {code}; {LOG})"
