"""Whether a set on disk is still what was generated."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth.dataset import JOURNAL, SHARD
from synth.files import DatasetError, Voxels, case_hash, read_nifti
from synth.grid import Grid
from synth.records import (
    EXTRAS,
    INDEX,
    OnCase,
    case_columns,
    count,
    extra_key,
    folders,
    ignore,
    lesion_columns,
    set_hash,
    tables,
)
from synth.spec import NORMAL, PhantomSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Row = dict[str, str]
DISTRACTOR = extra_key("distractor")


class StoredSet(NamedTuple):
    """The tables of a set.

    Attributes:
        folder: where it lies.
        info: content of ``dataset.json``.
        spec: what it was drawn from.
        cases: rows of ``cases.csv``.
        lesions: rows of ``lesions.csv`` by case.
        distractors: rows of ``distractors.csv`` by case; empty where there is none.
    """

    folder: Path
    info: Mapping[str, Any]
    spec: PhantomSpec
    cases: Sequence[Row]
    lesions: Mapping[str, Sequence[Row]]
    distractors: Mapping[str, Sequence[Row]]

    def masks(self, row: Row) -> dict[str, Path]:
        """Return the mask files of a case by class."""
        if not row["mask"]:
            return {}
        if len(self.spec.classes) == 1:
            return {self.spec.classes[0]: self.folder / row["mask"]}
        pairs = (part.partition("=") for part in row["mask"].split("|"))
        return {name: self.folder / path for name, _, path in pairs}


def open_set(folder: Path) -> StoredSet:
    """Read the tables of a complete set.

    Raises:
        DatasetError: the folder holds no set, an unfinished one, or a broken table.
        SpecError: its specification is not valid.
    """
    if (folder / JOURNAL).exists():
        raise DatasetError(f"{folder} is unfinished: complete it with hrcam-synth generate --resume")
    if (folder / SHARD).exists():
        raise DatasetError(f"{folder} is one shard of a set: put all of them together with hrcam-synth merge")
    if not (folder / INDEX).exists():
        raise DatasetError(f"{folder} holds no generated set: {INDEX} is missing")
    try:
        info = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        spec = PhantomSpec.from_dict(info["spec"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / INDEX} is damaged: {' '.join(str(error).split())}") from None
    cases = _rows(folder / "cases.csv", case_columns(info))
    names, columns = tables(info)[1:], lesion_columns(len(spec.shape))
    found = {name: _by_case(_rows(folder / name, columns)) for name in names}
    return StoredSet(folder, info, spec, cases, found["lesions.csv"], found.get("distractors.csv", {}))


def _by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[Row]:
    if not path.exists():
        raise DatasetError(f"{path} is missing")
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if tuple(header) != tuple(columns) or any(len(line) != len(columns) for line in lines):
        raise DatasetError(f"{path} is damaged: its columns must be {','.join(columns)}")
    return [dict(zip(columns, line, strict=True)) for line in lines]


def problems(folder: Path, on_case: OnCase = ignore) -> list[str]:
    """Check a set: hashes, geometry, masks against labels and lesions, counts, stray files.

    Args:
        folder: the set.
        on_case: told the number of checked cases and their total.

    Returns:
        A few words for each thing that is wrong, those of a case beginning with its name.

    Raises:
        DatasetError: there is no complete set to check.
    """
    stored = open_set(folder)
    found: list[str] = []
    for done, row in enumerate(stored.cases, 1):
        wrong = next(_case_problems(stored, row), None)
        if wrong:
            found.append(f"{row['case']}: {wrong}")
        on_case(done, len(stored.cases))
    return found + list(_set_problems(stored))


def _case_problems(stored: StoredSet, row: Row) -> Iterator[str]:
    grid = Grid(stored.spec.shape, stored.spec.spacing_mm)
    try:
        image, affine = read_nifti(stored.folder / row["image"])
        read = {name: read_nifti(path) for name, path in stored.masks(row).items()}
        extra = {extra_key(name): read_nifti(stored.folder / row[name]) for name in EXTRAS if row.get(name)}
    except DatasetError as error:
        yield str(error)
        return
    if image.shape != (*grid.shape, 1)[:3]:
        yield f"the image's shape is {image.shape}"
    if not np.allclose(affine, grid.affine, rtol=1e-6, atol=1e-4):
        yield "the image's affine is not the set's"
    for name, (mask, mask_affine) in {**read, **extra}.items():
        if mask.shape != image.shape or not np.array_equal(mask_affine, affine):
            yield f"the mask of {name} has another shape or affine than the image"
        elif not mask.any() or mask.max() > 1:
            yield f"the mask of {name} is not made of zeros and ones, or is empty"
    if set(row["label"].split("|")) - {NORMAL} != set(read):
        yield f"the label {row['label']} does not agree with the masks of {', '.join(read) or 'no class'}"
    masks = {name: mask for name, (mask, _) in read.items()}
    others = {name: mask for name, (mask, _) in extra.items()}
    yield from _lesion_problems(stored.lesions.get(row["case"], ()), masks)
    distractors = [{**own, "class": DISTRACTOR} for own in stored.distractors.get(row["case"], ())]
    shown = {DISTRACTOR: others[DISTRACTOR]} if DISTRACTOR in others else {}
    yield from _lesion_problems(distractors, shown, "distractors.csv")
    if case_hash(image, {**masks, **others}, affine) != row["hash"]:
        yield "the content is not what was generated (another hash)"
    if row.get("twin"):
        yield from _twin_problems(stored, row, image)


def _twin_problems(stored: StoredSet, row: Row, image: Voxels) -> Iterator[str]:
    try:
        twin, affine = read_nifti(stored.folder / row["twin"])
    except DatasetError as error:
        yield str(error)
        return
    if twin.shape != image.shape:
        yield f"the twin's shape is {twin.shape}"
    elif case_hash(twin, {}, affine) != row["twin_hash"]:
        yield "the twin is not what was generated (another hash)"


def _lesion_problems(lesions: Sequence[Row], masks: Mapping[str, Voxels], table: str = "lesions.csv") -> Iterator[str]:
    voxels = dict.fromkeys(masks, 0)
    for lesion in lesions:
        voxels[lesion["class"]] = voxels.get(lesion["class"], 0) + int(lesion["voxels"])
    for name, expected in voxels.items():
        got = int(np.count_nonzero(masks[name])) if name in masks else 0
        if got != expected:
            yield f"the mask of {name} has {got} voxels, its rows in {table} {expected}"


def _set_problems(stored: StoredSet) -> Iterator[str]:
    info, folder = stored.info, stored.folder
    names = tables(info)
    if set_hash(info, [(folder / name).read_bytes() for name in names]) != info["hash"]:
        yield f"{', '.join(names)} or dataset.json was changed (another hash of the whole)"
    if count(((row["split"], row["label"]) for row in stored.cases), info["splits"]) != info["counts"]:
        yield "the numbers of cases are not those in dataset.json"
    named = {folder / row["image"] for row in stored.cases}
    named |= {path for row in stored.cases for path in stored.masks(row).values()}
    named |= {folder / row[name] for row in stored.cases for name in (*EXTRAS, "twin") if row.get(name)}
    strays = {path for part in folders(info) for path in (folder / part).iterdir()} - named
    if strays:
        yield f"{len(strays)} files belong to no case, such as {min(strays).relative_to(folder)}"
