"""VinDr-CXR: radiographs read by several radiologists each, who drew a box around every finding."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.masks import Box, Boxes
from hrcam_lightning.importers.rows import Row, carve, refuse_missing
from hrcam_lightning.importers.sources import find_files, number, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDINGS = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
CORNERS = ("x_min", "y_min", "x_max", "y_max")
NO_FINDING = "No finding"
Size = tuple[float, float]


@dataclass
class _Reading:
    """What the radiologists said of an image."""

    readers: set[str] = field(default_factory=set)
    votes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    boxes: dict[str, list[Box]] = field(default_factory=lambda: defaultdict(list))

    def labels(self, agreement: Literal["any", "majority"]) -> tuple[str, ...]:
        """Findings that enough of them saw."""
        least = 1 if agreement == "any" else len(self.readers) // 2 + 1
        return tuple(sorted(name for name, voters in self.votes.items() if len(voters) >= least))


def read_vindr(
    images: Path,
    annotations: Path,
    labels: Path | None = None,
    *,
    test_annotations: Path | None = None,
    test_labels: Path | None = None,
    sizes: Path | None = None,
    agreement: Literal["any", "majority"] = "majority",
    val: float = 0.1,
    skip_missing: bool = False,
) -> list[Row]:
    """Read the set.

    Args:
        images: Folder of the images, ``<image_id>.dicom`` or a picture, however deep they lie.
        annotations: ``annotations_train.csv`` (or the Kaggle competition's ``train.csv``): one row a box.
        labels: ``image_labels_train.csv``: one column a finding; it adds those without boxes.
        test_annotations: ``annotations_test.csv``, whose images are the test split.
        test_labels: ``image_labels_test.csv``.
        sizes: For images that were resized: a table of ``image_id``, ``dim0`` and ``dim1``, the height and width that
            the boxes were drawn on.
        agreement: Whether a finding counts that one radiologist saw, or that more than half of those who read the
            image saw. Its mask is all of its boxes, whoever drew them.
        val: Share of the training cases that goes to validation, where there is a test split.
        skip_missing: Leave out images that are listed but not there.

    Raises:
        InputError: If a file or column is missing, or an image is not there.
    """
    files = find_files(images, lambda name: Path(name).stem if name.lower().endswith(ENDINGS) else None)
    drawn_on = _sizes(sizes) if sizes else {}
    rows = _rows(annotations, labels, files, drawn_on, agreement, "train" if test_annotations else "", skip_missing)
    if test_annotations is None:
        if test_labels is not None:
            raise InputError(f"{test_labels}: the test labels go with --test_annotations; give both")
        return rows
    rows += _rows(test_annotations, test_labels, files, drawn_on, agreement, "test", skip_missing)
    return carve(rows, val)


def _rows(
    annotations: Path,
    labels: Path | None,
    files: dict[str, Path],
    drawn_on: dict[str, Size],
    agreement: Literal["any", "majority"],
    split: str,
    skip_missing: bool,
) -> list[Row]:
    readings = _readings(annotations, labels)
    missing = [name for name in readings if name not in files]
    refuse_missing(annotations, missing, "images are listed but not there", skip=skip_missing)
    unsized = [name for name in readings if drawn_on and name in files and name not in drawn_on]
    if unsized:
        raise InputError(f"--sizes has no row for {len(unsized)} images, such as {unsized[0]}; complete the table")
    rows = []
    for name, reading in readings.items():
        if name not in files:
            continue
        found = reading.labels(agreement)
        masks = {
            label: Boxes(files[name], tuple(reading.boxes[label]), drawn_on.get(name), annotations)
            for label in found
            if label in reading.boxes
        }
        rows.append(Row(name, (files[name],), found, masks, split))
    return rows


def _readings(annotations: Path, labels: Path | None) -> dict[str, _Reading]:
    """What was said of each image; a table without ``rad_id`` is one reading, a consensus."""
    found: dict[str, _Reading] = defaultdict(_Reading)
    for row in read_rows(annotations, ("image_id", "class_name", *CORNERS)):
        reading, reader = found[row["image_id"]], row.get("rad_id", "")
        reading.readers.add(reader)
        if row["class_name"].lower() == NO_FINDING.lower():
            continue
        left, top, right, bottom = (
            number(annotations, row[corner], f"{corner} of {row['image_id']}") for corner in CORNERS
        )
        reading.votes[row["class_name"]].add(reader)
        reading.boxes[row["class_name"]].append((left, top, right, bottom))
    for row in read_rows(labels, ("image_id",)) if labels else []:
        reading, reader = found[row["image_id"]], row.get("rad_id", "")
        reading.readers.add(reader)
        for name, value in row.items():
            if name in ("image_id", "rad_id") or name.lower() == NO_FINDING.lower():
                continue
            if number(labels or annotations, value, f"{name} of {row['image_id']}"):
                reading.votes[name].add(reader)
    return dict(found)


def _sizes(path: Path) -> dict[str, Size]:
    rows: Sequence[dict[str, str]] = read_rows(path, ("image_id", "dim0", "dim1"))
    return {row["image_id"]: (number(path, row["dim0"], "dim0"), number(path, row["dim1"], "dim1")) for row in rows}
