"""A set of phantoms on disk: generated in any number of processes, resumable, the same bytes in the end.

While a set is made, ``incomplete.jsonl`` records what it is (first line) and each finished case. The tables
and ``dataset.json`` are written from that journal at the end, and the journal goes last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synth.files import DatasetError, case_hash, nifti_bytes, remove_parts, write_whole
from synth.parallel import run
from synth.phantom import PhantomCase, Phantoms
from synth.spec import SPLITS, PhantomSpec, Splits, check_splits

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
# Raise it whenever the same specification and seed would give other bits.
GENERATOR_VERSION = "0.1.0"
JOURNAL, INDEX = "incomplete.jsonl", "dataset.json"
IMAGES, MASKS, CUES = "images", "masks", "cues"
# In a case's hash, the name of the cue's mask, which no class can have.
CUE = "(cue)"
CASE_COLUMNS = ("case", "image", "label", "mask", "split", "subject", "hash")
MEASURES = ("volume_mm3", "voxels", "delta", "cnr", "dprime")
TRIAL_CASES = 8
CHUNK = 8

Record = dict[str, Any]
OnCase = Callable[[int, int], None]


def ignore(done: int, total: int) -> None:
    """Tell no one."""


def generate(
    out: Path,
    spec: PhantomSpec,
    *,
    seed: int = 0,
    splits: Mapping[str, int] | None = None,
    workers: int = 1,
    resume: bool = False,
    on_case: OnCase = ignore,
) -> bool:
    """Write a set, or what is missing of it.

    Args:
        out: folder, new or empty.
        spec: what to draw.
        seed: seed of the set.
        splits: number of cases in each split, instead of the specification's; cases are numbered
            through train, val, test and reversed.
        workers: number of processes.
        resume: complete an interrupted set.
        on_case: told the number of finished cases and their total, now and then.

    Returns:
        Whether anything was missing.

    Raises:
        SpecError: the splits are wrong, or lesions find no room or cannot be as strong as asked.
        DatasetError: the folder is not empty, or holds another set.
        OSError: a file could not be written.
    """
    counts = ordered(splits or spec.splits)
    total = sum(counts.values())
    generator = f"synth {GENERATOR_VERSION}"
    header = json_line(
        {"schema": SCHEMA, "generator": generator, "spec": spec.to_dict(), "seed": seed, "splits": counts}
    )
    records = _finished(out, header, resume=resume)
    if records is None:
        on_case(total, total)
        return False
    phantoms = Phantoms(spec, seed)
    phantoms.check()
    for index in range(min(total, TRIAL_CASES)):  # a lesion that fits nowhere is found before any file is written
        phantoms[index]

    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    journal = out / JOURNAL
    write_whole(journal, "".join([header, *map(json_line, records.values())]).encode())
    for folder in (IMAGES, MASKS, *([CUES] if spec.cue else [])):
        (out / folder).mkdir(exist_ok=True)
    on_case(len(records), total)
    missing = [index for index in range(total) if index not in records]
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    with journal.open("a", encoding="utf-8", newline="\n") as log:
        for batch in run(write_cases, (phantoms, out, total - counts.get("reversed", 0)), chunks, workers):
            for record in batch:
                log.write(json_line(record))
                records[record["index"]] = record
            log.flush()
            on_case(len(records), total)
    _write_tables(out, [records[index] for index in range(total)], json.loads(header))
    journal.unlink()
    return True


def ordered(splits: Mapping[str, int]) -> Splits:
    """Return the splits in the order in which cases are numbered.

    Raises:
        SpecError: an unknown split, a negative number, or no case at all.
    """
    check_splits(splits)
    return {name: splits[name] for name in SPLITS if name in splits}


def share(splits: Mapping[str, int], total: int) -> Splits:
    """Return splits of ``total`` cases in the proportions of ``splits``, rounded by largest remainder."""
    whole = sum(splits.values())
    shares = {name: count * total // whole for name, count in splits.items()}
    by_remainder = sorted(splits, key=lambda name: -(splits[name] * total % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def json_line(values: Mapping[str, object]) -> str:
    """Return ``values`` as one line of JSON."""
    return json.dumps(values, ensure_ascii=False) + "\n"


def _finished(out: Path, header: str, *, resume: bool) -> dict[int, Record] | None:
    """Return the finished cases of an interrupted set by index: none if it is new, None if it is complete."""
    held = [path for path in out.iterdir() if not path.name.endswith(".part")] if out.exists() else []
    if not held:
        return {}
    if not resume:
        advice = "choose another folder, or complete an interrupted set with --resume"
        raise DatasetError(f"{out} is not empty: {advice}")
    try:
        return _read_finished(out, header)
    except DatasetError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DatasetError(f"{out} holds a damaged journal or {INDEX}: choose another folder") from None


def _read_finished(out: Path, header: str) -> dict[int, Record] | None:
    if (out / JOURNAL).exists():
        first, *lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
        _same_set(out, json.loads(first), header)
        # A kill may have cut the last line short.
        records = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return {record["index"]: record for record in records if _on_disk(out, record)}
    if (out / INDEX).exists():
        _same_set(out, json.loads((out / INDEX).read_text(encoding="utf-8")), header)
        return None
    raise DatasetError(f"{out} holds no interrupted set: choose another folder")


def _same_set(out: Path, found: Mapping[str, Any], header: str) -> None:
    for key, asked in json.loads(header).items():
        if found.get(key) != asked:
            was = "" if key == "spec" else f" ({found.get(key)}, not {asked})"
            advice = "resume with the same one, or choose another folder"
            raise DatasetError(f"{out} holds a set with another {key}{was}: {advice}")


def _on_disk(out: Path, record: Record) -> bool:
    paths = (record["image"], *record["masks"].values(), *([record["cue"]] if "cue" in record else []))
    return all((out / path).exists() for path in paths)


def write_cases(phantoms: Phantoms, out: Path, first_reversed: int, indices: Sequence[int]) -> list[Record]:
    """Draw and write some cases; return their records, which hold no voxels.

    Args:
        phantoms: where they are drawn.
        out: folder of the set.
        first_reversed: number of the first case whose cue is reversed.
        indices: numbers of the cases.
    """
    drawn = ((phantoms.reversed if index >= first_reversed else phantoms)[index] for index in indices)
    return [_write_case(case, phantoms.spec, out) for case in drawn]


def _write_case(case: PhantomCase, spec: PhantomSpec, out: Path) -> Record:
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
    extra = {}
    if spec.sites:
        extra["site"] = case.site
    if case.cue is not None:
        masks[CUE] = case.cue.astype(np.uint8)
        extra["cue"] = f"{CUES}/{case.name}.nii.gz"
        write_whole(out / extra["cue"], nifti_bytes(masks[CUE], case.affine))
    digest = case_hash(case.image, masks, case.affine)
    return {"index": case.index, "case": case.name, "label": case.label_text, "image": image, "masks": paths,
            "hash": digest, "lesions": lesions, **extra}  # fmt: skip


def _write_tables(out: Path, records: Sequence[Record], header: Mapping[str, Any]) -> None:
    spec = PhantomSpec.from_dict(header["spec"])
    names = [name for name, count in header["splits"].items() for _ in range(count)]
    columns, rows = case_columns(spec), []
    for record, split in zip(records, names, strict=True):
        several = len(spec.classes) > 1
        mask = "|".join(f"{name}={path}" if several else path for name, path in record["masks"].items())
        extra = [record.get(name, "") for name in columns[len(CASE_COLUMNS) :]]
        common = (record["case"], record["image"], record["label"], mask, split, record["case"], record["hash"])
        rows.append((*common, *extra))
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


def case_columns(spec: PhantomSpec) -> tuple[str, ...]:
    """Return the columns of ``cases.csv``: ``site`` and ``cue`` (its mask) only where there is such a thing."""
    return (*CASE_COLUMNS, *(["site"] if spec.sites else []), *(["cue"] if spec.cue else []))


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
