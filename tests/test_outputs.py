"""What an evaluation leaves: known lesions, the ceiling, curves, extreme cases, and the same at W&B."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hrcam_lightning import LocalizationTask
from hrcam_lightning.callbacks import FusedMapPanels
from hrcam_lightning.cli import main
from synth.cli import main as synth_main
from tests.command_line import CASES, SMALL, again, error_of, rows_of

QUICK = ("--fused_maps.cases", "0")  # no pictures of maps, which take longest
WANDB = Path(__file__).parents[1] / "configs/wandb.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_set: Path) -> Path:
    """One run for all tests of this file."""
    run = tmp_path_factory.mktemp("trained") / "run"
    more = ["--trainer.default_root_dir", str(run), "--trainer.max_epochs", "2", *QUICK]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *more])
    return run


@pytest.fixture
def fitted(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def bounded(tiny_set: Path, tmp_path: Path) -> Path:
    """A copy of the set that carries its ceiling."""
    shutil.copytree(tiny_set, tmp_path / "bounded")
    assert synth_main(["observer", "--dataset", str(tmp_path / "bounded"), "--write", "--templates", "4"]) == 0
    return tmp_path / "bounded"


def _figures(run: Path, stage: str = "test") -> dict[str, dict[str, Any]]:
    return dict(json.loads((run / stage / "metrics.json").read_text()))


def test_a_lesion_brings_what_the_generator_knows_of_it(fitted: Path, tiny_set: Path) -> None:
    main(again("test", fitted, tiny_set / "cases.csv", *QUICK))
    rows = rows_of(fitted / "test/lesions.csv")
    stored = {row["case"]: row for row in rows_of(tiny_set / "lesions.csv")}  # one lesion a case
    assert rows
    for row in rows:
        truth = stored[row["case"]]
        assert row["family"] == truth["family"] == "ellipsoid"
        for own, theirs in (("contrast", "delta"), ("cnr", "cnr"), ("dprime", "dprime"), ("volume_mm3", "volume_mm3")):
            assert float(row[own]) == pytest.approx(float(truth[theirs]), rel=1e-5)
        size = 2 * (float(truth["radius_mm_1"]) * float(truth["radius_mm_2"])) ** 0.5
        assert float(row["size_mm"]) == pytest.approx(size, rel=1e-5)
    curves = rows_of(fitted / "test/curves.csv")
    assert {row["curve"] for row in curves} == {
        "froc", "froc_by_parts", "lroc", "recall_by_dprime", "recall_by_size_mm", "pointing_by_dprime",
        "pointing_by_size_mm",
    }  # fmt: skip
    model = [row for row in curves if row["map"] == "model"]
    for name, known, column in (
        ("recall_by_dprime", "dprime", "found"), ("pointing_by_dprime", "dprime", None),
        ("recall_by_size_mm", "size_mm", "found"), ("pointing_by_size_mm", "size_mm", None),
    ):  # fmt: skip
        bins = [row for row in model if row["curve"] == name]
        assert sum(int(row["n"]) for row in bins) == len(rows)
        for one in bins:
            here = [row for row in rows if float(one["x"]) <= float(row[known]) < float(one["x_to"])]
            assert len(here) == int(one["n"])
            if column:
                assert float(one["y"]) == pytest.approx(np.mean([int(row[column]) for row in here]))
            assert float(one["low"]) <= float(one["y"]) <= float(one["high"])
    froc = {float(row["x"]): float(row["y"]) for row in model if row["curve"] == "froc"}
    assert froc[1] == pytest.approx(_figures(fitted)["test/lesion/recall@1fp"]["value"])
    assert {row["map"] for row in curves} == {"model", "random", "center"}
    assert np.asarray(Image.open(fitted / "test/curves.png")).shape[2] == 3


def test_a_table_without_known_lesions_has_no_columns_for_them(fitted: Path, tiny_set: Path) -> None:
    bare = fitted.parent / "bare"
    shutil.copytree(tiny_set, bare)
    (bare / "lesions.csv").unlink()
    main(again("test", fitted, bare / "cases.csv", *QUICK))
    assert "dprime" not in rows_of(fitted / "test/lesions.csv")[0]
    assert not (fitted / "test/cases.png").exists()
    assert {"froc", "recall_by_voxels"} <= {row["curve"] for row in rows_of(fitted / "test/curves.csv")}


def test_a_broken_table_of_lesions_ends_the_run_before_it_begins(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_set, "broken")
    table = Path("broken/lesions.csv")
    table.write_text(table.read_text().replace("ellipsoid,", "ellipsoid,x", 1))
    error = error_of(capsys, monkeypatch, *again("test", fitted, Path("broken/cases.csv")))
    assert "lesions.csv, line 2: could not convert string to float" in error
    assert not (fitted / "test").exists()


def test_the_ceiling_stands_in_the_table_and_beside_the_score(
    fitted: Path, bounded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    main(again("test", fitted, bounded / "cases.csv", *QUICK))
    output = capsys.readouterr().out
    figures = _figures(fitted)
    known = json.loads((bounded / "ceiling.json").read_text())["classes"]["lesion"]
    for name, theirs in (("auroc", "image_auroc"), ("pointing", "pointing"), ("lroc", "lroc")):
        entry = figures[f"test/ceiling/{name}"]
        assert entry["value"] == pytest.approx(known[theirs]["value"])
        assert entry["kind"] == "exact"
        share = figures[f"test/efficiency/{name}"]["value"]
        assert share == pytest.approx(figures[f"test/{name}"]["value"] / entry["value"])
    lines = output.splitlines()
    assert max(map(len, lines[: next(n for n, line in enumerate(lines) if "└" in line)])) <= 80
    assert [
        word for word in ("random", "(floor)", "ideal", "observer", "(exact)", "share of") if word not in output
    ] == []
    assert f"{figures['test/ceiling/pointing']['value']:.3f}" in output
    curves = rows_of(fitted / "test/curves.csv")
    assert {row["curve"] for row in curves if row["map"] == "ideal observer"} == {
        "lroc", "pointing_by_dprime", "pointing_by_size_mm"
    }  # fmt: skip
    main(again("validate", fitted, bounded / "cases.csv", *QUICK))  # it has read the test cases
    assert not [name for name in _figures(fitted, "val") if "ceiling" in name]


def test_a_ceiling_of_another_set_is_left_out(fitted: Path, bounded: Path) -> None:
    index = json.loads((bounded / "dataset.json").read_text())
    (bounded / "dataset.json").write_text(json.dumps({**index, "hash": "another"}))
    with pytest.warns(UserWarning, match="is of another set"):
        main(again("test", fitted, bounded / "cases.csv", *QUICK))
    assert not [name for name in _figures(fitted) if "ceiling" in name or "efficiency" in name]


def test_the_predicted_class_is_that_of_the_validation_threshold(fitted: Path, tiny_set: Path) -> None:
    main(again("validate", fitted, tiny_set / "cases.csv", *QUICK))
    assert _figures(fitted, "val")["val/predicted/pointing"]["reason"].startswith("no threshold of the probability")
    val = [(float(row["probability"]), row["label"] == "1") for row in rows_of(fitted / "val/cases.csv")]

    def gain(threshold: float) -> float:
        return sum((p >= threshold) / sum(kind == own for _, own in val) * (1 if kind else -1) for p, kind in val)

    limit = max((p for p, _ in val), key=lambda p: (round(gain(p), 9), p))
    state = torch.load(fitted / "best.ckpt", weights_only=True)["callbacks"]
    (kept,) = next(value for name, value in state.items() if "LocalizationMetrics" in name)["points"]["model"]["class"]
    assert kept == pytest.approx(limit, abs=1e-5)
    main(again("test", fitted, tiny_set / "cases.csv", *QUICK))
    rows = rows_of(fitted / "test/cases.csv")
    assert [int(row["predicted"]) for row in rows] == [int(float(row["probability"]) >= kept) for row in rows]
    hits = [int(row["predicted"]) * float(row["pointing"]) for row in rows if row["pointing"]]
    assert _figures(fitted)["test/predicted/pointing"]["value"] == pytest.approx(np.mean(hits))


def test_best_median_and_worst_cases_are_drawn_as_they_were_scored(
    fitted: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, list[Any]] = {}
    log = FusedMapPanels._log

    def spy(self: FusedMapPanels, trainer: Any, key: str, sheet: Any, shown: list[Any]) -> None:
        kept[key] = shown
        log(self, trainer, key, sheet, shown)

    monkeypatch.setattr(FusedMapPanels, "_log", spy)
    main(again("test", fitted, tiny_set / "cases.csv"))
    scores = {row["case"]: float(row["pixel_ap"]) for row in rows_of(fitted / "test/cases.csv") if row["pixel_ap"]}
    order = sorted(scores, key=lambda case: (-scores[case], case))
    each = min(3, max(1, len(order) // 3))
    shown = [(one.case, one.panel.title.split(":")[0]) for one in kept["test/cases"]]
    assert shown[:each] == [(case, "best") for case in order[:each]]
    assert shown[-1] == (order[-1], "worst")
    assert f"AP {scores[order[0]]:.2f}" in kept["test/cases"][0].panel.title
    task = LocalizationTask.load_from_checkpoint(fitted / "best.ckpt", weights_only=True).eval()
    first = next(one for one in kept["test/maps"] if one.case == order[0])
    again_ = kept["test/cases"][0]
    np.testing.assert_allclose(again_.panel.fused, first.panel.fused, atol=1e-5)
    assert not task.training
    assert (fitted / "test/cases.png").is_file()


@pytest.mark.usefixtures("_no_wandb")
def test_wandb_offline_gets_the_same_tables_and_curves(fitted: Path, tiny_set: Path) -> None:
    Path("runs").mkdir()
    main(again("test", fitted, tiny_set / "cases.csv", "-c", str(WANDB)))
    media = {path.stem.rsplit("_", 2)[0]: path for path in Path("runs/wandb").rglob("media/**/*.*") if path.is_file()}
    for name in ("metrics", "cases", "lesions", "curves"):
        table = json.loads(media[name].read_text())
        if name == "metrics":
            written = [[figure, entry["value"]] for figure, entry in _figures(fitted).items()]
            assert [row[:2] for row in table["data"]] == written
            continue
        with (fitted / f"test/{name}.csv").open(newline="") as file:
            header, *lines = csv.reader(file)
        assert table["columns"] == header
        for row, line in zip(table["data"], lines, strict=True):
            assert [cell if isinstance(cell, str) else "" if cell is None else f"{cell:.6g}" for cell in row] == line
    pictures = {path.parent.name: path for path in Path("runs/wandb").rglob("media/images/**/*.png")}
    assert "test" in pictures
    names = {path.stem.rsplit("_", 2)[0] for path in Path("runs/wandb").rglob("media/images/test/*.png")}
    assert {"curves", "cases", "maps"} <= names
