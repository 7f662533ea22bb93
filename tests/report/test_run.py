"""``hrcam report RUN`` as a user types it."""

from __future__ import annotations

import json
import math
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from hrcam_lightning.callbacks.explainers import Explainer
from hrcam_lightning.callbacks.report import write_maps
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule
from hrcam_lightning.explain import explain
from hrcam_lightning.report import run as run_module
from hrcam_lightning.report.evaluation import read_evaluation
from hrcam_lightning.task import LocalizationTask
from tests.command_line import error_of, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.report.browser import Browser
    from hrcam_lightning.report.page import Section


@pytest.fixture
def run(tmp_path: Path, tested_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be spoilt."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tested_run, tmp_path / "run")
    return tmp_path / "run"


class Written(dict[str, Any]):
    """Stands in for the page: keeps what would be written."""

    def __call__(
        self, path: Path, title: str, lead: str, sections: list[Section], browser: Browser, scripts: tuple[str, ...]
    ) -> int:
        self.update(path=path, title=title, lead=lead, sections=sections, browser=browser, scripts=scripts)
        return 1


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    page = Written()
    monkeypatch.setattr(run_module, "write_page", page)
    return page


def test_the_page_is_whole_and_the_test_is_left_as_it_was(
    run: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    main(["report", "run"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in run.rglob("*") if path.is_file()} - set(before) == {run / "report.html"}
    shown = capsys.readouterr().out
    assert "All 6 test cases are shown below" in shown
    assert f"Page: run/report.html ({len(page.encode()) / 1e6:.1f} MB" in shown
    assert len(page.encode()) < 3e6  # Plotly, and little else
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert sorted(set(ids)) == sorted(ids)  # or the browser's scripts would take a section for one of its own parts
    figures = json.loads((run / "test/metrics.json").read_text())
    for name in ("test/pixel_ap", "test/grad <b>/pixel_ap", "test/random/pointing"):
        assert f"{figures[name]['value']:.3f}" in page
    assert "grad &lt;b&gt;" in page
    assert json.loads((tiny_set / "dataset.json").read_text())["hash"] in page
    assert "ConvPyramid (width 4, depth 3" in page


def test_maps_levels_and_facts_are_those_of_the_test(run: Path, written: Written, tiny_set: Path) -> None:
    main(["report", "run", "--out", "elsewhere/page.html"])
    assert str(written["path"]) == "elsewhere/page.html"
    browser: Browser = written["browser"]
    model, grad, random, center = browser.maps
    points = json.loads((run / "test/maps.json").read_text())
    assert (model.name, grad.name, random.name, center.name) == ("model", "grad <b>", "random", "center")
    assert (model.unit, grad.unit, model.floor, grad.floor, random.floor) == ("logit", "", False, False, True)
    task = LocalizationTask.load_from_checkpoint(run / "best.ckpt", weights_only=True).eval()
    assert model.threshold == pytest.approx({"lesion": float(task.thresholds[0])})
    for kind in (model, grad, random, center):
        assert kind.threshold == pytest.approx({"lesion": points[kind.name]["thresholds"]["lesion"][0]})
    rows = {row["case"]: row for row in rows_of(run / "test/cases.csv")}
    data = CaseDataModule(str(tiny_set / "cases.csv"))
    data.load_state_dict(torch.load(run / "best.ckpt", weights_only=True)["CaseDataModule"])
    data.setup("test")
    samples = {sample["case"]: sample for sample in (data.dataset("test")[place] for place in range(6))}
    assert [case.case for case in browser.cases] == sorted(samples)
    offsets: dict[str, list[Any]] = {name: [] for name in browser.cases[0].levels}
    for case in browser.cases:
        image = samples[case.case]["image"][None]
        with torch.no_grad():
            output, plain = task(image), task.network(image)
        np.testing.assert_allclose(case.image, image[0, 0].numpy())
        np.testing.assert_allclose(case.maps["model"]["lesion"], output.evidence[0, 0].numpy(), atol=1e-4)
        expected = explain(task.network, image, "gradcam")[0, 0].numpy()
        np.testing.assert_allclose(case.maps["grad <b>"]["lesion"], expected, atol=1e-5)
        assert float(case.maps["model"]["lesion"].max()) == pytest.approx(float(rows[case.case]["peak"]), abs=1e-4)
        np.testing.assert_array_equal(case.masks["lesion"], samples[case.case]["mask"][0].numpy())
        for number, (name, of) in enumerate(case.levels.items()):
            own = task.network.upsample(plain.level_maps[number], number, image.shape[2:])[0, 0].numpy()
            offsets[name].append(of["lesion"] - own)
        row = rows[case.case]
        assert case.probabilities == {"lesion": float(row["probability"])}
        assert (case.truth == ("lesion",), case.called == ("lesion",)) == (row["label"] == "1", row["predicted"] == "1")
        assert (case.size_mm is None) == (row["label"] == "0")
        np.testing.assert_array_equal(case.affine, samples[case.case]["affine"])
        assert list(case.spacing) == [1, 2]
    _outcomes_add_up([case.outcome for case in browser.cases], run)
    assert list(offsets) == ["stride 1", "stride 2", "stride 4"]
    for added in offsets.values():  # one number a level, the same for all cases
        assert np.ptp(added) < 1e-4
        assert abs(np.mean(added)) > 1e-6


def _outcomes_add_up(outcomes: list[str], run: Path) -> None:
    """To the figures of the test."""
    figures = json.loads((run / "test/metrics.json").read_text())
    masked = figures["test/pointing"]["n"]
    assert outcomes.count("hit") / masked == pytest.approx(figures["test/predicted/pointing"]["value"])
    assert sum(outcomes.count(kind) for kind in ("hit", "beside", "missed")) == masked
    assert outcomes.count("false alarm") + outcomes.count("correct normal") == 6 - masked


@pytest.mark.usefixtures("run")
def test_fewer_cases_are_said_to_be_fewer(written: Written) -> None:
    main(["report", "run", "--cases", "4"])
    assert len(written["browser"].cases) == 4
    assert written["lead"].startswith("4 of 6 test cases are shown below")


def test_a_run_that_was_tested_before_maps_json_was_written(run: Path, written: Written) -> None:
    (run / "test/maps.json").unlink()
    main(["report", "run"])
    assert [kind.name for kind in written["browser"].maps] == ["model", "random", "center"]
    assert "Not shown, for the test did not say how they are made: grad <b>." in written["lead"]
    kinds = {kind.name: kind for kind in written["browser"].maps}
    assert kinds["model"].threshold is not None  # of the checkpoint
    assert (kinds["random"].threshold, kinds["random"].floor) == (None, True)


def test_explainers_come_back_with_their_settings(run: Path) -> None:
    wish = Explainer({"method": "layercam", "layers": "pyramid", "name": "grad <b>"})
    write_maps(run / "test/maps.json", [wish], {"model": {"lesion": [math.nan]}, "grad <b>": {"lesion": [1.5]}})
    model, grad, random, _ = read_evaluation(run).maps
    assert (model.explainer, grad.thresholds) == (None, [1.5])
    assert model.thresholds is not None
    assert math.isnan(model.thresholds[0])
    assert grad.explainer is not None
    assert grad.explainer.key == wish.key
    assert random.explainer is not None
    assert (random.thresholds, random.explainer.method) == (None, "random")  # by its name, where the file is silent


def test_curves_are_read_back_as_they_were_drawn(run: Path) -> None:
    curves = read_evaluation(run).curves
    rows = rows_of(run / "test/curves.csv")
    assert sum(len(points) for own in curves.values() for points in own.values()) == len(rows)
    (first, *_) = rows
    point = curves[first["curve"]][first["map"]][0]
    assert (point.x, point.y) == (float(first["x"]), float(first["y"]))
    assert math.isnan(point.x_to)
    assert math.isnan(point.low)
    binned = next(row for row in rows if row["n"])
    again = curves[binned["curve"]][binned["map"]][0]
    assert (again.x_to, again.low, again.n) == (float(binned["x_to"]), float(binned["low"]), int(binned["n"]))


def test_pictures_of_another_network_never_stand_beside_the_figures(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(run / "best.ckpt", weights_only=True)
    content["state_dict"]["model.decoder.bias"] += 1
    torch.save(content, run / "other.ckpt")
    words = error_of(capsys, monkeypatch, "report", "run", "--ckpt_path", "run/other.ckpt")
    assert "it is not the network, or these are not the images, that were tested" in words
    words = error_of(capsys, monkeypatch, "report", "run", "--data.test_split", "val")  # as a test may be given
    assert "tells of 6 cases, and the data now have 6, or others" in words
    rows = (run / "test/cases.csv").read_text().splitlines()
    (run / "test/cases.csv").write_text("\n".join(rows[:-1]) + "\n")
    assert "tells of 5 cases, and the data now have 6" in error_of(capsys, monkeypatch, "report", "run")
    assert not list(run.glob("*report.html"))


def test_what_cannot_be_reported_is_said_in_a_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*words: str) -> str:
        return error_of(capsys, monkeypatch, "report", *words)

    assert "nowhere: no such folder" in error("nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty holds no run (config.yaml), no comparison" in error("empty")
    assert "the following arguments are required" in error()
    assert "argument --cases" in error("run", "--cases", "0")
    assert "--bogus" in error("run", "--bogus", "1")
    assert "run/none.ckpt: no such checkpoint" in error("run", "--ckpt_path", "run/none.ckpt")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["init_args"]["cases"] = "gone/cases.csv"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "gone/cases.csv" in error("run")
    (run / "best.ckpt").unlink()
    assert "run/best.ckpt: no such checkpoint" in error("run")
    (run / "test/lesions.csv").unlink()
    assert "run: a file of the run is missing or damaged" in error("run")
    (run / "test/metrics.json").write_text("{")
    assert "damaged" in error("run")
    (run / "test/metrics.json").unlink()
    assert "run was never tested: run hrcam test -c run/config.yaml --ckpt_path run/best.ckpt first" in error("run")
    assert not list(tmp_path.rglob("*report.html"))
