"""``hrcam report PREDICTIONS``: maps over images, without truth."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from hrcam_lightning.callbacks.journal import Journal
from hrcam_lightning.callbacks.prediction_files import COLUMNS, Prediction, write_prediction
from hrcam_lightning.cli import main
from hrcam_lightning.data.frame import Framing, Grid
from hrcam_lightning.data.table import files_of_source
from hrcam_lightning.files import write_csv
from hrcam_lightning.report import predictions
from tests.command_line import again, error_of, load, rows_of, save

if TYPE_CHECKING:
    from hrcam_lightning.report.browser import Browser


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be written."""
    found: dict[str, Any] = {}

    def keep(*args: Any) -> int:
        found.update(zip(("path", "title", "lead", "sections", "browser"), args, strict=False))
        return 1

    monkeypatch.setattr(predictions, "write_page", keep)
    return found


def _predicted(
    folder: Path,
    files: dict[str, Path],
    maps: np.ndarray[Any, Any],
    affine: Any,
    thresholds: tuple[float, float] = (2.0, 100.0),
) -> None:
    """Predictions of two classes on images that are there, as `predict` leaves them."""
    journal = Journal(folder)
    folder.mkdir()
    journal.begin("abc", {"model.window": "None"}, resume=False)
    rows: list[dict[str, Any]] = []
    frame = Framing().of(Grid(maps.shape[2:], affine))
    for (case, path), own in zip(files.items(), maps, strict=True):
        found = Prediction(case, own[0], own, np.zeros(2, np.float32), np.array([0.25, 0.75], np.float32), frame)
        new = write_prediction(folder, found, ["mass", "node/ule"], thresholds, (-5, 5))
        journal.add(case, new, f"{path} 12 34")
        rows += new
    write_csv(folder / "predictions.csv", rows, COLUMNS)


def test_predictions_of_the_command_line(
    tmp_path: Path,
    tested_run: Path,
    tiny_set: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tested_run, "run")
    main(again("predict", tmp_path / "run", tiny_set / "cases.csv", "--data.predict_split", "test"))
    capsys.readouterr()
    main(["report", "run/predictions"])
    assert "All 6 predicted cases are shown below." in capsys.readouterr().out
    page = (tmp_path / "run/predictions/report.html").read_text(encoding="utf-8")
    for row in rows_of(tmp_path / "run/predictions/predictions.csv"):
        assert f'"{row["case"]}"' in page


def test_volumes_of_two_classes(tmp_path: Path, kept: dict[str, Any]) -> None:
    affine = np.diag([-1.0, 1, 2, 1])
    maps = np.random.default_rng(0).normal(size=(2, 2, 4, 5, 3)).astype(np.float32)
    maps = maps.clip(-1.9, 1.9)
    maps[0, 0, 1, 2, 1], maps[0, 0, 3, 4, 2], maps[1, 0, 0, 0, 0] = 5, 2.5, 3
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("a", "b")}
    for number, path in enumerate(files.values()):
        save(np.full((4, 5, 3), number + np.arange(3.0), np.float32), affine, path)
    _predicted(tmp_path / "out", files, maps, affine)
    main(["report", str(tmp_path / "out")])
    browser: Browser = kept["browser"]
    assert browser.classes == ("mass", "node/ule")
    assert browser.maps[0].threshold == {"mass": 2.5}  # of all cases; no voxel reaches that of the other
    for case, own, number in zip(browser.cases, maps, (0, 1), strict=True):
        np.testing.assert_array_equal(case.maps["model"]["mass"], own[0])
        np.testing.assert_array_equal(case.maps["model"]["node/ule"], own[1])
        np.testing.assert_array_equal(case.image[1, 2], number + np.arange(3.0))
        assert list(case.spacing) == [1, 1, 2]
        np.testing.assert_array_equal(case.affine, affine)
        assert (case.truth, case.outcome, case.masks) == (None, "", {})
        assert case.called == ("mass",)
        assert case.probabilities == {"mass": 0.25, "node/ule": 0.75}
    assert browser.cases[0].facts["lesions, mass"] == 2
    assert "SHA-256 abc" in kept["sections"][0].html
    main(["report", str(tmp_path / "out"), "--cases", "1"])
    assert len(kept["browser"].cases) == 1
    assert kept["lead"] == "1 of 2 predicted cases are shown below, by a hash of their names."


