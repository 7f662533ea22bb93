"""The leaderboard against what can be worked out by hand."""

from __future__ import annotations

import math
import time
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning.callbacks.report import write_cases
from hrcam_lightning.compare.leaderboard import Row, clear_winner, leaderboard, ordered
from hrcam_lightning.compare.schema import Comparison
from hrcam_lightning.compare.scores import read_run
from hrcam_lightning.compare.table import write_leaderboard
from hrcam_lightning.errors import InputError
from hrcam_lightning.metrics import CaseScores, Estimate, wilson
from hrcam_lightning.metrics.paired import permutation_p, permutation_ps
from hrcam_lightning.metrics.scores import case_number
from tests.command_line import rows_of
from tests.compare.tables import run_of, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.compare.scores import Run

NAN = math.nan


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "case": ["a", "b"], "subject": ["p", "p"], "predicted/x": [1, 0], "predicted/y": [0, 0], "label/x": [1, 0],
        "label/y": [0, 1], "probability/x": [0.9, 0.2], "probability/y": [0.1, 0.7], "pointing/x": [1, ""],
        "pointing/y": ["", 0], "pixel_ap/x": [0.5, ""], "pixel_ap/y": ["", 0.25], "grad-cam/pointing/x": [0, ""],
        "grad-cam/pointing/y": ["", 1],
    }  # fmt: skip
    figures = {
        "auroc": 0.8, "normal/false_activation": None, "grad-cam/lesion/recall": 0.4, "model-grad-cam/pointing": 0.1,
        "ceiling/auroc": 0.99, "efficiency/auroc": 0.81,
    }  # fmt: skip
    write_run(tmp_path / "test", columns, figures)
    run = read_run(tmp_path / "test")
    assert (run.cases, run.subjects) == (("a", "b"), ("p", "p"))
    np.testing.assert_array_equal(run.label, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(run.probability, [[0.9, 0.1], [0.2, 0.7]])
    assert set(run.scores) == {"model", "grad-cam"}
    np.testing.assert_array_equal(run.scores["model"]["pixel_ap"], [[0.5, NAN], [NAN, 0.25]])
    np.testing.assert_array_equal(run.scores["grad-cam"]["pointing"], [[0, NAN], [NAN, 1]])
    assert "pixel_ap" not in run.scores["grad-cam"]
    assert run.figures["model"]["auroc"] == 0.8
    assert math.isnan(run.figures["model"]["normal/false_activation"])
    assert run.figures["grad-cam"] == {"lesion/recall": 0.4}
    assert (run.ceiling, run.efficiency) == ({"auroc": 0.99}, {"auroc": 0.81})


def test_a_run_that_was_cut_short_is_one_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "test", {"case": ["a"], "label": [1], "probability": ["half"]})
    with pytest.raises(InputError, match=r"cases.csv or metrics.json is damaged"):
        read_run(tmp_path / "test")
    (tmp_path / "test/cases.csv").write_text("case,label,probability\na,1,0.5\nb,1")
    with pytest.raises(InputError, match=r"cases.csv or metrics.json is damaged"):
        read_run(tmp_path / "test")


def test_two_trainings_and_three_cases_by_hand() -> None:
    """Every resample of 3 subjects and 2 trainings can be listed: 27 × 4 of them, equally likely."""
    values = np.array([[0.2, 0.4, 0.9], [0.4, 0.8, 0.6]])
    others = np.array([[0.1, 0.3, 0.2], [0.2, 0.2, 0.6]])
    runs = {
        name: {seed: run_of([1, 1, 1], [0.9] * 3, None, {"model": {"pixel_ap": of[seed]}}) for seed in (0, 1)}
        for name, of in {"ours": others, "theirs": values}.items()
    }
    rows = {row.name: row for row in leaderboard(runs, "ours", resamples=20_000)}
    listed = [
        np.mean([values[training][list(cases)].mean() for training in trainings])
        for cases in product(range(3), repeat=3)
        for trainings in product(range(2), repeat=2)
    ]
    found = rows["theirs"].estimates["pixel_ap"]
    assert found.value == pytest.approx((0.2 + 0.4 + 0.9 + 0.4 + 0.8 + 0.6) / 6)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(listed, [0.025, 0.975])), abs=0.015)
    gap = rows["theirs"].differences["pixel_ap"]
    assert gap.value == pytest.approx((values - others).mean())
    # all six signs alike, so of the 8 ways to swap three subjects only two are as far apart
    assert gap.p == pytest.approx(2 / 8)
    assert rows["theirs"].seeds == (0, 1)
    assert rows["ours"].differences == {}
    assert "auroc" not in rows["ours"].estimates  # all cases are positive


