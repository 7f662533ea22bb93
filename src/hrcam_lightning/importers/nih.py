"""NIH ChestX-ray14: text-mined labels of 112,120 radiographs, boxes on 880 of them, official split lists."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.masks import Box, Boxes
from hrcam_lightning.importers.rows import Row, carve, refuse_missing
from hrcam_lightning.importers.sources import find_files, number, read_cells, read_list, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

BOXED = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
)  # fmt: skip
FINDINGS = (*BOXED, "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
NO_FINDING = "No Finding"
SPELLINGS = {"Infiltrate": "Infiltration"}  # the box file's word for it
DRAWN_ON = (1024.0, 1024.0)  # pixels that the boxes are given in, whatever size the images were copied to
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read_nih(
    images: Path,
    labels: Path,
    boxes: Path | None = None,
    splits: Path | None = None,
    *,
    findings: Literal["all", "boxed"] = "all",
    val: float = 0.1,
    skip_missing: bool = False,
    say: Callable[[str], None],
) -> list[Row]:
    """Read the set.

    Args:
        images: Folder of the images, however deep they lie.
        labels: ``Data_Entry_2017.csv``, or its revision of 2020.
        boxes: ``BBox_List_2017.csv``; the boxes of a finding become its mask.
        splits: Folder of ``train_val_list.txt`` and ``test_list.txt``.
        findings: All 14, or the 8 that have boxes: a case of others alone then has none.
        val: Share of the training cases that goes to validation, by patient.
        skip_missing: Leave out images that are listed but not there.
        say: Called with what the user should know.

    Raises:
        InputError: If a file or column is missing, a finding is unknown, or an image is not there.
    """
    listed = read_rows(labels, ("Image Index", "Finding Labels", "Patient ID"))
    files = find_files(images, lambda name: name if name.lower().endswith((".png", ".jpg", ".jpeg")) else None)
    refuse_missing(
        labels,
        [row["Image Index"] for row in listed if row["Image Index"] not in files],
        f"images are listed but not below {images}",
        skip=skip_missing,
    )
    home = _homes(splits) if splits else {}
    drawn = _boxes(boxes, files) if boxes else {}
    kept = BOXED if findings == "boxed" else FINDINGS
    rows = []
    for row in listed:
        name = row["Image Index"]
        if name not in files:
            continue
        if splits and name not in home:
            raise InputError(f"{labels}: {name} is in neither of {', '.join(LISTS)} in {splits}; mend the lists")
        there = tuple(finding for finding in _findings(labels, name, row["Finding Labels"]) if finding in kept)
        masks = {finding: drawn[name][finding] for finding in there if finding in drawn.get(name, {})}
        rows.append(Row(Path(name).stem, (files[name],), there, masks, home.get(name, ""), row["Patient ID"]))
    unused = sum(len(found) for found in drawn.values()) - sum(len(row.masks) for row in rows)
    if unused:
        say(f"{boxes}: {unused} masks are left out: their image is not in the table, or its label has no such finding")
    return carve(rows, val)


def _findings(path: Path, image: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split("|")]
    unknown = [part for part in found if part not in (*FINDINGS, NO_FINDING)]
    if unknown:
        raise InputError(f"{path}: {image} has the finding '{unknown[0]}'; known are {', '.join(FINDINGS)}")
    return [part for part in found if part != NO_FINDING]


def _homes(folder: Path) -> dict[str, str]:
    """Split of each image; what is not the official test set is to train and validate with."""
    home: dict[str, str] = {}
    for file, split in LISTS.items():
        for name in read_list(folder / file):
            if home.setdefault(name, split) != split:
                raise InputError(f"{folder}: {name} is in both {' and '.join(LISTS)}; keep it in one")
    return home


def _boxes(path: Path, files: dict[str, Path]) -> dict[str, dict[str, Boxes]]:
    """Boxes of each image by finding, by the place of their columns: the header's ``Bbox [x,y,w,h]`` is four cells."""
    header, *lines = read_cells(path)
    if len(header) < 6 or not header[2].startswith("Bbox"):
        raise InputError(f"{path}: the columns Image Index, Finding Label, Bbox [x,y,w,h] are needed, not {header}")
    found: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        name, finding = line[0], SPELLINGS.get(line[1], line[1])
        if finding not in FINDINGS:
            raise InputError(f"{path}: {name} has a box for '{finding}'; known are {', '.join(FINDINGS)}")
        left, top, width, height = (number(path, text, f"a box of {name}") for text in line[2:6])
        found[name][finding].append((left, top, left + width, top + height))
    return {
        name: {finding: Boxes(files[name], tuple(boxes), DRAWN_ON, path) for finding, boxes in masks.items()}
        for name, masks in found.items()
        if name in files
    }
