"""Pascal VOC: a tree of its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from hrcam_lightning.data import CaseDataModule
from hrcam_lightning.importers.voc import CLASSES
from tests.command_line import error_of
from tests.importers.trees import box, imported, labels_of, lines_of, picture, pixels, read_table, text

if TYPE_CHECKING:
    from pathlib import Path


def _annotation(*objects: tuple[str, int, str], size: tuple[int, int] = (20, 30)) -> str:
    """An annotation of named boxes, difficult or not, on a picture of a height and width."""
    found = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{corner}>{value}</{corner}>"
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=True)
        )
        + "</bndbox></object>"
        for name, difficult, corners in objects
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{found}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    shown = {
        "2007_000001": [("dog", 0, "1 1 1 1"), ("dog", 0, "11 6 30 20"), ("person", 1, "3 4 5 7")],
        "2007_000002": [("cat", 0, "2 2 9 9")],
        "2007_000003": [],
        "2007_000004": [("dog", 0, "1 1 30 20")],
    }
    for name, objects in shown.items():
        picture(root / "JPEGImages" / f"{name}.jpg", 20, 30)
        text(root / "Annotations" / f"{name}.xml", _annotation(*objects))
    text(root / "ImageSets/Main/train.txt", "2007_000001", "2007_000003")
    text(root / "ImageSets/Main/val.txt", "2007_000002")
    text(root / "ImageSets/Main/dog_train.txt", "2007_000001  1", "2007_000003 -1")
    numbers = np.zeros((20, 30), np.uint8)
    numbers[5:9, 3:8], numbers[5, 3:8] = CLASSES.index("dog") + 1, 255
    numbers[0, 0] = CLASSES.index("person") + 1
    segmented = Image.fromarray(numbers)
    segmented.putpalette([value for n in range(256) for value in (n, 255 - n, n // 2)])
    (root / "SegmentationClass").mkdir()
    segmented.save(root / "SegmentationClass/2007_000001.png")
    return tmp_path


def test_boxes_count_from_one_and_include_their_last_pixel(voc: Path) -> None:
    imported("voc", voc, "--year", "2012")
    assert lines_of(voc / "cases.csv") == [
        "image,label,mask,split,case",
        (
            "VOC2012/JPEGImages/2007_000001.jpg,dog|person,dog=cases_masks/2007_000001_dog_mask.png"
            "|person=cases_masks/2007_000001_person_mask.png,train,2007_000001"
        ),
        "VOC2012/JPEGImages/2007_000002.jpg,cat,cases_masks/2007_000002_cat_mask.png,val,2007_000002",
        "VOC2012/JPEGImages/2007_000003.jpg,normal,,train,2007_000003",
    ]
    dogs = box(20, 30, slice(5, 20), slice(10, 30))
    dogs[0, 0] = 255
    np.testing.assert_array_equal(pixels(voc / "cases_masks/2007_000001_dog_mask.png"), dogs)
    person = pixels(voc / "cases_masks/2007_000001_person_mask.png")
    np.testing.assert_array_equal(person, box(20, 30, slice(3, 7), slice(2, 5)))


def test_segmentation_gives_a_mask_a_class_without_the_border(voc: Path) -> None:
    imported("voc", voc / "VOC2012", "--masks", "segmentation", "--difficult", "drop")
    assert lines_of(voc / "VOC2012/cases.csv")[1:3] == [
        "JPEGImages/2007_000001.jpg,dog,cases_masks/2007_000001_dog_mask.png,train,2007_000001",
        "JPEGImages/2007_000002.jpg,cat,,val,2007_000002",  # not segmented
    ]
    mask = pixels(voc / "VOC2012/cases_masks/2007_000001_dog_mask.png")
    np.testing.assert_array_equal(mask, box(20, 30, slice(6, 9), slice(3, 8)))


def test_without_masks_and_lists_all_annotated_cases_stand_in_the_table(voc: Path) -> None:
    for path in (voc / "VOC2012/ImageSets/Main").iterdir():
        path.unlink()
    imported("voc", voc, "--masks", "none")
    lines = lines_of(voc / "cases.csv")
    assert (lines[0], len(lines)) == ("image,label,case", 5)
    assert labels_of(read_table(voc / "cases.csv")) == {
        "2007_000001": (0, 1, 1), "2007_000002": (1, 0, 0), "2007_000003": (0, 0, 0), "2007_000004": (0, 1, 0),
    }  # fmt: skip


def test_the_table_is_read_back_by_the_data_module(voc: Path) -> None:
    imported("voc", voc)
    sample = CaseDataModule(str(voc / "cases.csv")).dataset("train")[0]
    assert sample["image"].shape == (1, 20, 30)
    assert sample["mask"].flatten(1).sum(1).tolist() == [0, 15 * 20 + 1, 4 * 3]


def test_what_cannot_be_used_ends_with_one_sentence(
    voc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = voc / "VOC2012"
    annotation = root / "Annotations/2007_000002.xml"
    for content, more, sentence in (
        ("<annotation><object>", [], "cannot be read as XML"),
        (_annotation(("", 0, "1 1 2 2")), [], "an object has no name"),
        (_annotation(("cat", 0, "1 x 2 2")), [], "ymin of a cat is 'x', not a number"),
        (_annotation(("cat", 0, "40 1 45 2")), [], "is empty or lies mostly outside"),
        (_annotation(("tumour", 0, "1 1 2 2")), ["--masks", "segmentation"], "the class 'tumour' is none of the 20"),
        (_annotation(("a|b", 0, "1 1 2 2")), [], "'a|b' cannot be a class of"),
        (_annotation(("Normal", 0, "1 1 2 2")), [], "'Normal' cannot be a class of"),
    ):
        annotation.write_text(content)
        if "segmentation" in more:
            (root / "SegmentationClass/2007_000002.png").touch()
        assert sentence in error_of(capsys, monkeypatch, "cases", "voc", str(voc), *more), content
    annotation.unlink()
    assert "1 cases have no annotation or no image (2007_000002)" in error_of(
        capsys, monkeypatch, "cases", "voc", str(voc)
    )
    assert not (voc / "cases.csv").exists()
    text(root / "ImageSets/Main/test.txt", "2007_000001")
    assert "2007_000001 is in train.txt as well" in error_of(capsys, monkeypatch, "cases", "voc", str(voc))
    assert "VOC2007: no such folder" in error_of(capsys, monkeypatch, "cases", "voc", str(voc), "--year", "2007")
    assert "has no Annotations" in error_of(capsys, monkeypatch, "cases", "voc", str(root / "JPEGImages"))
    (voc / "VOC2007/Annotations").mkdir(parents=True)
    assert "holds VOC2007, VOC2012: say which by --year" in error_of(capsys, monkeypatch, "cases", "voc", str(voc))


def test_a_box_is_scaled_to_a_resized_image(voc: Path) -> None:
    root = voc / "VOC2012"
    picture(root / "JPEGImages/2007_000002.jpg", 40, 60)  # twice the size that the annotation speaks of
    imported("voc", voc)
    mask = pixels(voc / "cases_masks/2007_000002_cat_mask.png")
    np.testing.assert_array_equal(mask, box(40, 60, slice(2, 18), slice(2, 18)))
