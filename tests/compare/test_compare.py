"""``hrcam compare`` as a user types it: what it does with jobs that end well, fail, take too long or are killed."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrcam_lightning.cli import main
from hrcam_lightning.compare import command, runner
from hrcam_lightning.errors import InputError
from tests.command_line import rows_of
from tests.compare.tables import write_checkpoint

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def workshop(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where trainings take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "HRCAM", (sys.executable, str(STAND_IN)))
    monkeypatch.setattr(runner, "measure", lambda *_: (1234, 1.5))
    write_checkpoint(Path("checkpoint"))
    Path("set").symlink_to(tiny_set)
    return tmp_path


def _compare(*words: str, out: str = "out", **experiments: list[str]) -> Path:
    content: dict[str, Any] = {
        "name": "tiny",
        "reference": "ours",
        "seeds": [0, 1],
        "data": {"demo": {"cases": "set/cases.csv"}},
        "budget_minutes": 0.05,
        "experiments": {name: {"configs": ["a.yaml"], "overrides": more} for name, more in experiments.items()},
    }
    Path("compare.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    command.run(["-c", "compare.yaml", "--out", out, *words], "1", " ".join)
    return Path(out, "demo")


def _boards(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.md")}


def _log(job: Path) -> list[str]:
    return [line.split()[2] for line in (job / "log.txt").read_text().splitlines() if line.startswith("$ ")]


@pytest.mark.usefixtures("workshop")
def test_a_finished_job_is_never_repeated_and_a_failed_one_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    folder = _compare(ours=[], broken=["--fail 'no such decoder'"], theirs=[])
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert list(rows) == ["ours", "theirs", "random", "broken"]
    assert rows["broken"]["kind"] == "failed"
    assert rows["broken"]["reason"] == "; ".join(f"seed {n}: no such decoder (exit code 2; log.txt)" for n in (0, 1))
    assert float(rows["ours"]["pixel_ap"]) == pytest.approx(0.75 + 0.04)  # seeds 0.7 and 0.8, cases 1, 3, 5 and 7
    assert float(rows["theirs"]["pixel_ap_difference"]) == pytest.approx(-0.2)
    # 4 of the 8 cases have a mask, and all differ by the same: 2 of 16 ways to swap them are as far apart
    assert float(rows["theirs"]["pixel_ap_difference_p"]) == pytest.approx(2 / 16)
    assert rows["ours"]["parameters"] == "1234"
    assert "no such decoder" in capsys.readouterr().out
    costs = rows_of(folder / "costs.csv")
    assert [row["state"] for row in costs] == ["finished", "failed", "finished"] * 2
    assert costs[0]["map_over_backbone"] == "1.5"

    first = _boards(folder)
    for name in ("ours", "theirs"):
        with (folder / name / "seed_0/log.txt").open("a") as log:
            log.write("a line that a second run would not leave\n")
    logs = {name: (folder / name / "seed_0/log.txt").read_bytes() for name in ("ours", "theirs")}
    _compare("--dry_run", ours=[], broken=["--fail 'no such decoder'"], theirs=[])
    shown = capsys.readouterr().out
    assert "2 jobs to do: about 0 min, by the 4 that are finished." in shown
    _compare(ours=[], broken=["--fail 'no such decoder'"], theirs=[])
    assert {name: (folder / name / "seed_0/log.txt").read_bytes() for name in logs} == logs
    assert _boards(folder) == first

    _compare(ours=["--trainer.max_epochs 9"], broken=[], theirs=[])  # edited: trained anew
    assert (folder / "ours/seed_0/log.txt").read_bytes() != logs["ours"]
    assert (folder / "theirs/seed_0/log.txt").read_bytes() == logs["theirs"]
    assert not list(folder.rglob(".removed*"))
    assert "broken" in {row["row"] for row in rows_of(folder / "leaderboard.csv") if not row["reason"]}


@pytest.mark.usefixtures("workshop")
def test_a_killed_job_goes_on_and_the_leaderboard_is_the_same() -> None:
    whole = _boards(_compare(ours=[], theirs=[]))
    Path("before").mkdir()
    Path("out").rename("before/out")  # beside it, its runs would be taken
    Path("die").touch()
    folder = _compare(ours=[], theirs=[])
    assert "killed by SIGKILL (out of memory?)" in (folder / "leaderboard.md").read_text()
    assert json.loads((folder / "ours/seed_0/job.json").read_text())["state"] == "failed"
    assert _boards(folder) != whole
    _compare(ours=[], theirs=[])
    assert _boards(folder) == whole
    assert _log(folder / "ours/seed_0") == ["fit", "fit", "test"]
    assert "--ckpt_path last" in (folder / "ours/seed_0/log.txt").read_text()
    assert json.loads((folder / "ours/seed_0/fake.json").read_text()) == ["0 0", "0 1", "0 2"]


@pytest.mark.usefixtures("workshop")
def test_what_another_comparison_has_done_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    first = _compare(out="first", ours=[], theirs=["--fail 'once'"], alone=["--alone 1"])
    config = first / "ours/seed_1/config.yaml"
    # As that command's --out was spelled, and as YAML folds a path with spaces.
    config.write_text('trainer:\n  default_root_dir: "/my\n    thesis/ours"\n  max_epochs: 3\n', encoding="utf-8")
    Path("other").mkdir()  # of no comparison, even if its files have the names of one
    (first / "alone").rename("other/alone")
    capsys.readouterr()
    _compare("--dry_run", out="second", ours=[], theirs=["--fail 'once'"], alone=["--alone 1"])
    assert "4 jobs to do; no estimate" in capsys.readouterr().out

    second = _compare(out="second", ours=[], theirs=["--fail 'once'"], alone=["--alone 1"])
    assert "demo/ours/seed_1: copied from first/demo/ours/seed_1" in capsys.readouterr().out
    assert (second / "ours/seed_1/log.txt").read_bytes() == (first / "ours/seed_1/log.txt").read_bytes()
    assert (second / "ours/seed_1/config.yaml").read_text().splitlines()[1:] == [
        "  default_root_dir: \"second/demo/ours/seed_1\"", "  max_epochs: 3"
    ]  # fmt: skip
    for name in ("theirs", "alone"):  # failed there, or gone: done here
        assert "second/demo" in (second / name / "seed_1/log.txt").read_text()
    taken = {row["row"]: row for row in rows_of(second / "leaderboard.csv")}
    assert float(taken["ours"]["pixel_ap"]) == pytest.approx(0.75 + 0.04)
    assert not list(second.rglob(".part*"))

    _compare(
        out="second", ours=["--trainer.max_epochs 9"], theirs=[], alone=["--alone 1"]
    )  # edited: not what the first did
    assert "second/demo" in (second / "ours/seed_1/log.txt").read_text()
    _compare(
        out="second", ours=[], theirs=[], alone=["--alone 1"]
    )  # edited back: taken again, in the place of the other
    assert (second / "ours/seed_1/log.txt").read_bytes() == (first / "ours/seed_1/log.txt").read_bytes()
    assert not list(second.rglob(".removed*"))


@pytest.mark.usefixtures("workshop")
def test_a_run_that_is_begun_anew_while_it_is_copied_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _compare(out="first", ours=[])
    copytree, begun = shutil.copytree, list[Path]()

    def begun_anew(source: Path, target: Path, *more: Any) -> None:
        copytree(source, target, *more)
        if not more:  # it calls itself, with more, for folders within
            begun.append(source)
            record = json.loads((target / "job.json").read_text()) | {"state": "started"}
            (target / "job.json").write_text(json.dumps(record), encoding="utf-8")

    def gone(source: Path, target: Path) -> None:
        begun.append(source)
        (target / "test").mkdir(parents=True)
        raise shutil.Error([("a", "b", "no such file")])

    for number, copy in enumerate((begun_anew, gone)):
        monkeypatch.setattr(shutil, "copytree", copy)
        own = _compare(out=f"own_{number}", ours=[])
        assert not list(own.rglob(".part*"))
        log = (own / "ours/seed_0/log.txt").read_text()
        assert f"own_{number}/demo" in log
        assert str(first) not in log
        assert begun == [first / f"ours/seed_{seed}" for seed in (0, 1)]
        begun.clear()
        shutil.rmtree(f"own_{number}")


@pytest.mark.usefixtures("workshop")
def test_a_job_is_ended_at_its_budget() -> None:
    started = time.monotonic()
    folder = _compare(ours=[], slow=["--sleep 60"])
    assert time.monotonic() - started < 30
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert rows["slow"]["reason"].startswith("seed 0: killed at its budget of 0.05 min")
    log = (folder / "slow/seed_0/log.txt").read_bytes()
    _compare(ours=[], slow=["--sleep 60"])
    assert (folder / "slow/seed_0/log.txt").read_bytes() == log  # its budget is spent


@pytest.mark.usefixtures("workshop")
def test_a_test_that_failed_is_told_and_its_time_counts(capsys: pytest.CaptureFixture[str]) -> None:
    job = _compare(ours=[]) / "ours/seed_0"
    record = json.loads((job / "job.json").read_text())
    (job / "test/metrics.json").unlink()
    (job / "job.json").write_text(json.dumps(record | {"state": "failed", "test_seconds": 1.0}))
    capsys.readouterr()
    _compare("--dry_run", ours=[])
    shown = "".join(capsys.readouterr().out.split())
    assert f"hrcamtest-c{job}/config.yaml" in shown
    assert "demo/ours/seed_0" in shown
    _compare(ours=[])
    assert _log(job) == ["fit", "test", "test"]
    after = json.loads((job / "job.json").read_text())
    assert after["state"] == "finished"
    assert after["test_seconds"] > 1
    assert after["train_seconds"] == record["train_seconds"]
    (job / "test/metrics.json").unlink()
    (job / "job.json").write_text(json.dumps(record | {"state": "failed", "test_seconds": 2.99}))
    _compare(ours=[])  # of a budget of 3 s
    assert json.loads((job / "job.json").read_text())["state"] == "over budget"


@pytest.mark.usefixtures("workshop")
def test_a_folder_that_cannot_be_is_said() -> None:
    Path("out").write_text("a file")
    with pytest.raises(InputError, match=r"out: cannot be written to .*; choose another --out"):
        _compare(ours=[])


@pytest.mark.usefixtures("workshop")
def test_a_second_comparison_waits_for_what_is_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    with Path("out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        folder = _compare(ours=[])
        timer.join()
    assert "waiting for its end" in capsys.readouterr().out
    assert (folder / "leaderboard.md").is_file()


@pytest.mark.usefixtures("workshop")
def test_changed_data_are_refused_before_anything_starts(tiny_set: Path) -> None:
    folder = _compare(ours=[])
    log = (folder / "ours/seed_0/log.txt").read_bytes()
    Path("set").unlink()
    Path("set").mkdir()
    for path in tiny_set.iterdir():
        Path("set", path.name).symlink_to(path)
    table = Path("set/cases.csv")
    text = table.read_text()
    table.unlink()
    table.write_text("".join(text.splitlines(keepends=True)[:-1]))
    for words in ([], ["--dry_run"]):
        with pytest.raises(InputError, match=r"set/cases.csv has changed since out/demo/ours/seed_0 was trained on it"):
            _compare(*words, ours=[], theirs=[])
    assert (folder / "ours/seed_0/log.txt").read_bytes() == log
    assert not (folder / "theirs").exists()


@pytest.mark.usefixtures("workshop")
def test_a_retrofit_without_its_base_says_so() -> None:
    content = {
        "name": "tiny", "reference": "cam", "seeds": [0], "data": {"demo": {"cases": "set/cases.csv"}},
        "experiments": {
            "cam": {"configs": ["a.yaml"], "overrides": ["--fail broken"]}, "cured": {"retrofit": "cam"},
        },
    }  # fmt: skip
    Path("compare.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command.run(["-c", "compare.yaml"], "1", " ".join)
    rows = {row["row"]: row["reason"] for row in rows_of(Path("runs/compare/tiny/demo/leaderboard.csv"))}
    assert rows["cured"] == "seed 0: its base cam has no network"


@pytest.fixture
def tiny_comparison(tmp_path: Path, spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison of two real experiments, of 16 x 16 pixels and one epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model: dict[str, Any] = {
        "backbone": {"class_path": "ConvPyramid", "init_args": {"width": 4, "depth": 3}},
        "decoder": "CAM",
    }
    model |= {"pooling": "MeanPooling", "consistency": 0.0, "view_averaging": False}
    trainer = {"max_epochs": 1, "accelerator": "cpu"}
    data = {"class_path": "CaseDataModule", "init_args": {"cases": "x.csv", "batch_size": 4}}
    Path("cam.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": model, "data": data}))
    content = {
        "name": "tiny", "reference": "cam", "seeds": [0, 1],
        "data": {"drawn": {"cases": "data/cases.csv", "generate": f"{spec_path} --seed 3"}},
        "common": ["--fused_maps.cases 0"],
        "experiments": {
            "cam": {"configs": ["cam.yaml"], "explainers": ["gradcam"]},
            "published": {"retrofit": "cam", "overrides": ["--equivariance 0"]},
        },
        "small": {"seeds": [0], "experiments": {"cam": {"configs": ["cam.yaml"]}}},
    }  # fmt: skip
    Path("compare.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the start of a job as a process of its own is left out: that takes seconds each."""

    def here(words: list[str], *_: Any) -> tuple[float, None]:
        main(words)
        return 1.0, None

    monkeypatch.setattr(runner, "_timed", here)


