"""A folder of images, one subfolder a class; and what every importer does alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule
from tests.command_line import error_of
from tests.importers.trees import box, imported, labels_of, lines_of, picture, read_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("healthy/1.png", "healthy/2.png", "mass/site b/3.png", "mass/1.jpg", "nodule/4.png", ".trash/5.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images/mass/notes.txt").touch()
    (tmp_path / "images/mass/.hidden.png").touch()
    for name in ("mass/site b/3.png", "mass/1.png", "nodule/4.png"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(box(16, 16, slice(2, 5), slice(3, 7))).save(tmp_path / "masks" / name)
    return tmp_path


def test_subfolders_are_classes_at_any_depth(tree: Path) -> None:
    imported("folder", tree / "images", "--negative", "Healthy")
    assert lines_of(tree / "images/cases.csv") == [
        "image,label,case",
        "healthy/1.png,normal,healthy/1",
        "healthy/2.png,normal,healthy/2",
        "mass/1.jpg,mass,mass/1",
        "mass/site b/3.png,mass,mass/site b/3",
        "nodule/4.png,nodule,nodule/4",
    ]
    table = read_table(tree / "images/cases.csv")
    assert (table.task, table.classes) == ("multiclass", ["mass", "nodule", "normal"])


def test_masks_lie_in_a_tree_of_the_same_form(tree: Path) -> None:
    imported("folder", tree / "images", "--masks", tree / "masks", "--negative", "healthy")
    assert [line.split(",")[:3] for line in lines_of(tree / "cases.csv")[3:]] == [
        ["images/mass/1.jpg", "mass", "masks/mass/1.png"],
        ["images/mass/site b/3.png", "mass", "masks/mass/site b/3.png"],
        ["images/nodule/4.png", "nodule", "masks/nodule/4.png"],
    ]
    module = CaseDataModule(str(tree / "cases.csv"), "multilabel", shares=(1, 0, 0))
    sample = module.dataset("train")[3]
    assert (sample["case"], sample["label"]) == ("mass/site b/3", (1, 0))
    assert sample["mask"].nonzero().tolist() == [[0, row, column] for row in (2, 3, 4) for column in (3, 4, 5, 6)]


def test_folders_called_like_splits_are_splits(tmp_path: Path) -> None:
    for name in ("train/normal/1", "train/mass/2", "test/normal/3", "test/mass/4"):
        picture(tmp_path / f"{name}.png")
    imported("folder", tmp_path)
    table = read_table(tmp_path / "cases.csv")
    assert (table.task, table.classes) == ("binary", ["mass"])
    assert labels_of(table) == {"test/mass/4": 1, "test/normal/3": 0, "train/mass/2": 1, "train/normal/1": 0}
    assert {case.name.partition("/")[0] == case.split for case in table.cases} == {True}
    picture(tmp_path / "other/normal/5.png")  # now they are classes
    imported("folder", tmp_path, "--overwrite")
    assert read_table(tmp_path / "cases.csv").classes == ["other", "test", "train"]


def test_what_cannot_be_used_ends_with_one_sentence(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = str(tree / "images")
    (tree / "images/empty").mkdir()
    assert "empty: holds no image that can be read" in error_of(capsys, monkeypatch, "cases", "folder", images)
    (tree / "images/empty").rmdir()
    (tree / "masks/nodule/4.png").unlink()
    for words, sentence in {
        (f"{images}/none",): "none: no such folder",
        (f"{images}/healthy",): "healthy: has no subfolders; one a class is needed",
        (images, "--negative", "helthy"): "no subfolder is called --negative helthy, only healthy, mass, nodule",
        (images, "--masks", str(tree / "masks"), "--negative", "healthy"): "1 masks are missing (nodule/4)",
        (images, "--task", "binary"): "unrecognized arguments: --task binary (see hrcam cases --help)",
    }.items():
        assert sentence in error_of(capsys, monkeypatch, "cases", "folder", *words), words
    assert not list(tree.rglob("*.csv"))
    picture(tree / "images/mass/1.png")
    assert "two cases would be called 'mass/1'" in error_of(capsys, monkeypatch, "cases", "folder", images)
    (tree / "images/mass/1.png").unlink()
    picture(tree / "images/a=b/1.png")
    assert "'a=b' cannot be a class of" in error_of(capsys, monkeypatch, "cases", "folder", images)
    assert "invalid choice: 'dicom'" in error_of(capsys, monkeypatch, "cases", "dicom", images)
    assert "required: KIND" in error_of(capsys, monkeypatch, "cases")


def test_a_table_is_replaced_only_if_asked_for_and_whole(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tree / "out/my.csv"
    imported("folder", tree / "images", "--out", out)
    assert lines_of(out)[1].startswith("../images/healthy/1.png,healthy,")
    assert (
        f"Next: hrcam fit --data CaseDataModule --data.cases {out} --data.allow_outside true" in capsys.readouterr().out
    )
    before = out.read_bytes()
    (tree / "images/mass/1.jpg").unlink()
    words = ["cases", "folder", str(tree / "images"), "--out", str(out)]
    assert f"{out} is there already: replace it with --overwrite" in error_of(capsys, monkeypatch, *words)
    assert out.read_bytes() == before
    main([*words, "--overwrite"])
    assert len(lines_of(out)) == 1 + 4
    assert [path.name for path in out.parent.iterdir()] == ["my.csv"]


def test_the_command_stands_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "hrcam cases KIND: Write the table of cases (cases.csv) of a folder, NIH, VinDr-CXR" in shown
    for kind in ("folder", "nih", "vindr", "voc", "bids"):
        with pytest.raises(SystemExit) as caught:
            main(["cases", kind, "--help"])
        assert caught.value.code == 0
        assert "--skip_missing" in capsys.readouterr().out


def test_masks_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "images/mass/1.png")
    for ending in ("png", "tif"):
        picture(tmp_path / f"masks/mass/1.{ending}")
    words = ["folder", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    assert "two masks for 'mass/1'; keep one" in error_of(capsys, monkeypatch, "cases", *words)
    np.testing.assert_equal(list(tmp_path.glob("*.csv")), [])
