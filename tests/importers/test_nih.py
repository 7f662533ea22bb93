"""NIH ChestX-ray14: a tree of its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hrcam_lightning.data import CaseDataModule
from tests.command_line import error_of
from tests.importers.trees import box, imported, lines_of, picture, pixels, read_table, text

if TYPE_CHECKING:
    from pathlib import Path

# The headers of the files as they are published: names in brackets are several cells, some of them without a name.
ENTRY = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
SHOWN = {
    "00000001_000.png": "Cardiomegaly|Hernia",
    "00000001_001.png": "No Finding",
    "00000002_000.png": "Hernia",
    "00000003_000.png": "Infiltration",
    "00000004_000.png": "No Finding",
    "00000005_000.png": "Infiltration|Mass",
}
TEST = ("00000004_000.png", "00000005_000.png")


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    """Six images of 64 × 64, in two folders, of five patients."""
    for index, name in enumerate(SHOWN):
        picture(tmp_path / f"images_00{1 + index % 2}" / "images" / name, 64, 64)
    rows = [f"{name},{labels},0,{int(name[:8])},57,M,PA,2682,2749,0.143,0.143," for name, labels in SHOWN.items()]
    text(tmp_path / "Data_Entry_2017.csv", ENTRY, *rows)
    text(
        tmp_path / "BBox_List_2017.csv",
        BOXES,
        "00000005_000.png,Infiltrate,160.0,320.0,480.0,64.0,,,",  # of 1024: columns 10 to 40, rows 20 to 24
        "00000005_000.png,Mass,1000.0,-16.0,32.0,80.0,,,",  # a little over the edge: columns 62.5 to 64, rows -1 to 4
        "00000003_000.png,Mass,0,0,64,64,,,",  # whose label does not say so
    )
    text(tmp_path / "train_val_list.txt", *(name for name in SHOWN if name not in TEST))
    text(tmp_path / "test_list.txt", *TEST)
    return tmp_path


def _words(nih: Path, *more: object) -> list[object]:
    return ["nih", "--images", nih, "--labels", nih / "Data_Entry_2017.csv", *more]


def test_labels_splits_and_boxes_become_a_table(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(*_words(nih, "--boxes", nih / "BBox_List_2017.csv", "--splits", nih, "--val", "0.25"))
    assert lines_of(nih / "cases.csv") == [
        "image,label,mask,split,subject,case",
        "images_001/images/00000001_000.png,Cardiomegaly|Hernia,,train,1,00000001_000",
        "images_002/images/00000001_001.png,normal,,train,1,00000001_001",
        "images_001/images/00000002_000.png,Hernia,,train,2,00000002_000",
        "images_002/images/00000003_000.png,Infiltration,,val,3,00000003_000",
        "images_001/images/00000004_000.png,normal,,test,4,00000004_000",
        (
            "images_002/images/00000005_000.png,Infiltration|Mass,"
            "Infiltration=cases_masks/00000005_000_Infiltration_mask.png|Mass=cases_masks/00000005_000_Mass_mask.png,"
            "test,5,00000005_000"
        ),
    ]
    masks = nih / "cases_masks"
    assert sorted(path.name for path in masks.iterdir()) == [
        "00000005_000_Infiltration_mask.png",
        "00000005_000_Mass_mask.png",
    ]
    shown = pixels(masks / "00000005_000_Infiltration_mask.png")
    np.testing.assert_array_equal(shown, box(64, 64, slice(20, 24), slice(10, 40)))
    shown = pixels(masks / "00000005_000_Mass_mask.png")
    np.testing.assert_array_equal(shown, box(64, 64, slice(0, 4), slice(62, 64)))
    said = capsys.readouterr()
    assert "1 masks are left out: their image is not in the table, or its label has no such finding" in said.err
    assert f"{nih / 'cases.csv'}: 6 cases (train 3, val 1, test 2), 4 classes, 5 subjects, 2 masks\n" in said.out


def test_the_table_is_read_back_by_the_data_module(nih: Path) -> None:
    imported(*_words(nih, "--boxes", nih / "BBox_List_2017.csv", "--splits", nih, "--findings", "boxed"))
    module = CaseDataModule(str(nih / "cases.csv"), batch_size=2)
    assert module.layout.task == "multilabel"
    assert module.layout.classes == ["Cardiomegaly", "Infiltration", "Mass"]
    batch = next(iter(module.test_dataloader()))
    assert batch["label"].tolist() == [[0, 0, 0], [0, 1, 1]]
    assert batch["mask"].flatten(2).sum(2).tolist() == [[0, 0, 0], [0, 4 * 30, 4 * 2]]
    assert torch.equal(batch["mask"][1, 1, 20:24, 10:40], torch.ones(4, 30, dtype=torch.bool))


def test_of_the_boxed_findings_others_are_no_finding(nih: Path) -> None:
    entry = nih / "Data_Entry_2017.csv"
    entry.write_text("\ufeff" + entry.read_text(), encoding="utf-8")  # as a spreadsheet saves it
    imported(*_words(nih, "--findings", "boxed"))
    rows = [line.split(",") for line in lines_of(nih / "cases.csv")]
    assert rows[0] == ["image", "label", "subject", "case"]
    assert [row[1] for row in rows[1:]] == [
        "Cardiomegaly", "normal", "normal", "Infiltration", "normal", "Infiltration|Mass",
    ]  # fmt: skip


def test_validation_is_of_whole_patients_and_repeatable(tmp_path: Path) -> None:
    names = [f"{patient:08d}_{n:03d}.png" for patient in range(1, 41) for n in range(3)]
    for name in names:
        (tmp_path / name).touch()
    text(tmp_path / "entry.csv", ENTRY, *(f"{name},No Finding,0,{int(name[:8])},57,M,PA,1,1,1,1," for name in names))
    text(tmp_path / "train_val_list.txt", *names[:90])
    text(tmp_path / "test_list.txt", *names[90:])
    found = []
    for out in ("a.csv", "b.csv"):
        imported(
            "nih", "--images", tmp_path, "--labels", tmp_path / "entry.csv", "--splits", tmp_path, "-o", tmp_path / out
        )
        found.append((tmp_path / out).read_bytes())
    assert found[0] == found[1]
    home = {case.name: case.split for case in read_table(tmp_path / "a.csv", "binary", ["x"]).cases}
    assert [sum(split == name for split in home.values()) for name in ("train", "val", "test")] == [81, 9, 30]
    assert all(home[name.removesuffix(".png")] == "test" for name in names[90:])
    # Not the first patients of the list: their order is that of a hash.
    assert {name[:8] for name, split in home.items() if split == "val"} != {f"{n:08d}" for n in (1, 2, 3)}


def test_what_cannot_be_used_ends_with_one_sentence(
    nih: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = (nih / "Data_Entry_2017.csv").read_text()
    text(nih / "fever.csv", entry.replace("Hernia,", "Fever,").strip())
    text(nih / "short.csv", "Image Index,Finding Labels", "a.png,Hernia")
    absent = [f"0000009{n}_000.png,Hernia,0,{90 + n},57,M,PA,1,1,1,1," for n in range(5)]
    text(nih / "absent.csv", entry.strip(), *absent)
    text(nih / "words.csv", BOXES, "00000005_000.png,Mass,a,0,64,64,,,")
    text(nih / "outside.csv", BOXES, "00000005_000.png,Mass,990,0,80,64,,,")
    text(nih / "empty.csv", BOXES, "00000005_000.png,Mass,9,9,0,64,,,")
    text(nih / "halves/train_val_list.txt", *list(SHOWN)[:3])
    text(nih / "both/train_val_list.txt", *SHOWN)
    text(nih / "both/test_list.txt", *TEST)
    text(nih / "halves/test_list.txt", *TEST)
    labels = ["--labels", nih / "Data_Entry_2017.csv"]
    for words, sentence in {
        ("--labels", nih / "none.csv"): "none.csv: no such file",
        ("--labels", nih / "short.csv"): "short.csv: has no column 'Patient ID', only Image Index, Finding Labels",
        ("--labels", nih / "fever.csv"): "has the finding 'Fever'; known are Atelectasis",
        ("--labels", nih / "absent.csv"): "5 images are listed but not below",
        (*labels, "--boxes", nih / "short.csv"): "the columns Image Index, Finding Label, Bbox [x,y,w,h] are needed",
        (*labels, "--boxes", nih / "words.csv"): "words.csv: a box of 00000005_000.png is 'a', not a number",
        (*labels, "--boxes", nih / "outside.csv"): "the box 990, 0, 1070, 64 (left, top, right, bottom)",
        (*labels, "--boxes", nih / "empty.csv"): "is empty or lies mostly outside",
        (*labels, "--splits", nih / "halves"): "00000003_000.png is in neither of train_val_list.txt, test_list.txt",
        (*labels, "--splits", nih / "both"): "00000004_000.png is in both train_val_list.txt and test_list.txt",
        (*labels, "--splits", nih / "none"): "train_val_list.txt: no such file",
        (*labels, "--val", "1"): "--val is 1.0; a share of at least 0 and below 1 is needed",
        (*labels, "--findings", "some"): "invalid choice: 'some'",
    }.items():
        found = error_of(capsys, monkeypatch, "cases", "nih", "--images", str(nih), *map(str, words))
        assert sentence in found, words
        assert not (nih / "cases.csv").exists()
    assert "(00000090_000.png, 00000091_000.png, 00000092_000.png, ...)" in error_of(
        capsys, monkeypatch, "cases", "nih", "--images", str(nih), "--labels", str(nih / "absent.csv")
    )
    imported("nih", "--images", nih, "--labels", nih / "absent.csv", "--skip_missing")
    assert len(lines_of(nih / "cases.csv")) == 1 + 6


def test_two_images_of_one_name_are_refused(
    nih: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(nih / "copy" / "00000002_000.png")
    found = error_of(capsys, monkeypatch, "cases", *map(str, _words(nih)))
    assert "two files for '00000002_000.png'" in found
