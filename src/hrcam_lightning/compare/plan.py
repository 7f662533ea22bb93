"""The jobs of a comparison: what is typed for each, what it is known by, and how far it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from hrcam_lightning.callbacks.explainers import explainers_of
from hrcam_lightning.callbacks.localization import DEFAULT
from hrcam_lightning.checkpoints import find_checkpoint
from hrcam_lightning.compare.studies import ORIGINAL, check_reference, trainings_of
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from hrcam_lightning.compare.schema import Comparison, Experiment, Wish

RECORD = "job.json"

State = Literal["finished", "elsewhere", "continue", "new", "changed", "over budget"]


@dataclass(frozen=True)
class Record:
    """What a job leaves of itself in ``job.json``.

    Attributes:
        key: Hash of all that it depends on.
        data: Hash of its set.
        state: ``started``, ``finished``, ``failed`` or ``over budget``.
        reason: Why it is not finished.
        fitted: Whether its training is done.
        begun: When the training at hand was started, in seconds of the epoch; 0 if none is.
        train_seconds: Spent on training, in all attempts.
        test_seconds: Spent on the test, in all attempts.
        parameters: Of the network; None if not known.
        map_cost: Time of logits and maps over that of the backbone alone; None if not known.
        taken_from: Folder in another comparison that it was copied from; empty if it was done here.
        tested_on: Table of the test cases where it was trained on fresh phantoms; empty if its configuration says all.
    """

    key: str
    data: str
    state: str = "started"
    reason: str = ""
    fitted: bool = False
    begun: float = 0.0
    train_seconds: float = 0.0
    test_seconds: float = 0.0
    parameters: int | None = None
    map_cost: float | None = None
    taken_from: str = ""
    tested_on: str = ""

    def write(self, folder: Path) -> None:
        """Write it."""
        write_json(folder / RECORD, asdict(self))


def read_record(folder: Path) -> Record | None:
    """The record of a job; None if there is none.

    Raises:
        InputError: If the folder holds something else, or the record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds something that no comparison made: choose another --out")
        return None
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}); remove {folder}") from error


def test_data(folder: Path) -> list[str]:
    """Words that bring the configuration of a run to the cases that it was tested on; none of most runs.

    What was trained on fresh phantoms has those in its configuration, and was tested on the table of a set.
    """
    record = read_record(folder) if (folder / RECORD).is_file() else None
    return _table_words(record.tested_on) if record and record.tested_on else []


def _table_words(cases: str) -> list[str]:
    return ["--data", "CaseDataModule", "--data.cases", cases]


@dataclass(frozen=True)
class Job:
    """A training and its test, or a study.

    Attributes:
        experiment: Name of the experiment.
        data: Name of the set.
        seed: Of the training.
        folder: Where it writes.
        cases: Table of the set.
        data_hash: Of the set.
        words: What is typed after ``hrcam`` for the training or the study, but for what `training` adds.
        explainers: Rows of the test beside its own map.
        key: Hash of all that it depends on.
        base: The job whose network is taken.
        study: Whether it is a study, which is its own test.
        fresh: Whether it is trained on phantoms drawn as it trains, and tested on those of the table.
    """

    experiment: str
    data: str
    seed: int
    folder: Path
    cases: Path
    data_hash: str
    words: tuple[str, ...]
    explainers: tuple[Wish, ...]
    key: str
    base: Job | None = None
    study: bool = False
    fresh: bool = False

    @property
    def name(self) -> str:
        """Short name."""
        return f"{self.data}/{self.experiment}/seed_{self.seed}"

    @property
    def row(self) -> str:
        """The row that tells of it; a study has more."""
        return f"{self.experiment}/{ORIGINAL}" if self.study else self.experiment

    @property
    def results(self) -> Path:
        """Where its ``cases.csv`` is and, once all is done, its ``metrics.json``."""
        return self.folder / ("filtered_retrain" if self.study else "test")

    def training(self, *, resume: bool = False) -> list[str]:
        """What is typed to train; a study goes on by itself."""
        start = ["--ckpt_path", str(self.base.folder / "best.ckpt")] if self.base else []
        if resume and not self.base and not self.study:
            start = ["--ckpt_path", "last"]
        # Other phantoms for every seed, and none of the set, which is of seed 0.
        data = ["--data.seed", str(self.seed + 1)] if self.fresh else ["--data.cases", str(self.cases)]
        more = [
            *data, "--seed_everything", str(self.seed),
            "--trainer.default_root_dir", str(self.folder), "--trainer.enable_progress_bar", "false",
        ]  # fmt: skip
        return [*self.words, *more, *start]

    def testing(self) -> list[str]:
        """What is typed to test."""
        data = _table_words(str(self.cases)) if self.fresh else []
        return [
            "test", "-c", str(self.folder / "config.yaml"), "--ckpt_path", str(self.folder / "best.ckpt"),
            "--trainer.default_root_dir", str(self.folder), "--explainers", json.dumps(self.explainers), *data,
        ]  # fmt: skip

    def state(self, record: Record | None, budget_minutes: float | None) -> State:
        """How far it is."""
        if record is None:
            return "new"
        if record.key != self.key:
            return "changed"
        if record.state == "finished" and (self.results / "metrics.json").is_file():
            return "finished"
        if record.state == "over budget" and budget_minutes is not None:
            spent = record.train_seconds + record.test_seconds
            if spent >= 60 * budget_minutes:
                return "over budget"
        return "continue" if record.fitted or _resumable(self.folder) else "new"


