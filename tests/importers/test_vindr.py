"""VinDr-CXR: a tree of its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning.data import CaseDataModule
from tests.command_line import error_of
from tests.importers.trees import box, imported, labels_of, lines_of, picture, pixels, read_table, text

if TYPE_CHECKING:
    from pathlib import Path

BOXES = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"


@pytest.fixture
def vindr(tmp_path: Path) -> Path:
    """Three images that three radiologists read and two of a consensus, 24 pixels high and 32 wide."""
    for name in ("a", "b", "c"):
        picture(tmp_path / f"train/{name}.png", 24, 32)
    for name in ("d", "e"):
        picture(tmp_path / f"test/{name}.png", 24, 32)
    text(
        tmp_path / "annotations_train.csv",
        BOXES,
        "a,R1,Nodule/Mass,2.0,3.0,6.0,7.0",
        "a,R2,Nodule/Mass,4.2,3.0,8.4,7.0",  # 8.4: the centre of column 8 is at 8.5
        "a,R3,Calcification,1,1,2,2",
        "b,R1,No finding,,,,",
        "b,R2,No finding,,,,",
        "b,R3,Cardiomegaly,0,0,32,24",
        *(f"c,R{n},No finding,,,," for n in (1, 2, 3)),
    )
    text(
        tmp_path / "image_labels_train.csv",
        "image_id,rad_id,Nodule/Mass,Calcification,Cardiomegaly,Tuberculosis,No finding",
        "a,R1,1,0,0,1,0", "a,R2,1,0,0,1,0", "a,R3,0,1,0,0,0",
        "b,R1,0,0,0,0,1", "b,R2,0,0,0,0,1", "b,R3,0,0,1,0,0",
        "c,R1,0,0,0,0,1", "c,R2,0,0,0,0,1", "c,R3,0,0,0,0,1",
    )  # fmt: skip
    text(
        tmp_path / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "d,Cardiomegaly,10,5,20,15",
        "e,No finding,,,,",
    )
    return tmp_path


def _words(vindr: Path, *more: object) -> list[object]:
    return ["vindr", "--images", vindr, "--annotations", vindr / "annotations_train.csv", *more]


def test_a_finding_of_most_readers_counts_with_all_of_its_boxes(vindr: Path) -> None:
    imported(*_words(vindr))
    assert lines_of(vindr / "cases.csv") == [
        "image,label,mask,case",
        "train/a.png,Nodule/Mass,cases_masks/a_Nodule_Mass_mask.png,a",
        "train/b.png,normal,,b",
        "train/c.png,normal,,c",
    ]
    mask = pixels(vindr / "cases_masks/a_Nodule_Mass_mask.png")
    np.testing.assert_array_equal(mask, box(24, 32, slice(3, 7), slice(2, 8)))


def test_labels_add_what_has_no_box_and_any_reader_may_do(vindr: Path) -> None:
    imported(*_words(vindr, "--labels", vindr / "image_labels_train.csv"))
    assert lines_of(vindr / "cases.csv")[1:] == [
        "train/a.png,Nodule/Mass|Tuberculosis,Nodule/Mass=cases_masks/a_Nodule_Mass_mask.png,a",
        "train/b.png,normal,,b",
        "train/c.png,normal,,c",
    ]
    imported(*_words(vindr, "--agreement", "any", "--overwrite"))
    table = read_table(vindr / "cases.csv", "multilabel")
    assert table.classes == ["Calcification", "Cardiomegaly", "Nodule/Mass"]
    assert labels_of(table) == {"a": (1, 0, 1), "b": (0, 1, 0), "c": (0, 0, 0)}
    mask = pixels(vindr / "cases_masks/b_Cardiomegaly_mask.png")
    np.testing.assert_array_equal(mask, box(24, 32, slice(0, 24), slice(0, 32)))


def test_the_test_set_is_a_consensus_and_the_table_is_read_back(vindr: Path) -> None:
    imported(*_words(vindr, "--test_annotations", vindr / "annotations_test.csv", "--val", "0.3"))
    splits = {case.name: case.split for case in read_table(vindr / "cases.csv", "multilabel").cases}
    assert sorted(splits[name] for name in "abc") == ["train", "train", "val"]
    assert (splits["d"], splits["e"]) == ("test", "test")
    module = CaseDataModule(str(vindr / "cases.csv"), "multilabel")
    assert module.layout.classes == ["Cardiomegaly", "Nodule/Mass"]
    sample = module.dataset("test")[0]
    assert (sample["case"], sample["label"]) == ("d", (1, 0))
    assert sample["mask"][0, 5:15, 10:20].all()
    assert int(sample["mask"].sum()) == 100


def test_boxes_follow_images_that_were_resized(vindr: Path) -> None:
    rows = [f"{name},48,320" for name in "abc"]  # twice as high and ten times as wide as the images
    text(vindr / "train_meta.csv", "image_id,dim0,dim1", *rows)
    text(vindr / "annotations_train.csv", BOXES, "a,R1,Cardiomegaly,100,10,200,30", "b,R1,No finding,,,,")
    imported(*_words(vindr, "--sizes", vindr / "train_meta.csv"))
    mask = pixels(vindr / "cases_masks/a_Cardiomegaly_mask.png")
    np.testing.assert_array_equal(mask, box(24, 32, slice(5, 15), slice(10, 20)))


def test_a_box_thinner_than_a_pixel_is_the_pixel_it_lies_in(vindr: Path) -> None:
    text(vindr / "annotations_train.csv", BOXES, "a,R1,Cardiomegaly,10.6,5.1,10.9,5.2")
    imported(*_words(vindr))
    mask = pixels(vindr / "cases_masks/a_Cardiomegaly_mask.png")
    np.testing.assert_array_equal(mask, box(24, 32, slice(5, 6), slice(10, 11)))


def test_radiographs_in_dicom_are_drawn_on_by_rows_and_columns(vindr: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = ComputedRadiographyImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = 24, 32, 16, 12, 11
    made.SamplesPerPixel, made.PixelRepresentation, made.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    made.PixelData = np.arange(24 * 32, dtype=np.uint16).tobytes()
    (vindr / "test/d.png").unlink()
    made.save_as(vindr / "test/d.dicom", enforce_file_format=True)
    imported(
        "vindr", "--images", vindr / "test", "--annotations", vindr / "annotations_test.csv", "-o", vindr / "d.csv"
    )
    mask = pixels(vindr / "d_masks/d_Cardiomegaly_mask.png")
    np.testing.assert_array_equal(mask, box(24, 32, slice(5, 15), slice(10, 20)))
    sample = CaseDataModule(str(vindr / "d.csv"), shares=(0, 0, 1), normalization="none").dataset("test")[0]
    assert int(sample["mask"].sum()) == 100
    assert sample["image"][0, 5, 10] == 5 * 32 + 10


def test_what_cannot_be_used_ends_with_one_sentence(
    vindr: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text(vindr / "few.csv", "image_id,dim0,dim1", "a,24,32")
    text(vindr / "words.csv", "image_id,rad_id,Mass", "a,R1,yes")
    text(vindr / "absent.csv", BOXES, "z,R1,No finding,,,,")
    text(vindr / "alike.csv", BOXES, "a,R1,Nodule/Mass,1,1,2,2", "a,R1,Nodule_Mass,1,1,2,2")
    text(vindr / "large.csv", BOXES, "a,R1,Mass,100,100,200,200")
    for words, sentence in {
        ("--annotations", "few.csv"): "few.csv: has no column 'class_name', only image_id, dim0, dim1",
        ("--annotations", "absent.csv"): "1 images are listed but not there (z); mend it, or leave these cases out",
        (
            "--annotations",
            "large.csv",
        ): "of the image of 32 x 24 pixels; mend the box, or say what size it was drawn on",
        ("--sizes", "few.csv"): "--sizes has no row for 2 images, such as b",
        ("--annotations", "alike.csv"): "a_Nodule_Mass_mask.png: two masks would be written there",
        ("--labels", "words.csv"): "words.csv: Mass of a is 'yes', not a number",
        ("--test_labels", "words.csv"): "the test labels go with --test_annotations",
    }.items():
        option, name = words
        found = error_of(capsys, monkeypatch, "cases", *map(str, _words(vindr, option, vindr / name)))
        assert sentence in found, words
