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

    from synth.lesion import Lesion
    from synth.phantom import PhantomCase, Phantoms

INDEX = "dataset.json"
IMAGES, MASKS, TWINS = "images", "masks", "twins"
# Masks of what is no lesion: column of cases.csv and folder.
EXTRAS = {"cue": "cues", "distractor": "distractors"}
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
    lesions = [_row(case, lesion) for lesion in case.lesions]
    extra: Record = {"site": case.site} if spec.sites else {}
    for name, mask in (("cue", case.cue), ("distractor", case.distractor)):
        if mask is not None:
            masks[extra_key(name)] = mask.astype(np.uint8)
            extra[name] = f"{EXTRAS[name]}/{case.name}.nii.gz"
            write_whole(out / extra[name], nifti_bytes(masks[extra_key(name)], case.affine))
    if spec.distractors:
        extra["distractors"] = [_row(case, distractor) for distractor in case.distractors]
    digest = case_hash(case.image, masks, case.affine)
    record: Record = {"index": case.index, "case": case.name, "label": case.label_text, "image": image, "masks": paths,
                      "hash": digest, "lesions": lesions, **extra}  # fmt: skip
    if twins and case.lesions:
        twin = case.twin()
        record["twin"] = f"{TWINS}/{case.name}.nii.gz"
        record["twin_hash"] = case_hash(twin.image, {}, twin.affine)
        write_whole(out / record["twin"], nifti_bytes(twin.image, twin.affine))
    return record


def extra_key(column: str) -> str:
    """Return the name of an extra mask in a case's hash, which no class can have."""
    return f"({column})"


def _row(case: PhantomCase, lesion: Lesion) -> list[object]:
    """Return the row of a lesion or distractor."""
    places = (lesion.centre_voxel, lesion.centre_mm, lesion.radii_mm)
    numbers = [number for place in places for number in place]
    return [case.name, lesion.class_name, lesion.family, *numbers, *(getattr(lesion, name) for name in MEASURES)]


def record_files(record: Record) -> list[str]:
    """Return the files of a case, relative to its set."""
    return [record["image"], *record["masks"].values(), *(record[name] for name in (*EXTRAS, "twin") if name in record)]


def folders(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders of a set."""
    return (IMAGES, MASKS, *(EXTRAS[name] for name in extras(header)), *([TWINS] if header.get("twins") else []))


def extras(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of extra masks that a set has."""
    return tuple(name for name, key in (("cue", "cue"), ("distractor", "distractors")) if header["spec"].get(key))


def tables(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tables of a set, in the order in which its hash covers them."""
    return ("cases.csv", "lesions.csv", *(["distractors.csv"] if header["spec"].get("distractors") else []))


def write_tables(out: Path, records: Sequence[Record], header: Mapping[str, Any]) -> None:
    """Write ``cases.csv``, ``lesions.csv``, ``distractors.csv`` if there are such, and ``dataset.json``, in this order.

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
    contents = [csv_bytes(columns, rows)]
    for key in ("lesions", "distractors"):
        found = (row for record in records for row in record.get(key, ()))
        contents.append(csv_bytes(lesion_columns(len(spec.shape)), found))
    written = dict(zip(tables(header), contents, strict=False))
    for name, content in written.items():
        write_whole(out / name, content)
    index = {
        **header,
        "task": spec.task,
        "classes": spec.classes,
        "labels": spec.labels,
        "shape": spec.shape,
        "spacing_mm": spec.spacing_mm,
        "counts": count(((row[4], row[2]) for row in rows), header["splits"]),
        "hash": set_hash(header, written.values()),
    }
    write_whole(out / INDEX, (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())


def case_columns(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of ``cases.csv``: of site, extra masks and twin only where there is such a thing."""
    site = ["site"] if header["spec"].get("sites") else []
    return (*CASE_COLUMNS, *site, *extras(header), *(TWIN_COLUMNS if header.get("twins") else ()))


def lesion_columns(dimensions: int) -> tuple[str, ...]:
    """Return the columns of ``lesions.csv`` and ``distractors.csv``."""
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


def set_hash(header: Mapping[str, Any], contents: Iterable[bytes]) -> str:
    """Return the SHA-256 of a whole set: what it was made from, and its tables with the hash of each case."""
    made_from = json.dumps({key: header[key] for key in ("schema", "spec", "seed", "splits")}, sort_keys=True)
    return hashlib.sha256(b"".join([made_from.encode(), *contents])).hexdigest()