def _resumable(folder: Path) -> bool:
    """Whether a training or a study can go on; a checkpoint that was cut short cannot."""
    if trainings_of(folder):
        return True
    try:
        find_checkpoint("last", str(folder))
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class Plan:
    """All jobs of a comparison, seed by seed and bases first."""

    jobs: tuple[Job, ...]
    floors: frozenset[str] = field(default_factory=frozenset)


def make_plan(
    comparison: Comparison, out: Path, hashes: Mapping[str, str], version: str, resolve: Callable[[Sequence[str]], str]
) -> Plan:
    """Lay out the jobs, and look at every configuration once.

    Args:
        comparison: What is compared.
        out: Folder of the comparison.
        hashes: Of each set, by name.
        version: Of this package.
        resolve: From the words of a command to the configuration that they come to, as YAML.

    Raises:
        InputError: If a configuration or an explainer cannot be read, or two rows would have one name.
    """
    by_name = {one.name: one for one in comparison.experiments}
    jobs: dict[tuple[str, str, int], Job] = {}
    floors: set[str] = set()
    others: set[str] = set()
    laid: dict[tuple[str, str | None], tuple[tuple[str, ...], str, tuple[Wish, ...]]] = {}
    specs = tuple(dict.fromkeys(data.spec for data in comparison.data))
    for one in comparison.experiments:
        try:
            own = () if one.study else DEFAULT
            rows = (*one.explainers, *(floor for floor in own if floor not in one.explainers))
            made = explainers_of(rows)
            floors |= {row.name for row in made if row.floor}
            others |= {row.name for row in made if not row.floor}
            for spec in specs:
                words = _words(one, by_name, spec)
                resolved = resolve(words if spec else (*words, "--data.cases", "cases.csv"))
                laid[one.name, spec] = words, resolved, rows
                if one.study:
                    check_reference(comparison.reference, one.name, resolved)
        except InputError as error:
            said = str(error)
            if "PhantomDataModule" in said and "'cases' is not accepted" in said:
                said = "its data are phantoms, but it is to be trained on a set's cases; give the set 'fresh: true'"
            raise InputError(f"experiments.{one.name}: {said}") from None
    _refuse_floors(floors, by_name, others)
    for data in comparison.data:
        # Seed by seed: what is stopped early is the whole table of fewer seeds.
        for seed in comparison.seeds:
            for one in comparison.experiments:
                words, resolved, rows = laid[one.name, data.spec]
                base = jobs[data.name, one.retrofit, seed] if one.retrofit else None
                facts = [version, hashes[data.name], resolved, list(rows), seed, base.key if base else None]
                key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
                folder = out / data.name / one.name / f"seed_{seed}"
                jobs[data.name, one.name, seed] = Job(
                    one.name, data.name, seed, folder, data.cases, hashes[data.name], words, rows, key, base, one.study,
                    data.fresh,
                )  # fmt: skip
    return Plan(tuple(jobs.values()), frozenset(floors))


def _refuse_floors(floors: set[str], experiments: Collection[str], others: set[str]) -> None:
    """A floor has a row of its own, without an experiment before its name: no other row may be called so."""
    for name in sorted(floors.intersection(experiments)):
        raise InputError(f"experiments.{name} is called like a floor, a row of its own: give it another name")
    for name in sorted(floors & others):
        raise InputError(f"explainers: {name} is a floor in one experiment and none in another: give one another name")


def _words(one: Experiment, by_name: Mapping[str, Experiment], spec: str | None) -> tuple[str, ...]:
    base = by_name[one.retrofit] if one.retrofit else one
    configs = [word for config in base.configs for word in ("-c", config)]
    if spec:  # before the overrides, which may be of the phantoms
        configs += ["--data", "PhantomDataModule", "--data.spec", spec, "--data.fresh", "true"]
    if one.study:  # a seed a job: folds and their maps are then drawn anew with each
        return "filtered-retrain", *configs, *one.overrides, "--seeds", "1"
    if base is one:
        return "fit", *configs, *one.overrides
    return "retrofit", *configs, *base.overrides, *one.overrides


def check_records(plan: Plan) -> dict[str, Record | None]:
    """The record of each job, by its name.

    Raises:
        InputError: If a job is of other data than those that are there now, or its folder is not of a comparison.
    """
    records = {job.name: read_record(job.folder) for job in plan.jobs}
    for job in plan.jobs:
        record = records[job.name]
        if record is not None and record.data != job.data_hash:
            raise InputError(
                f"{job.cases} has changed since {job.folder} was trained on it: restore it, or choose another --out"
            )
    return records


def lost_seconds(record: Record, folder: Path) -> Record:
    """Count what a killed training had kept: the time until its last checkpoint, or a study's last training."""
    files = [path for path in (folder / "last.ckpt", *trainings_of(folder)) if path.is_file()]
    kept = max((path.stat().st_mtime - record.begun for path in files), default=0.0) if record.begun else 0.0
    return replace(record, begun=0.0, train_seconds=record.train_seconds + max(0.0, kept))
