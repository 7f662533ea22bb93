"""``hrcam report COMPARISON``: what is finished, side by side."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning.callbacks.curves import Point
from hrcam_lightning.cli import main
from hrcam_lightning.compare.leaderboard import leaderboard
from hrcam_lightning.compare.plan import Record
from hrcam_lightning.compare.schema import Comparison, Experiment
from hrcam_lightning.compare.scores import read_run
from hrcam_lightning.compare.table import write_leaderboard
from hrcam_lightning.files import write_csv
from hrcam_lightning.report import comparison
from hrcam_lightning.report.board import board_sections, read_rows
from hrcam_lightning.report.page import write_page
from tests.command_line import error_of, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.report.browser import Browser

EXPERIMENTS = ("ours", "theirs")


@pytest.fixture
def board(tmp_path: Path, tested_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison on one set: one network under two names, the second with a threshold that is 1 higher."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "tiny"
    for name, seed in (("ours", 0), ("ours", 1), ("theirs", 0), ("theirs", 10), ("broken", 0)):
        place = folder / name / f"seed_{seed}"
        shutil.copytree(tested_run, place)
        state = "failed" if name == "broken" else "finished"
        (place / "job.json").write_text(json.dumps(asdict(Record("key", "data", state=state))))
    _spoil(folder / "theirs/seed_0")
    runs = {"ours": _runs(folder / "ours"), "theirs": _runs(folder / "theirs")}
    experiments = tuple(Experiment(name, (), (), None, (), study=False) for name in EXPERIMENTS)
    plan = Comparison("mine", "ours", (0, 1), (), experiments, None, "pixel_ap", ("auroc", "pixel_ap"))
    write_leaderboard(folder, leaderboard(runs, "ours", frozenset(["random", "center"])), plan, "mine on tiny")
    cost = {"experiment": "ours", "seed": 0, "train_minutes": "1.25"}
    write_csv(folder / "costs.csv", [cost], list(cost))
    return folder


def _runs(folder: Path) -> dict[int, Any]:
    return {int(path.name.removeprefix("seed_")): read_run(path / "test") for path in folder.iterdir()}


def _spoil(place: Path) -> None:
    content = torch.load(place / "best.ckpt", weights_only=True)
    content["state_dict"]["thresholds"] += 1
    torch.save(content, place / "best.ckpt")


def test_finished_experiments_stand_side_by_side(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}

    def keep(*args: Any) -> int:
        kept.update(zip(("path", "title", "lead", "sections", "browser"), args, strict=False))
        return write_page(*args)

    monkeypatch.setattr(comparison, "write_page", keep)
    main(["report", "mine"])
    page = (board / "report.html").read_text(encoding="utf-8")
    assert "Page: mine/tiny/report.html" in capsys.readouterr().out
    browser: Browser = kept["browser"]
    ours, theirs = browser.maps
    assert (ours.name, theirs.name, kept["title"]) == ("ours", "theirs", "mine on tiny")
    assert isinstance(ours.threshold, dict)
    assert isinstance(theirs.threshold, dict)
    assert theirs.threshold["lesion"] == pytest.approx(ours.threshold["lesion"] + 1)
    assert "Outcomes, and the probabilities in the list, are those of ours, seed 0." in kept["lead"]
    for case in browser.cases:
        np.testing.assert_array_equal(case.maps["ours"]["lesion"], case.maps["theirs"]["lesion"])
        assert case.facts["theirs"] == f"{case.outcome}, P {case.probabilities['lesion']:.2f}"
        assert case.levels == {}
    assert [section.anchor for section in kept["sections"]] == [
        "what", "leaderboard", "trainings", "differences", "curves", "calibration", "costs",
    ]  # fmt: skip
    value = next(row for row in rows_of(board / "leaderboard.csv") if row["row"] == "theirs")["pixel_ap"]
    for text in (f"{float(value):.3f}", "ours (2 seeds), theirs (2 seeds)", "1.25", "random", "grad &lt;b&gt;"):
        assert text in page
    for name in EXPERIMENTS:  # in curves and in calibration
        assert page.count(f'"name":"{name}"') >= 2


def test_maps_are_of_the_seed_that_is_asked_for(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def keep(*args: Any) -> int:
        kept.append(args)
        return write_page(*args)

    monkeypatch.setattr(comparison, "write_page", keep)
    _spoil(board / "theirs/seed_10")  # twice, so that its threshold tells it from that of seed 0
    _spoil(board / "theirs/seed_10")
    main(["report", "mine", "--seed", "10"])
    browser: Browser = kept[0][4]
    assert [one.name for one in browser.maps] == ["theirs"]  # ours has no such training
    own = torch.load(board / "ours/seed_0/best.ckpt", weights_only=True)["state_dict"]["thresholds"].item()
    threshold = browser.maps[0].threshold
    assert isinstance(threshold, dict)
    assert threshold["lesion"] == pytest.approx(own + 2)
    assert "are those of theirs, seed 10." in kept[0][2]
    main(["report", "mine", "--seed", "1"])
    assert [one.name for one in kept[1][4].maps] == ["ours"]
    error = error_of(capsys, monkeypatch, "report", "mine", "--seed", "7")
    assert "--seed is 7, but what is finished in mine/tiny has the seeds 0, 1, 10: give one of them" in error
    error = error_of(capsys, monkeypatch, "report", "mine/tiny/ours/seed_0", "--seed", "1")
    assert "--seed is of a comparison" in error


def test_a_board_of_an_earlier_version_has_no_trainings(board: Path) -> None:
    rows = read_rows(board / "leaderboard.csv")
    assert "trainings" in [section.anchor for section in board_sections(board, rows, "ours")]
    (board / "trainings.csv").unlink()
    assert [section.anchor for section in board_sections(board, rows, "ours")] == ["leaderboard", "differences"]


def test_only_what_is_finished_and_of_the_same_cases_is_shown(board: Path) -> None:
    rows = read_rows(board / "leaderboard.csv")
    broken = [row | {"row": "broken"} for row in rows if row["row"] == "ours"]
    (board / "theirs/seed_0/job.json").write_text(json.dumps(asdict(Record("key", "data", state="failed"))))
    assert {name: list(runs) for name, runs in comparison.finished(board, [*rows, *broken]).items()} == {
        "ours": [0, 1], "theirs": [10],
    }  # fmt: skip
    path = board / "ours/seed_1/test/cases.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert list(comparison.finished(board, rows)["ours"]) == [0]


def test_only_trainings_of_the_leaderboard_are_shown(board: Path) -> None:
    shutil.copytree(board / "ours/seed_0", board / "ours/seed_2")  # of a run before, with more seeds
    shutil.copytree(board / "ours/seed_0", board / "ours/seed_old")
    rows = read_rows(board / "leaderboard.csv")
    assert {name: list(runs) for name, runs in comparison.finished(board, rows).items()} == {
        "ours": [0, 1], "theirs": [0, 10],
    }  # fmt: skip
    fewer = [row | {"seeds": "10"} if row["row"] == "theirs" else row for row in rows]
    assert list(comparison.finished(board, fewer)["theirs"]) == [10]


def test_curves_of_several_trainings_are_their_mean(board: Path) -> None:
    trainings = comparison.finished(board, read_rows(board / "leaderboard.csv"))
    steps = [Point(0.125, np.nan, 0.2), Point(1, np.nan, 0.4)]
    bins = [Point(5, 6, 0.2, 0.1, 0.3, 7), Point(6, 7, 0.5, 0.4, 0.6, 2)]
    for run, more in zip(trainings["ours"].values(), (0, 0.4), strict=True):
        run.curves.clear()
        run.curves["froc"] = {"model": [point._replace(y=point.y + more) for point in steps], "random": steps}
        run.curves["recall_by_dprime"] = {"model": [point._replace(y=point.y + more) for point in bins]}
    joined = comparison.joined_curves(trainings, "ours")
    assert [point.y for point in joined["froc"]["ours"]] == pytest.approx([0.4, 0.6])
    mean, _ = joined["recall_by_dprime"]["ours"]
    assert (mean.y, mean.low, mean.high, mean.n) == pytest.approx((0.4, 0.2, 0.6, 7))
    assert joined["froc"]["random"][0].y == pytest.approx(0.2)
    assert "theirs/random" not in joined["froc"]
    (alone,) = (run for seed, run in trainings["theirs"].items() if seed == 10)
    single = comparison.joined_curves({"theirs": {10: alone}}, "ours")["lroc"]
    assert single == {"theirs": alone.curves["lroc"]["model"]}  # floors are those of the reference


def test_what_cannot_be_reported_is_said_in_a_sentence(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*words: str) -> str:
        return error_of(capsys, monkeypatch, "report", *words)

    shutil.copytree(board, board.with_name("second"))
    words = error("mine", "--out", "x.html")
    assert "mine holds 2 sets, a page each: give one of them with --out, as mine/second" in words
    assert "--ckpt_path is of a run" in error("mine", "--ckpt_path", "last")
    assert "--data.test_split is of a run" in error("mine", "--data.test_split", "reversed")
    for path in board.rglob("job.json"):
        path.write_text(json.dumps(asdict(Record("key", "data", state="failed"))))
    assert "no experiment is finished" in error("mine/tiny")
    (board / "ours/seed_0/job.json").write_text("{")
    assert "job.json: is damaged" in error("mine/tiny")
    assert not list(board.parent.rglob("*.html"))