def test_auroc_is_the_mean_over_trainings_and_its_difference_is_paired() -> None:
    label = [0, 0, 1, 1]
    good, poor = [0.1, 0.2, 0.8, 0.9], [0.1, 0.8, 0.2, 0.9]  # areas 1 and 3/4
    runs = {
        "ours": {0: run_of(label, good), 1: run_of(label, poor)},
        "same": {0: run_of(label, good), 1: run_of(label, poor)},
        "best": {0: run_of(label, good), 1: run_of(label, good)},
    }
    rows = {row.name: row for row in leaderboard(runs, "ours", resamples=400)}
    assert rows["ours"].estimates["auroc"].value == pytest.approx(0.875)
    gap = rows["same"].differences["auroc"]
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert rows["best"].differences["auroc"].value == pytest.approx(0.125)
    assert math.isnan(rows["best"].differences["auroc"].p)  # no mean over cases
    # no resample moves it from 1: Wilson's of as many hits as the smaller class has cases
    found = rows["best"].estimates["auroc"]
    assert (found.low, found.high) == pytest.approx(wilson(2, 2))


def test_what_a_test_calls_undefined_is_no_score() -> None:
    label, ap = [0, 0, 1, 1], [NAN, NAN, NAN, 1.0]
    told = {"auroc": NAN, "accuracy": NAN, "pixel_ap": NAN, "pointing": 0.5}
    hits = {"pixel_ap": ap, "pointing": [NAN, NAN, 0, 1]}
    broken = run_of(label, [0.1, 0.2, NAN, NAN], None, {"model": hits}, told)
    (row,) = leaderboard({"ours": {0: broken}}, "ours", resamples=20)
    assert set(row.estimates) == {"pointing"}  # a mean of the cases that are left is no figure of the test
    assert row.figures == {}
    fine = {"auroc": 1.0, "accuracy": 1.0, "pixel_ap": 0.75, "pointing": 0.5}
    whole = run_of(label, [0.1, 0.2, 0.8, 0.9], None, {"model": {**hits, "pixel_ap": [NAN, NAN, 0.5, 1]}}, fine)
    (row,) = leaderboard({"ours": {0: whole, 1: broken}}, "ours", resamples=20)
    assert set(row.estimates) == {"pointing"}  # nor one of the other training alone


@pytest.mark.parametrize("seeds", range(1, 13))
def test_a_perfect_share_has_an_interval_whatever_the_number_of_trainings(seeds: int) -> None:
    scores = {"model": {"pointing": [NAN, NAN, 1, 1]}}
    runs = {"ours": {seed: run_of([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], None, scores) for seed in range(seeds)}}
    (row,) = leaderboard(runs, "ours", resamples=200)
    for metric in ("auroc", "pointing"):
        found = row.estimates[metric]
        assert found.value == 1
        assert (found.low, found.high) == pytest.approx(wilson(2, 2))


def test_subjects_not_cases_are_resampled() -> None:
    ap = np.tile(np.random.default_rng(0).random(12), 4).tolist()
    label, sure = [1] * 48, [0.9] * 48
    wide = run_of(label, sure, [f"p{n % 12}" for n in range(48)], {"model": {"pixel_ap": ap}})
    narrow = run_of(label, sure, None, {"model": {"pixel_ap": ap}})
    found = [leaderboard({"a": {0: run}}, "a")[0].estimates["pixel_ap"] for run in (wide, narrow)]
    assert found[0].value == found[1].value == pytest.approx(np.mean(ap))
    assert (found[0].high - found[0].low) / (found[1].high - found[1].low) == pytest.approx(2, rel=0.2)