def test_pictures_have_masks_of_their_own(tmp_path: Path, kept: dict[str, Any]) -> None:
    maps = np.zeros((1, 2, 6, 7), np.float32)
    maps[0, 0, 2, 3], maps[0, 0, 2, 4] = 4, 3
    Image.fromarray(np.arange(42, dtype=np.uint8).reshape(6, 7)).save(tmp_path / "a.png")
    _predicted(tmp_path / "out", {"a": tmp_path / "a.png"}, maps, None)
    main(["report", str(tmp_path / "out")])
    (case,) = kept["browser"].cases
    np.testing.assert_array_equal(case.image, np.arange(42).reshape(6, 7))
    np.testing.assert_array_equal(case.maps["model"]["mass"], maps[0, 0])
    assert (case.affine, case.spacing) == (None, (1, 1))
    assert kept["browser"].maps[0].threshold == {"mass": 3}


def test_a_class_may_have_no_threshold(tmp_path: Path, kept: dict[str, Any]) -> None:
    maps = np.random.default_rng(0).uniform(3, 4, size=(1, 2, 4, 5, 3)).astype(np.float32)
    maps[0, 0, 1, 1, 1] = 1.5  # alone below the threshold
    save(np.zeros((4, 5, 3), np.float32), np.eye(4), tmp_path / "a.nii.gz")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "b.png")
    for name, own, affine in (("a.nii.gz", maps, np.eye(4)), ("b.png", maps[..., 1], None)):
        out = tmp_path / f"{name} out"
        _predicted(out, {name[0]: tmp_path / name}, own, affine, (2.0, math.nan))
        main(["report", str(out)])
        assert kept["browser"].maps[0].threshold == {"mass": own[0, 0][own[0, 0] >= 2].min()}
        assert kept["browser"].cases[0].called == ("mass",)


def test_what_a_case_was_read_from() -> None:
    source = "slices 3:9|/a b/c.nii.gz#2 12 34|/d 5 6.png"
    assert files_of_source(source) == [Path("/a b/c.nii.gz#2"), Path("/d 5 6.png")]
    assert files_of_source("") == []


def test_what_a_crop_left_out_is_lowest(tmp_path: Path, kept: dict[str, Any]) -> None:
    maps = np.ones((1, 2, 4, 4, 4), np.float32)
    save(np.zeros((4, 4, 4), np.float32), np.eye(4), tmp_path / "a.nii.gz")
    _predicted(tmp_path / "out", {"a": tmp_path / "a.nii.gz"}, maps, np.eye(4))
    path = tmp_path / "out/a_map.nii.gz"
    voxels = np.asarray(load(path).dataobj).copy()
    voxels[0, 0, 0], voxels[1, 1, 1, 0] = np.nan, -3
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[no-untyped-call]
    main(["report", str(tmp_path / "out")])
    (case,) = kept["browser"].cases
    assert case.maps["model"]["mass"][0, 0, 0] == -3


def test_what_cannot_be_reported_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scan = tmp_path / "out", tmp_path / "a.nii.gz"

    def error(*words: str) -> str:
        return error_of(capsys, monkeypatch, "report", str(out), *words)

    save(np.zeros((4, 4, 4), np.float32), np.eye(4), scan)
    _predicted(out, {"a": scan}, np.ones((1, 2, 4, 4, 4), np.float32), np.eye(4))
    assert "--ckpt_path is of a run" in error("--ckpt_path", "last")
    save(np.zeros((4, 4, 5), np.float32), np.eye(4), scan)
    assert "the image is not the one that was predicted" in error()
    scan.unlink()
    assert "a: the image that was predicted cannot be shown" in error()
    (out / ".done-0.jsonl").write_text(json.dumps({"checkpoint": "abc"}) + "\n")
    assert "does not say which image a is of" in error()
    (out / "predictions.csv").write_text("case,class\n")
    assert "tells of no case" in error()
    for table, words in (
        ("case,probability,lesions\na,0.5,\n", "has no column class; predict again"),
        ("case,class,probability,lesions\na,x,,\n", "probability of a is '', which is no number; predict again"),
        ("case,class,probability,lesions\na,x\n", "probability of a is '', which is no number"),
        ("case,class,probability,lesions,peak\na,x,0.5,,high\n", "peak of a is 'high', which is no number"),
    ):
        (out / "predictions.csv").write_text(table)
        assert words in error()
    assert "--cases: '0' is no whole number from 1 on" in error("--cases", "0")
    assert "--cases: 'few' is no whole number from 1 on" in error("--cases", "few")
    told = error("--out", str(out / "predictions.csv/page.html"))
    assert "cannot be written to" in told
    assert "choose another --out" in told
    assert not list(out.glob("*.html"))