@pytest.mark.usefixtures("tiny_comparison", "_in_this_process")
def test_two_experiments_two_seeds_end_to_end() -> None:
    main(["compare", "-c", "compare.yaml"])
    folder = Path("runs/compare/tiny/drawn")
    rows = {row["row"]: row for row in rows_of(folder / "leaderboard.csv")}
    assert set(rows) == {"cam", "cam/gradcam", "published", "random", "center"}
    assert {row["reason"] for row in rows.values()} == {""}
    for name, prefix in {"cam": "", "cam/gradcam": "gradcam/", "published": ""}.items():
        runs = [folder / name.split("/")[0] / f"seed_{seed}" for seed in (0, 1)]
        metrics = [json.loads((run / "test/metrics.json").read_text()) for run in runs]
        for metric in ("pointing", "pixel_ap", "dice", "aupro", *(["auroc"] if not prefix else [])):
            values = [one[f"test/{prefix}{metric}"]["value"] for one in metrics]
            if None not in values:
                assert float(rows[name][metric]) == pytest.approx(sum(values) / 2, abs=1e-5), (name, metric)
    assert int(rows["cam"]["parameters"]) > 100
    assert float(rows_of(folder / "costs.csv")[0]["map_over_backbone"]) > 0


@pytest.mark.usefixtures("tiny_comparison", "_in_this_process")
def test_networks_of_fresh_phantoms_are_tested_and_reported_on_the_set(spec_path: Path) -> None:
    content = yaml.safe_load(Path("compare.yaml").read_text())
    drawn = {"cases": "data/cases.csv", "generate": str(spec_path), "fresh": True}
    content |= {"data": {"drawn": drawn}, "common": ["--fused_maps.cases 0", "--data.counts.train 8"]}
    Path("compare.yaml").write_text(yaml.safe_dump(content))
    main(["compare", "-c", "compare.yaml"])
    test_cases = {row["case"] for row in rows_of(Path("data/cases.csv")) if row["split"] == "test"}
    for name in ("cam", "published"):
        for seed in (0, 1):
            run = Path(f"runs/compare/tiny/drawn/{name}/seed_{seed}")
            assert {row["case"] for row in rows_of(run / "test/cases.csv")} == test_cases
            data = yaml.safe_load((run / "config.yaml").read_text())["data"]
            assert data["class_path"].endswith(".PhantomDataModule")
            # The set is of seed 0: no training phantom is among its test cases, and no two trainings see the same.
            assert (data["init_args"]["seed"], data["init_args"]["fresh"]) == (seed + 1, True)
            assert data["init_args"]["counts"] == {"train": 8}
    main(["report", "runs/compare/tiny"])  # it maps the test cases again, and compares
    main(["report", "runs/compare/tiny/drawn/cam/seed_1"])
    for folder in ("runs/compare/tiny/drawn", "runs/compare/tiny/drawn/cam/seed_1"):
        page = Path(folder, "report.html").read_text()
        assert f"phantoms drawn from {spec_path}" in page
        assert "hash of the tested set" in page


@pytest.mark.usefixtures("tiny_comparison")
def test_a_job_is_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", "-c", "compare.yaml", "--small"])
    folder = Path("runs/compare/tiny_small/drawn")
    assert _log(folder / "cam/seed_0") == ["fit", "test"]
    assert (folder / "cam/seed_0/config.yaml").is_file()
    before = _boards(folder)
    assert "cam" in {row["row"] for row in rows_of(folder / "leaderboard.csv")}
    capsys.readouterr()
    main(["compare", "-c", "compare.yaml", "--small"])
    assert "drawn/cam/seed_0: done before" in capsys.readouterr().out
    assert _boards(folder) == before