def test_a_row_that_lacks_a_training_is_compared_on_those_it_has() -> None:
    def run(value: float) -> object:
        return run_of([1, 1, 1], [0.9] * 3, None, {"model": {"pixel_ap": [value, value + 0.01, value + 0.02]}})

    runs = {"ours": {0: run(0.5), 1: run(0.9)}, "theirs": {1: run(0.4)}, "lone": {2: run(0.1)}}
    rows = {row.name: row for row in leaderboard(runs, "ours")}  # type: ignore[arg-type]
    assert rows["theirs"].seeds == (1,)
    assert rows["theirs"].differences["pixel_ap"].value == pytest.approx(-0.5)
    assert rows["ours"].estimates["pixel_ap"].value == pytest.approx(0.71)
    assert rows["lone"].differences == {}


def test_floors_are_one_row_and_figures_without_cases_have_a_spread() -> None:
    def run(aupro: float) -> object:
        scores = {
            "model": {"pixel_ap": [0.5, 0.6]},
            "random": {"pixel_ap": [0.1, 0.1]},
            "gradcam": {"pixel_ap": [0.2, 0.2]},
        }
        return run_of([1, 1], [0.9, 0.9], None, scores, {"auroc": 0.5, "aupro": aupro, "lroc": NAN})

    runs = {"theirs": {0: run(0.3), 1: run(0.5)}, "ours": {0: run(0.6), 1: run(0.6)}}
    rows = {row.name: row for row in leaderboard(runs, "ours", frozenset({"random"}))}  # type: ignore[arg-type]
    assert list(rows) == ["theirs", "theirs/gradcam", "ours", "random", "ours/gradcam"]
    assert [row.kind for row in rows.values()] == ["model", "explainer", "model", "floor", "explainer"]
    assert rows["theirs"].figures["aupro"] == pytest.approx((0.4, math.sqrt(0.02)))
    assert "lroc" not in rows["theirs"].figures


def test_each_training_keeps_its_figures(tmp_path: Path) -> None:
    """What the test told comes first; of a score that it told nothing of, the mean over the cases that have it."""

    def run(values: list[float], aupro: float) -> Run:
        maps = {"model": {"pixel_ap": values, "dice": [NAN, NAN]}, "gradcam": {"pixel_ap": [0.2, 0.4]}}
        return run_of([1, 1], [0.9, 0.9], None, maps, {"auroc": NAN, "aupro": aupro})

    runs = {"ours": {3: run([0.25, 0.75], 0.5), 11: run([NAN, 0.5], 0.25)}}
    rows = leaderboard(runs, "ours", resamples=20)
    first, second = rows[0].trainings[3], rows[0].trainings[11]
    assert first == pytest.approx({"auroc": NAN, "aupro": 0.5, "pixel_ap": 0.5}, nan_ok=True)
    assert second == pytest.approx({"auroc": NAN, "aupro": 0.25, "pixel_ap": 0.5}, nan_ok=True)
    assert rows[1].trainings[3] == pytest.approx({"pixel_ap": 0.3})
    comparison = Comparison("x", "ours", (3, 11), (), (), None, "pixel_ap", ("auroc", "pixel_ap", "aupro"))
    write_leaderboard(tmp_path, rows, comparison, "x on y")
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "Each training, pixel_ap / aupro:" in text  # auroc is nowhere defined
    assert "| ours | 0.500 / 0.500 | 0.500 / 0.250 |" in text
    assert "| ours/gradcam | 0.300 / - | 0.300 / - |" in text
    table = rows_of(tmp_path / "trainings.csv")
    assert [(row["row"], row["kind"], row["seed"]) for row in table] == [
        (name, kind, seed) for name, kind in (("ours", "model"), ("ours/gradcam", "explainer")) for seed in ("3", "11")
    ]
    assert (table[1]["auroc"], table[1]["aupro"], table[1]["pixel_ap"]) == ("", "0.25", "0.5")


def test_a_table_of_trainings_needs_several(tmp_path: Path) -> None:
    rows = leaderboard({"ours": {0: run_of([0, 1], [0.1, 0.9])}}, "ours", resamples=20)
    write_leaderboard(tmp_path, rows, Comparison("x", "ours", (0,), (), (), None, "auroc", ("auroc",)), "x on y")
    assert "Each training" not in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert [row["seed"] for row in rows_of(tmp_path / "trainings.csv")] == ["0"]


