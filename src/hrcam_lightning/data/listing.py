"""Scans without a table: one, a folder of them, or a glob."""

from __future__ import annotations

import os
from collections import Counter
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.data.dicom import is_dicom, series_of
from hrcam_lightning.data.readers import DICOM, NIFTI, PICTURES, split_number
from hrcam_lightning.data.table import Case, CaseTable, image_stem
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = ("_map", "_mask")  # how the names of maps and masks end, before the ending of the format
PREDICTIONS = "predictions.csv"  # a folder that holds it holds what `predict` wrote
STARTED = ".done-0.jsonl"  # what it holds until then, and where it was cut off


def names_scans(text: str) -> bool:
    """Whether ``--data.cases`` names scans themselves, rather than a table of them."""
    path, _ = split_number(Path(text))
    if path.is_dir() or _has_ending(path) or (has_magic(text) and not path.exists()):
        return True
    return path.is_file() and is_dicom(path)


def list_scans(text: str) -> CaseTable:
    """Cases to predict, without labels, in the order of their paths.

    A case is called as its file is, without the ending; where that is not unique, by its path below the folder, or
    below the deepest folder that all matches of a glob lie in.

    Args:
        text: An image, the folder of a DICOM series, a folder that holds images at any depth, or a glob (``**`` for
            any depth), whose matches may be any of these. What is named itself is taken whatever it is called; below
            a folder or by a glob, hidden files and our own outputs are passed over.

    Raises:
        InputError: If nothing is there.
    """
    path = Path(text)
    if path.is_dir():
        found, base = scans_in(path), path
    elif has_magic(text) and not path.exists():
        matches = [Path(match) for match in sorted(glob(text, recursive=True))]  # noqa: PTH207 - as a shell would, rooted or not
        found = sorted({scan for match in matches for scan in _expanded(match)})
        base = Path(os.path.commonpath([scan.parent for scan in found])) if found else path
    else:
        if not split_number(path)[0].is_file():
            raise InputError(f"{text}: no such file; give a scan, a folder, a glob in quotes, or a table of cases")
        found, base = [path], path.parent
    if not found:
        kinds = ", ".join((*NIFTI, *PICTURES, *DICOM))
        raise InputError(
            f"{text}: no image is there; {kinds} can be read, and hidden files, folders of {PREDICTIONS} and files "
            f"called *{' or *'.join(OURS)} are passed over"
        )
    names = _names(found, base)
    return CaseTable(
        tuple(Case(name, (scan,), None, subject=name) for name, scan in zip(names, found, strict=True)), None, None
    )


def scans_in(folder: Path, *, ours: bool = False) -> list[Path]:
    """Images below a folder at any depth, sorted by path; a folder of one DICOM series is one.

    Args:
        folder: Links to folders below it are not followed.
        ours: Take files that are called like maps and masks, too.

    Raises:
        InputError: If a folder holds several DICOM series of several files each.
    """
    found = []
    for root, folders, names in os.walk(folder):
        if PREDICTIONS in names or STARTED in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(root, name) for name in names if not name.startswith(".")]
        paths = [path for path in paths if ours or not image_stem(path.name).endswith(OURS)]
        found += [path for path in paths if path.name.lower().endswith((*NIFTI, *PICTURES))]
        found += _series(Path(root), [path for path in paths if _may_be_dicom(path)])
    return sorted(found)


def _expanded(match: Path) -> list[Path]:
    """What a match of a glob stands for."""
    if match.is_dir():
        return scans_in(match)
    return [match] if _has_ending(match) and not image_stem(match.name).endswith(OURS) else []


def _has_ending(path: Path) -> bool:
    return path.name.lower().endswith((*NIFTI, *PICTURES, *DICOM))


def _may_be_dicom(path: Path) -> bool:
    """DICOM files often have no ending at all."""
    return path.name.lower().endswith(DICOM) or (not path.suffix and path.is_file() and is_dicom(path))


def _series(folder: Path, files: list[Path]) -> list[Path]:
    """The folder where its DICOM files are one series, each file where each is a series of its own."""
    if len(files) < 2:
        return files
    series = {series_of(path) for path in files}
    if len(series) == 1:
        return [folder]
    if len(series) == len(files):
        return files
    raise InputError(
        f"{folder}: its {len(files)} DICOM files are of {len(series)} series; keep each series in a folder of its own"
    )


def _names(scans: Iterable[Path], base: Path) -> list[str]:
    """The shortest kind of name that is unique: file, path without ending, path."""
    paths = [Path(scan.absolute().name) if scan == base else scan.relative_to(base) for scan in scans]
    kinds = (
        [image_stem(path.name) for path in paths],
        [image_stem(path.as_posix()) for path in paths],
        [path.as_posix() for path in paths],
    )
    return next(names for names in kinds if max(Counter(names).values()) == 1)
