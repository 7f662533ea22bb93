"""Scans without a table: one, a folder, a glob."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning import InputError
from hrcam_lightning.cli import main
from hrcam_lightning.data.listing import list_scans, names_scans
from tests.command_line import CASES, SMALL, again, error_of, rows_of, save
from tests.importers.trees import picture, text

if TYPE_CHECKING:
    from pathlib import Path


def _found(given: object) -> dict[str, str]:
    return {case.name: case.images[0].name for case in list_scans(str(given)).cases}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two sites whose scans are called alike, what is no scan, and what `predict` wrote."""
    for name in ("b/1.png", "a/1.png", "a/deep/2.TIF", ".hidden/3.png", "a/.4.png"):
        picture(tmp_path / "set" / name)
    for name in ("a/1_map.nii.gz", "a/1_mask.nii.gz", "a/2_mask.png", "predictions/5.png"):
        text(tmp_path / "set" / name, "no scan")
    text(tmp_path / "set/predictions/predictions.csv", "case")
    text(tmp_path / "set/notes.txt", "no scan")
    return tmp_path / "set"


def test_a_folder_is_read_at_any_depth_in_the_order_of_its_paths(scans: Path) -> None:
    assert list(_found(scans).items()) == [("a/1", "1.png"), ("a/deep/2", "2.TIF"), ("b/1", "1.png")]
    assert _found(scans / "a") == {"1": "1.png", "2": "2.TIF"}  # short where that is unique
    table = list_scans(str(scans))
    assert (table.task, table.classes, table.cases[0].label) == (None, None, None)
    assert [case.subject for case in table.cases] == [case.name for case in table.cases]


def test_names_that_differ_by_their_ending_keep_it(scans: Path) -> None:
    picture(scans / "b/1.jpg")
    assert list(_found(scans / "b")) == ["1.jpg", "1.png"]


def test_a_glob_matches_files_and_folders(scans: Path) -> None:
    assert _found(scans / "*/1*") == {"a/1": "1.png", "b/1": "1.png"}
    assert _found(scans / "**/*.TIF") == {"2": "2.TIF"}
    assert list(_found(scans / "[ab]")) == ["a/1", "a/deep/2", "b/1"]
    picture(scans / "c[1].png")  # a file may be called like a glob
    assert _found(scans / "c[1].png") == {"c[1]": "c[1].png"}


def test_a_scan_that_is_named_is_taken_whatever_it_is_called(scans: Path) -> None:
    assert _found(scans / "b/1.png") == {"1": "1.png"}
    assert _found(scans / "a/1_mask.nii.gz") == {"1_mask": "1_mask.nii.gz"}
    assert _found(scans / "b/1.png#0") == {"1_0": "1.png#0"}


def test_what_is_a_table(scans: Path) -> None:
    named = [scans, scans / "b/1.png", scans / "none.nii.gz", scans / "*.png", scans / "b/1.png#0"]
    assert [names_scans(str(one)) for one in named] == [True] * len(named)
    text(scans / "cases[1].csv", "image")
    assert [names_scans(str(scans / one)) for one in ("notes.txt", "none.csv", "cases[1].csv")] == [False] * 3


def test_what_a_prediction_that_was_cut_off_has_drawn_is_no_scan(scans: Path) -> None:
    before = _found(scans)
    (scans / "cut").mkdir()
    save(np.ones((4, 4, 4), np.float32), np.eye(4), scans / "cut/x_lesion.nii.gz")
    assert _found(scans) != before
    (scans / "cut/.done-0.jsonl").touch()
    assert _found(scans) == before


def test_links_to_folders_are_not_followed(scans: Path) -> None:
    (scans / "a/loop").symlink_to(scans)
    (scans / "b/7.png").symlink_to(scans / "a/1.png")
    assert list(_found(scans)) == ["a/1", "a/deep/2", "b/1", "b/7"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("set/none", None),
        ("set/none.png", "set/none.png: no such file; give a scan, a folder, a glob in quotes, or a table of cases"),
        ("set/*.nii.gz", "set/*.nii.gz: no image is there; .nii, .nii.gz, .png"),
        ("set/predictions", "set/predictions: no image is there"),
        ("set/a/*_mask.*", "files called *_map or *_mask are passed over"),
    ],
)
def test_no_match_is_one_sentence(
    scans: Path, monkeypatch: pytest.MonkeyPatch, given: str, sentence: str | None
) -> None:
    monkeypatch.chdir(scans.parent)
    assert names_scans(given) == (sentence is not None)
    if sentence:
        with pytest.raises(InputError) as caught:
            list_scans(given)
        assert sentence in str(caught.value)


def test_a_folder_of_a_dicom_series_is_one_scan_and_of_radiographs_several(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(path: Path, series: str, z: float) -> None:
        made = pydicom.Dataset()
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
        made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = 4, 4, 16, 12, 11
        made.SamplesPerPixel, made.PixelRepresentation, made.PhotometricInterpretation = 1, 0, "MONOCHROME2"
        made.PixelSpacing, made.ImagePositionPatient = [1, 1], [0, 0, z]
        made.ImageOrientationPatient, made.SeriesInstanceUID = [1, 0, 0, 0, 1, 0], series
        made.PixelData = np.zeros((4, 4), np.uint16).tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path, enforce_file_format=True)

    for n in range(3):
        write(tmp_path / f"ct/series/IM{n}", "1.2.3", n)  # no ending, as from many archives
        write(tmp_path / f"films/{n}.dcm", f"1.2.4.{n}", 0)
    text(tmp_path / "ct/series/README", "no scan")
    assert list(_found(tmp_path)) == ["series", "0", "1", "2"]
    assert list(_found(tmp_path / "ct/series")) == ["series"]
    assert names_scans(str(tmp_path / "ct/series/IM0"))
    assert not names_scans(str(tmp_path / "ct/series/README"))
    write(tmp_path / "ct/series/IM3", "1.2.5", 0)
    with pytest.raises(InputError, match="series: its 4 DICOM files are of 2 series; keep each series in a folder"):
        _found(tmp_path)


def test_a_folder_is_predicted_and_not_trained_on(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("x/1", "y/1"):
        (tmp_path / f"new/{name}").parent.mkdir(parents=True)
        save(rng.normal(size=(16, 16, 1)), np.eye(4), tmp_path / f"new/{name}.nii.gz")
    main(again("predict", fitted, tmp_path / "new"))
    assert [row["case"] for row in rows_of(fitted / "predictions/predictions.csv")] == ["x/1", "y/1"]
    main(again("predict", fitted, tmp_path / "new/x/1.nii.gz"))
    assert [row["case"] for row in rows_of(fitted / "predictions/predictions.csv")] == ["1"]
    found = error_of(
        capsys, monkeypatch, "fit", *CASES, str(tmp_path / "new"), *SMALL, "--trainer.default_root_dir", "r"
    )
    assert (
        "scans without labels can be predicted only; give a table of cases, such as `hrcam cases folder DIR`" in found
    )
    assert "`" in error_of(capsys, monkeypatch, *again("test", fitted, tmp_path / "new"))