def test_a_floor_that_the_reference_lacks_is_of_the_first_that_has_it() -> None:
    def run(**floors: float) -> Run:
        maps = {"model": 0.5, "random": 0.1} | floors
        return run_of([1, 1], [0.9, 0.9], None, {name: {"pixel_ap": [value] * 2} for name, value in maps.items()})

    runs = {"a": {0: run()}, "b": {0: run(edge=0.2, random=0.3)}, "c": {0: run(edge=0.4)}, "ours": {0: run()}}
    rows = {row.name: row for row in leaderboard(runs, "ours", frozenset({"random", "edge"}), resamples=20)}
    assert list(rows) == ["a", "b", "edge", "c", "ours", "random"]
    assert rows["edge"].value("pixel_ap") == pytest.approx(0.2)
    assert rows["random"].value("pixel_ap") == pytest.approx(0.1)


def _row(name: str, value: float, low: float, high: float, kind: str = "model") -> Row:
    return Row(name, kind, (0,), 10, {"pixel_ap": Estimate(value, low, high, 10)})


def test_the_best_is_bold_only_where_its_interval_is_apart() -> None:
    best, near, far = _row("a", 0.9, 0.8, 1.0), _row("b", 0.7, 0.6, 0.81), _row("c", 0.5, 0.4, 0.79)
    assert clear_winner([far, best], "pixel_ap") is best
    assert clear_winner([far, best, near], "pixel_ap") is None
    assert clear_winner([best, _row("random", 0.95, 0.9, 1.0, "floor"), far], "pixel_ap") is best
    assert clear_winner([best], "pixel_ap") is None
    assert clear_winner([best, far], "auroc") is None


def test_rows_are_sorted_and_written_with_what_failed(tmp_path: Path) -> None:
    failed = Row("broken", "failed", reason="seed 0: killed at its budget of 1 min")
    floor = _row("random", 0.95, 0.9, 1.0, "floor")
    a, c = _row("a", 0.9, 0.8, 1.0), _row("c", 0.5, 0.4, 0.79)
    ceiling = Row("ideal observer", "ceiling", figures={"auroc": (1.0, NAN)})
    nothing = Row("empty", "model", (0,), 10)
    rows = ordered([failed, ceiling, floor, nothing, c, a], "pixel_ap")
    assert [row.name for row in rows] == ["a", "c", "empty", "random", "ideal observer", "broken"]
    comparison = Comparison("x", "a", (0,), (), (), None, "pixel_ap", ("auroc", "pixel_ap"))
    write_leaderboard(tmp_path, rows, comparison, "x on y")
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "| a | 1 |  | **0.900 [0.800, 1.000]** |" in text
    assert "| c | 1 |  | 0.500 [0.400, 0.790] |" in text
    assert "- broken: seed 0: killed at its budget of 1 min" in text
    written = {row["row"]: row for row in rows_of(tmp_path / "leaderboard.csv")}
    assert (written["a"]["pixel_ap"], written["a"]["pixel_ap_low"]) == ("0.9", "0.8")
    assert {row["reference"] for row in written.values()} == {"a"}
    assert written["broken"]["reason"] == "seed 0: killed at its budget of 1 min"


def test_false_activation_is_better_low() -> None:
    rows = [
        Row(name, "model", figures={"normal/false_activation": (value, NAN)})
        for name, value in {"a": 0.5, "b": 0.1}.items()
    ]
    assert [row.name for row in ordered(rows, "normal/false_activation")] == ["b", "a"]


@pytest.mark.parametrize("subjects", [6, 40])
def test_many_differences_are_permuted_as_one_is(subjects: int) -> None:
    gaps = np.random.default_rng(1).normal(0.2, 1, (subjects, 3))
    assert permutation_ps(gaps, 500).tolist() == [permutation_p(column, 500) for column in gaps.T]


