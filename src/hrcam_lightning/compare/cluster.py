"""The jobs of a comparison on a SLURM cluster, by submitit: each a job of its own, waited for here."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from hrcam_lightning.compare.plan import Record, read_record
from hrcam_lightning.compare.runner import run_job
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import submitit
    from submitit import SlurmExecutor

    from hrcam_lightning.compare.plan import Job, State

FOLDER = "slurm"
SUBMITTED = "submitted.json"
LOOK_SECONDS = 5.0  # between two looks for results; how often SLURM itself is asked, submitit decides
SPARE_MINUTES = 10  # of the time asked for, beyond the budget: for the start and for what is read at the end


@dataclass
class Cluster:
    """Where jobs are submitted to, and which ones are there, also those of an earlier command.

    Attributes:
        folder: Of submitit's files and logs; all nodes must see it under this name.
        executor: Of submitit.
        budget_minutes: What a job may take; None for any time.
    """

    folder: Path
    executor: SlurmExecutor
    budget_minutes: float | None

    def run(self, jobs: Sequence[Job], begin: Callable[[Job], None]) -> Iterator[tuple[Job, Record]]:
        """Submit all that are not finished, each as soon as its base has ended, and wait for them.

        Args:
            jobs: Bases first.
            begin: Told which one is about to be submitted.

        Yields:
            Each job and its record, as they end.

        Raises:
            InputError: If an earlier command left a job at work that has another configuration.
        """
        waiting = list(jobs)
        running = {job.name: (job, left) for job in jobs if (left := self._left_behind(job)) is not None}
        while waiting or running:
            for job in [one for one in waiting if one.base is None or self._ended(one.base, waiting, running)]:
                waiting.remove(job)
                record = read_record(job.folder)
                state = job.state(record, self.budget_minutes)
                if job.name in running:
                    continue
                if record is not None and state in ("finished", "over budget"):
                    yield job, record
                    continue
                begin(job)
                running[job.name] = job, self._submit(job, state)
            for name, (job, handle) in list(running.items()):
                if handle.done():
                    del running[name]
                    yield job, self._ending(job, handle)
            if running:
                time.sleep(LOOK_SECONDS)

    @staticmethod
    def _ended(base: Job, waiting: Sequence[Job], running: dict[str, Any]) -> bool:
        return base.name not in running and all(base.name != one.name for one in waiting)

    def _submit(self, job: Job, state: State) -> submitit.Job[Record]:
        self.executor.update_parameters(job_name=f"hrcam {job.name}")
        handle: submitit.Job[Record] = self.executor.submit(run_on_node, job, state, self.budget_minutes)
        write_json(self.folder / SUBMITTED, self._submitted() | {job.name: [job.key, handle.job_id]})
        return handle

    def _submitted(self) -> dict[str, list[str]]:
        path = self.folder / SUBMITTED
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def _left_behind(self, job: Job) -> submitit.Job[Record] | None:
        """A job that an earlier command submitted and that has not ended."""
        key, number = self._submitted().get(job.name, (job.key, ""))
        if not number:
            return None
        handle: submitit.Job[Record] = self.executor.job_class(self.folder, number)
        if handle.done(force_check=True):
            return None
        if key != job.key:
            raise InputError(
                f"SLURM job {number} is still at work on {job.folder}, by another configuration: wait, or scancel it"
            )
        return handle

    @staticmethod
    def _ending(job: Job, handle: submitit.Job[Record]) -> Record:
        """Its record; one that SLURM ended before its time says so."""
        if handle.paths.result_pickle.exists() and handle.exception() is None:
            return handle.result()
        reason = f"SLURM job {handle.job_id} ended as {handle.state} (see {handle.paths.stderr})"
        record = replace(read_record(job.folder) or Record(job.key, job.data_hash), state="failed", reason=reason)
        record.write(job.folder)
        return record


def open_cluster(options: str, out: Path, budget_minutes: float | None) -> Cluster:
    """Look for SLURM.

    Args:
        options: YAML mapping of options of ``sbatch``, as `submitit.SlurmExecutor` names them: ``{partition: gpu}``.
        out: Folder of the comparison.
        budget_minutes: What a job may take; sets the time that is asked for, if the options do not.

    Raises:
        InputError: If submitit or SLURM is not installed, or the options are not understood.
    """
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise InputError("--slurm needs submitit: pip install 'hrcam-lightning[cluster]'") from error
    try:
        given = yaml.safe_load(options)
    except yaml.YAMLError:
        given = options
    if not isinstance(given, dict):
        raise InputError(f"--slurm is {options!r}, but takes a mapping, such as '{{partition: gpu, gpus_per_node: 1}}'")
    if "time" not in given:
        if budget_minutes is None:
            raise InputError("--slurm has no 'time' (minutes), and the comparison no budget_minutes: give one of them")
        given["time"] = int(budget_minutes) + SPARE_MINUTES
    try:
        executor = SlurmExecutor(out.absolute() / FOLDER)
        executor.update_parameters(**given)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"--slurm: {' '.join(str(error).split())[:300]}") from error
    return Cluster(out.absolute() / FOLDER, executor, budget_minutes)


def run_on_node(job: Job, state: State, budget_minutes: float | None) -> Record:
    """What SLURM runs: a job as on a machine of one's own.

    Lightning is not to take the one task for one of its processes: those it starts itself, one a device.
    """
    os.environ["SLURM_JOB_NAME"] = "interactive"
    return run_job(job, state, budget_minutes, None)
