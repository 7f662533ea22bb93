"""The records of a set: each case's files as they are written, and the tables that name them all."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synth.files import case_hash, nifti_bytes, write_whole
from synth.spec import PhantomSpec

if TYPE_CHECKING:
    from pathlib import Path

    from synth.phantom import PhantomCase, Phantoms

INDEX = "dataset.json"
IMAGES, MASKS, CUES, TWINS = "images", "masks", "cues", "twins"
# In a case's hash, the name of the cue's mask, which no class can have.
CUE = "(cue)"
CASE_COLUMNS = ("case", "image", "label", "mask", "split", "subject", "hash")
TWIN_COLUMNS = ("twin", "twin_hash")
MEASURES = ("volume_mm3", "voxels", "delta", "cnr", "dprime")

Record = dict[str, Any]
OnCase = Callable[[int, int], None]


def ignore(done: int, total: int) -> None:
    """Tell no one."""


def write_cases(
    phantoms: Phantoms, out: Path, twins: bool, first_reversed: int, indices: Sequence[int]
) -> list[Record]:
    """Draw and write some cases; return their records, which hold no voxels.

    Args:
        phantoms: where they are drawn.
        out: folder of the set.
        twins: whether to write those with lesions without them as well.
        first_reversed: number of the first case whose cue is reversed.
        indices: numbers of the cases.
    """
    drawn = ((phantoms.reversed if index >= first_reversed else phantoms)[index] for index in indices)
    return [_write_case(case, phantoms.spec, out, twins=twins) for case in drawn]


def _write_case(case: PhantomCase, spec: PhantomSpec, out: Path, *, twins: bool) -> Record:
    image = f"{IMAGES}/{case.name}.nii.gz"
    write_whole(out / image, nifti_bytes(case.image, case.affine))
    paths, masks = {}, {}
    for name, mask in zip(spec.classes, case.masks, strict=True):
        if mask.any():
            masks[name] = mask.astype(np.uint8)
            paths[name] = f"{MASKS}/{case.name}{'' if len(spec.classes) == 1 else '_' + name}.nii.gz"
            write_whole(out / paths[name], nifti_bytes(masks[name], case.affine))
    lesions = []
    for lesion in case.lesions:
        places = (lesion.centre_voxel, lesion.centre_mm, lesion.radii_mm)
        measures = [getattr(lesion, name) for name in MEASURES]
        numbers = [number for place in places for number in place]
        lesions.append([case.name, lesion.class_name, lesion.family, *numbers, *measures])
    extra = {"site": case.site} if spec.sites else {}
    if case.cue is not None:
        masks[CUE] = case.cue.astype(np.uint8)
        extra["cue"] = f"{CUES}/{case.name}.nii.gz"
        write_whole(out / extra["cue"], nifti_bytes(masks[CUE], case.affine))
    digest = case_hash(case.image, masks, case.affine)
    record: Record = {"index": case.index, "case": case.name, "label": case.label_text, "image": image, "masks": paths,
                      "hash": digest, "lesions": lesions, **extra}  # fmt: skip
    if twins and case.lesions:
        twin = case.twin()
        record["twin"] = f"{TWINS}/{case.name}.nii.gz"
        record["twin_hash"] = case_hash(twin.image, {}, twin.affine)
        write_whole(out / record["twin"], nifti_bytes(twin.image, twin.affine))
    return record


def record_files(record: Record) -> list[str]:
    """Return the files of a case, relative to its set."""
    return [record["image"], *record["masks"].values(), *(record[name] for name in ("cue", "twin") if name in record)]


def folders(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders of a set."""
    cues, twins = [CUES] if header["spec"].get("cue") else [], [TWINS] if header.get("twins") else []
    return (IMAGES, MASKS, *cues, *twins)


def write_tables(out: Path, records: Sequence[Record], header: Mapping[str, Any]) -> None:
    """Write ``cases.csv``, ``lesions.csv`` and ``dataset.json``, in this order.

    Args:
        out: the set.
        records: of all cases, in order.
        header: what the set is made from.
    """
    spec = PhantomSpec.from_dict(header["spec"])
    names = [name for name, count in header["splits"].items() for _ in range(count)]
    columns = case_columns(header)
    rows = []
    for record, split in zip(records, names, strict=True):
        several = len(spec.classes) > 1
        mask = "|".join(f"{name}={path}" if several else path for name, path in record["masks"].items())
        row = (record["case"], record["image"], record["label"], mask, split, record["case"], record["hash"])
        rows.append((*row, *(record.get(name, "") for name in columns[len(row) :])))
    cases = csv_bytes(columns, rows)
    lesions = csv_bytes(lesion_columns(len(spec.shape)), (row for record in records for row in record["lesions"]))
    write_whole(out / "cases.csv", cases)
    write_whole(out / "lesions.csv", lesions)
    index = {
        **header,
        "task": spec.task,
        "classes": spec.classes,
        "labels": spec.labels,
        "shape": spec.shape,
        "spacing_mm": spec.spacing_mm,
        "counts": count(((row[4], row[2]) for row in rows), header["splits"]),
        "hash": set_hash(header, cases, lesions),
    }
    write_whole(out / INDEX, (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())


def case_columns(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of ``cases.csv``: of site, cue (its mask) and twin only where there is such a thing."""
    extra = [name for name, key in (("site", "sites"), ("cue", "cue")) if header["spec"].get(key)]
    return (*CASE_COLUMNS, *extra, *(TWIN_COLUMNS if header.get("twins") else ()))


def lesion_columns(dimensions: int) -> tuple[str, ...]:
    """Return the columns of ``lesions.csv``."""
    axes = "xyz"[:dimensions]
    places = [f"{space}_{axis}" for space in ("centre_voxel", "centre_mm") for axis in axes]
    return ("case", "class", "family", *places, *(f"radius_mm_{i + 1}" for i in range(dimensions)), *MEASURES)


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV table; numbers are written so that reading gives the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def count(cases: Iterable[tuple[str, str]], splits: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count ``(split, label)`` pairs by split and label."""
    counter = Counter(cases)
    return {split: {label: n for (s, label), n in sorted(counter.items()) if s == split} for split in splits}


def set_hash(header: Mapping[str, Any], cases: bytes, lesions: bytes) -> str:
    """Return the SHA-256 of a whole set: what it was made from, and its tables with the hash of each case."""
    made_from = json.dumps({key: header[key] for key in ("schema", "spec", "seed", "splits")}, sort_keys=True)
    return hashlib.sha256(made_from.encode() + cases + lesions).hexdigest()