def test_ten_thousand_cases_of_ten_explainers(tmp_path: Path, record_property: object) -> None:
    """How long that takes is told, not tested: machines differ."""
    rng, count, names = np.random.default_rng(0), 10_000, [f"method_{n}" for n in range(10)]
    scores = ("pointing", "pixel_ap", "relevance_mass", "relevance_rank", "dice", "iou", "iobb")
    label = rng.integers(0, 2, count)
    columns: dict[str, Any] = {
        "case": [f"c{n}" for n in range(count)],
        "label": label,
        "probability": rng.random(count).round(4),
    }
    for prefix in ("", *(f"{name}/" for name in names)):
        for score in scores:
            columns[f"{prefix}{score}"] = np.where(label == 1, rng.random(count).round(4).astype(str), "")
    write_run(tmp_path / "test", columns)
    started = time.perf_counter()
    run = read_run(tmp_path / "test")
    rows = leaderboard({"ours": {0: run}}, "ours")
    seconds = time.perf_counter() - started
    record_property("seconds", seconds)  # type: ignore[operator]
    print(f"\n10^4 cases x 10 explainers: {seconds:.1f} s")  # noqa: T201
    assert len(rows) == 11
    masked = np.array([float(text) for text in columns["method_3/dice"] if text])
    row = next(row for row in rows if row.name == "ours/method_3")
    assert row.estimates["dice"].value == pytest.approx(masked.mean())
    half = 1.96 * masked.std() / math.sqrt(len(masked))
    assert row.estimates["dice"].high - masked.mean() == pytest.approx(half, rel=0.15)


def test_relevance_on_a_cue_is_compared_case_by_case(tmp_path: Path) -> None:
    """From the maps to the leaderboard: an interval and a p, as other scores of a case have."""
    runs: dict[str, dict[int, Run]] = {}
    for name, hot in {"ours": 2, "theirs": 4}.items():
        maps = torch.zeros(4, 1, 6, 6)
        maps[:, 0, 0, :hot] = 1.0
        cues = torch.zeros(4, 6, 6, dtype=torch.bool)
        cues[1, 0, 0] = cues[2, 0, :2] = True  # cases 0 and 3 have no cue
        metric, labels = CaseScores(), torch.tensor([[1], [0], [0], [0]])
        metric.update(list("abcd"), labels, labels * 0.5, maps, torch.zeros(4, 1, 6, 6, dtype=torch.bool), cues=cues)
        table = metric.compute()
        folder = tmp_path / name
        folder.mkdir()
        by_number = {case_number(case): case for case in "abcd"}
        called = np.zeros((4, 1))
        write_cases(folder / "cases.csv", {"model": table}, ["x"], by_number, called, dict.fromkeys(by_number, ""))
        (folder / "metrics.json").write_text("{}")
        runs[name] = {0: read_run(folder)}
    assert [row["cue/relevance_mass"] for row in rows_of(tmp_path / "ours/cases.csv")] == ["", "0.5", "1", ""]
    row = next(row for row in leaderboard(runs, "ours", resamples=50) if row.name == "theirs")
    assert row.estimates["cue/relevance_mass"].value == pytest.approx((0.25 + 0.5) / 2)
    gap = row.differences["cue/relevance_mass"]
    assert gap.value == pytest.approx(-0.375)
    assert gap.p == pytest.approx(1 / 2)  # of two subjects, both lower: 2 of 4 ways to swap


def test_a_test_names_the_subject_where_that_is_not_the_case(tmp_path: Path) -> None:
    columns = {name: np.array([[1.0], [0.5]]) for name in ("label", "probability", "peak", "peak_distance")}
    table = SimpleNamespace(case=np.array([7, 3]), compared=dict, **columns)
    names, called = {3: "a", 7: "b"}, np.ones((2, 1))
    write_cases(tmp_path / "cases.csv", {"model": table}, ["x"], names, called, {3: "p", 7: ""})  # type: ignore[dict-item]
    assert [(row["case"], row["subject"]) for row in rows_of(tmp_path / "cases.csv")] == [("a", "p"), ("b", "b")]
    write_cases(tmp_path / "cases.csv", {"model": table}, ["x"], names, called, {3: "a", 7: ""})  # type: ignore[dict-item]
    assert "subject" not in rows_of(tmp_path / "cases.csv")[0]
