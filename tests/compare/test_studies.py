"""Studies of ``hrcam filtered-retrain`` as the experiments of a comparison."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from hrcam_lightning.cli import main
from hrcam_lightning.compare import command, runner
from hrcam_lightning.compare.leaderboard import leaderboard
from hrcam_lightning.compare.plan import Record, lost_seconds, make_plan
from hrcam_lightning.compare.schema import read_comparison
from hrcam_lightning.compare.studies import read_study
from hrcam_lightning.errors import InputError
from hrcam_lightning.filtered import study
from hrcam_lightning.filtered.training import train
from tests.command_line import rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

STAND_IN = Path(__file__).with_name("stand_in.py")
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "reference": "mine/original",
    "seeds": [0, 1],
    "data": {"demo": {"cases": "set/cases.csv"}},
    "experiments": {
        "own": {"filtered_retrain": ["a.yaml", "b.yaml"], "overrides": ["--folds 2"]},
        "mine": {"filtered_retrain": ["a.yaml"], "overrides": ["--negatives positive"]},
    },
}


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False), encoding="utf-8")
    return path


def _resolve(words: Sequence[str]) -> str:
    return yaml.safe_dump({"kinds": ["inside"], "words": list(words)})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "mixed": (
        {"experiments": {**CONTENT["experiments"], "ours": {"configs": ["a.yaml"]}}},
        "experiments.own is a study and experiments.ours is none",
    ),
    "head on a study": (
        {"experiments": {**CONTENT["experiments"], "cured": {"retrofit": "own"}}},
        "experiments.own is a study and experiments.cured is none",
    ),
    "two ways": (
        {"experiments": {"mine": {"filtered_retrain": ["a.yaml"], "configs": ["a.yaml"]}}},
        "experiments.mine needs either 'configs', to be trained, or 'retrofit'",
    ),
    "files": (
        {"experiments": {"mine": {"filtered_retrain": "a.yaml"}}},
        "experiments.mine.filtered_retrain is 'a.yaml', but is a list of files",
    ),
    "explainers": ({"explainers": ["gradcam"]}, "experiments.own is a study, which has no rows of explainers"),
    "seeds": ({"common": ["--seeds=3"]}, "gives --seeds=3, which the comparison gives itself"),
    "metric": ({"sort_by": "pixel_ap"}, "know no metric 'pixel_ap' of studies; there are auroc, accuracy"),
    "reference": ({"reference": "yours/original"}, "reference is 'yours/original', which is none of the experiments"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    changes, message = WRONG[name]
    with pytest.raises(InputError) as caught:
        read_comparison(_write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_is_one_command_of_one_seed(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path))
    assert (comparison.sort_by, comparison.columns) == ("auroc", ("auroc", "accuracy"))
    plan = make_plan(comparison, tmp_path, {"demo": "h"}, "1", _resolve)
    assert [job.name for job in plan.jobs] == [
        f"demo/{name}/seed_{seed}" for seed in (0, 1) for name in ("own", "mine")
    ]
    job = plan.jobs[2]
    assert " ".join(job.training()) == (
        "filtered-retrain -c a.yaml -c b.yaml --folds 2 --seeds 1 --data.cases set/cases.csv --seed_everything 1 "
        f"--trainer.default_root_dir {tmp_path}/demo/own/seed_1 --trainer.enable_progress_bar false"
    )
    assert job.training(resume=True) == job.training()  # it finds by itself what is done
    assert job.explainers == ()
    assert plan.floors == frozenset()
    assert len({job.key for job in plan.jobs}) == 4


@pytest.mark.parametrize("reference", ["mine", "mine/outside"])
def test_a_reference_that_no_study_leaves_is_refused(reference: str, tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path, reference=reference))
    with pytest.raises(
        InputError, match=rf"experiments.mine: reference is '{reference}', .*are mine/original, mine/inside$"
    ):
        make_plan(comparison, tmp_path, {"demo": "h"}, "1", _resolve)
    inside = read_comparison(_write(tmp_path, reference="mine/inside"))
    assert len(make_plan(inside, tmp_path, {"demo": "h"}, "1", _resolve).jobs) == 4


def test_how_far_a_study_is(tmp_path: Path) -> None:
    job = make_plan(read_comparison(_write(tmp_path)), tmp_path, {"demo": "h"}, "1", _resolve).jobs[0]
    mine = Record(job.key, "h", begun=time.time() - 30, train_seconds=5)
    (job.folder / "filtered_retrain/maps").mkdir(parents=True)
    (job.folder / "filtered_retrain/maps/.part-fold_0-x.npy").touch()  # killed as it was written
    assert job.state(mine, None) == "new"
    assert lost_seconds(mine, job.folder).train_seconds == 5
    (job.folder / "filtered_retrain/maps/fold_0-x.npy").touch()
    assert job.state(mine, None) == "continue"
    assert lost_seconds(mine, job.folder).train_seconds == pytest.approx(35, abs=2)
    again = replace(mine, begun=time.time() + 30)  # killed before it had finished another
    assert lost_seconds(again, job.folder).train_seconds == 5
    finished = replace(mine, state="finished", fitted=True)
    assert job.state(finished, None) == "continue"
    (job.folder / "filtered_retrain/metrics.json").touch()
    assert job.state(finished, None) == "finished"


def _study_of(folder: Path, **logits: Sequence[float]) -> Path:
    """The files of a study of four cases, of which the last two are positive, and two subjects."""
    folder.mkdir(parents=True)
    columns = [f"{kind}/seed_7" for kind in logits]
    lines = [",".join(["case", "subject", "label", *columns])]
    for number in range(4):
        values = [str(of[number]) for of in logits.values()]
        lines.append(",".join([f"c{number}", f"p{number % 2}", str(int(number > 1)), *values]))
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    areas = {kind: {"value": 0.5} for kind in logits}
    (folder / "metrics.json").write_text(json.dumps({"auroc": areas}), encoding="utf-8")
    return folder


def test_each_kind_of_a_study_is_a_row(tmp_path: Path) -> None:
    # 50 and 60 are one probability, of which the wrong order would be a tie
    folder = _study_of(tmp_path / "study", original=[-1, -2, 50, 60], inside=[60, -1, 50, -0.5], soft=[1, 2, 3, 4])
    found = read_study(folder, "own")
    assert list(found) == ["own/original", "own/inside", "own/soft"]
    assert found["own/soft"].cases == ("c0", "c1", "c2", "c3")
    assert found["own/soft"].subjects == ("p0", "p1", "p0", "p1")
    rows = {row.name: row for row in leaderboard({name: {7: run} for name, run in found.items()}, "own/original")}
    assert {name: row.estimates["auroc"].value for name, row in rows.items()} == {
        "own/original": 1, "own/inside": 0.5, "own/soft": 1,
    }  # fmt: skip
    assert {name: row.estimates["accuracy"].value for name, row in rows.items()} == {
        "own/original": 1, "own/inside": 0.5, "own/soft": 0.5,
    }  # fmt: skip
    gap = rows["own/inside"].differences
    assert (gap["auroc"].value, gap["accuracy"].value) == (-0.5, -0.5)
    assert np.isnan(gap["auroc"].p)
    assert gap["accuracy"].p == 0.5  # both subjects are worse: 2 of the 4 ways to swap them are as far apart


def test_a_study_that_was_cut_short_is_one_sentence(tmp_path: Path) -> None:
    folder = _study_of(tmp_path / "study", original=[-1, -2, 1, 2])
    whole = (folder / "cases.csv").read_text(encoding="utf-8")
    for text in (whole[: whole.index("c1,") + 4], "", whole.replace("-2", "half")):
        (folder / "cases.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"study: its cases.csv or metrics.json is damaged"):
            read_study(folder, "own")


@pytest.fixture
def workshop(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where studies take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "HRCAM", (sys.executable, str(STAND_IN)))
    Path("set").symlink_to(tiny_set)
    return tmp_path


def _compare(folder: Path, **changes: Any) -> Path:
    command.run(["-c", str(_write(folder, **changes)), "--out", "out"], "1", _resolve)
    return Path("out/demo")


def _boards(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.md")}


def test_a_killed_study_goes_on_and_the_leaderboard_is_the_same(workshop: Path) -> None:
    whole = _boards(_compare(workshop))
    rows = {row["row"]: row for row in rows_of(Path("out/demo/leaderboard.csv"))}
    assert list(rows) == ["mine/original", "own/original", "mine/inside", "own/inside"]
    assert [row["auroc"] for row in rows.values()] == ["1", "1", "0.5", "0.5"]
    assert rows["own/inside"]["auroc_difference"] == "-0.5"
    assert rows["own/original"]["auroc_difference"] == "0"
    assert "parameters" not in whole["leaderboard.md"].decode()
    Path("before").mkdir()
    Path("out").rename("before/out")  # beside it, its studies would be taken
    Path("die").touch()
    folder = _compare(workshop)
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert rows["own/original"]["reason"].startswith("seed 0: killed by SIGKILL")
    assert (rows["own/original"]["seeds"], rows["own/inside"]["reason"]) == ("1", "")
    _compare(workshop)
    assert _boards(folder) == whole
    log = (folder / "own/seed_0/log.txt").read_text().splitlines()
    assert [line for line in log if line.startswith("training")] == ["training 0", "training 1", "training 2"]
    assert [line.split()[2] for line in log if line.startswith("$ ")] == ["filtered-retrain"] * 2

    (folder / "mine/seed_1/filtered_retrain/metrics.json").unlink()
    _compare(workshop)
    assert _boards(folder) == whole

    other = {"filtered_retrain": ["a.yaml"], "overrides": ["--folds 3"]}  # edited: what is still good is kept
    _compare(workshop, experiments={**CONTENT["experiments"], "own": other})
    assert (folder / "own/seed_0/log.txt").read_text().splitlines()[:-1] == log
    assert (folder / "mine/seed_0/log.txt").read_text().count("$ hrcam") == 1


def test_a_study_that_failed_is_a_row_that_says_why(workshop: Path) -> None:
    broken = {"filtered_retrain": ["a.yaml"], "overrides": ["--fail 'folds is 9'"]}
    folder = _compare(workshop, experiments={**CONTENT["experiments"], "own": broken})
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert rows["own/original"]["reason"] == "seed 1: folds is 9 (exit code 2; log.txt)"
    assert rows["own/original"]["seeds"] == "0"
    assert rows["mine/original"]["seeds"] == "0 1"
    folder = _compare(workshop, experiments={**CONTENT["experiments"], "own": broken}, seeds=[1])
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "mine/original": "model", "mine/inside": "model", "own/original": "failed",
    }  # fmt: skip


def test_real_studies_of_two_seeds(tmp_path: Path, spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in this process, of which only the start as a process of its own is left out."""
    monkeypatch.chdir(tmp_path)
    model = {"backbone": {"class_path": "ConvPyramid", "init_args": {"width": 2, "depth": 2}}, "decoder": "CAM"}
    trainer = {"max_epochs": 1, "accelerator": "cpu"}
    data = {"class_path": "CaseDataModule", "init_args": {"cases": "x.csv", "batch_size": 4}}
    Path("study.yaml").write_text(
        yaml.safe_dump({"trainer": trainer, "model": model, "data": data, "folds": 2, "kinds": ["inside"]})
    )
    _write(
        tmp_path,
        reference="own/original",
        data={"drawn": {"cases": "data/cases.csv", "generate": f"{spec_path} --seed 3"}},
        experiments={"own": {"filtered_retrain": ["study.yaml"]}},
    )
    begun: list[int] = []

    def watched(*args: Any) -> object:
        begun.append(args[4])
        return train(*args)

    def here(words: list[str], *_: Any) -> tuple[float, None]:
        main(words)
        return 1.0, None

    monkeypatch.setattr(study, "train", watched)
    monkeypatch.setattr(runner, "_timed", here)
    main(["compare", "-c", "compare.yaml"])
    assert begun == [0] * 4 + [1] * 4  # two folds and two kinds of each seed
    folder = Path("runs/compare/tiny/drawn")
    found = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert set(found) == {"own/original", "own/inside"}
    results = [row for seed in (0, 1) for row in rows_of(folder / f"own/seed_{seed}/filtered_retrain/results.csv")]
    assert [(row["kind"], row["seed"]) for row in results] == [
        (kind, str(seed)) for seed in (0, 1) for kind in ("original", "inside")
    ]
    for kind in ("original", "inside"):
        for metric in ("auroc", "accuracy"):
            values = [float(row[metric]) for row in results if row["kind"] == kind]
            assert float(found[f"own/{kind}"][metric]) == pytest.approx(np.mean(values), abs=1e-5)
