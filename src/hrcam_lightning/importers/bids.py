"""A BIDS data set: anatomical scans by suffix, labels from participants.tsv, lesion masks from derivatives."""

from __future__ import annotations

import re
from collections import defaultdict
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.rows import NEGATIVE, Row, refuse_missing
from hrcam_lightning.importers.sources import read_rows, require_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENDINGS = (".nii.gz", ".nii")
UNKNOWN = ("", "n/a")


def read_bids(
    folder: Path,
    labels: str,
    suffixes: Sequence[str] = ("T1w",),
    *,
    entities: Sequence[str] = (),
    negative: str = NEGATIVE,
    masks: str | None = None,
    skip_missing: bool = False,
) -> list[Row]:
    """Read the set; a session is a case, and so is a subject without sessions.

    Args:
        folder: Holds ``sub-*/[ses-*/]anat``.
        labels: Table and column of the labels, ``participants.tsv:diagnosis``; the table is relative to `folder`.
        suffixes: Kinds of scan; several become channels, in this order, and must lie on one grid.
        entities: What the names of scans must hold, such as ``acq-3d`` or ``run-1``, where a session has several.
        negative: The label without any finding, whatever its case.
        masks: Names of mask files anywhere below ``derivatives``, as in ``*_label-lesion_mask.nii.gz``; the
            subject and session are read from a file's own name.
        skip_missing: Leave out sessions without all scans or without a label.

    Raises:
        InputError: If a scan or label is missing, more than one file would do, or no label is `negative`.
    """
    known = _labels(folder, labels)
    if negative != NEGATIVE and negative.lower() not in {label.lower() for label in known.values()}:
        raise InputError(
            f"{folder}: no label of {labels} is --negative {negative}, only {', '.join(sorted(set(known.values())))}"
        )
    drawn = _masks(folder, masks) if masks else {}
    rows, unscanned, unlabelled = [], [], []
    for subject in sorted(path for path in require_folder(folder).glob("sub-*") if path.is_dir()):
        for place in sorted(path for path in subject.glob("ses-*") if path.is_dir()) or [subject]:
            name = subject.name if place == subject else f"{subject.name}_{place.name}"
            images = [_scan(place / "anat", suffix, entities) for suffix in suffixes]
            label = known.get(subject.name, "")
            if label.lower() in UNKNOWN:
                unlabelled.append(name)
            elif None in images:
                unscanned.append(name)
            else:
                found = () if label.lower() == negative.lower() else (label,)
                mask = {(found or (NEGATIVE,))[0]: drawn[name]} if name in drawn else {}
                rows.append(Row(name, tuple(path for path in images if path), found, mask, subject=subject.name))
    refuse_missing(folder, unlabelled, f"cases have no label in {labels}", skip=skip_missing)
    refuse_missing(folder, unscanned, f"cases have no {' or no '.join(suffixes)} in anat", skip=skip_missing)
    unused = sorted(set(drawn) - {row.name for row in rows})
    refuse_missing(folder, unused, f"masks called {masks} belong to no case", skip=skip_missing)
    return rows


def _labels(folder: Path, text: str) -> dict[str, str]:
    file, colon, column = text.rpartition(":")
    if not (colon and file and column):
        raise InputError(f"--labels is '{text}'; give a table and its column, for example participants.tsv:diagnosis")
    rows = read_rows(folder / file, ("participant_id", column), "\t")
    return {f"sub-{row['participant_id'].removeprefix('sub-')}": row[column] for row in rows}


def _scan(anat: Path, suffix: str, entities: Sequence[str]) -> Path | None:
    """The one file of a suffix; None if there is none."""
    found = sorted(path for end in ENDINGS for path in anat.glob(f"*_{suffix}{end}"))
    found = [path for path in found if set(entities) <= set(path.name.split("_"))]
    if len(found) > 1:
        raise InputError(
            f"{anat}: holds {len(found)} scans of kind {suffix} ({found[0].name}, {found[1].name}); "
            "say which by --entities, for example --entities run-1"
        )
    return found[0] if found else None


def _masks(folder: Path, pattern: str) -> dict[str, Path]:
    """Masks by the name of their case."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(require_folder(folder / "derivatives").rglob("*.nii*")):
        named = re.match(r"(sub-[^_]+(?:_ses-[^_]+)?)_", path.name)
        if named and fnmatch(path.name, pattern):
            found[named[1]].append(path)
    if not found:
        raise InputError(f"{folder}/derivatives: no file sub-*_... is called {pattern}; mend --masks")
    for name, paths in found.items():
        if len(paths) > 1:
            raise InputError(f"{paths[0]} and {paths[1]}: two masks for {name}; make --masks '{pattern}' narrower")
    return {name: paths[0] for name, paths in found.items()}
