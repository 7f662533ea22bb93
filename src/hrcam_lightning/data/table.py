"""`cases.csv`: the one file that a user must bring."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hrcam_lightning.data.contract import TaskKind
from hrcam_lightning.data.readers import DICOM, PICTURES, split_number
from hrcam_lightning.data.rows import file_of, mask_numbers, read_rows, slice_range
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLITS = ("train", "val", "test")
REVERSED = "reversed"  # a second test split, of phantoms whose spurious cue is reversed
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: Unique in the table.
        images: Image files on one grid, a channel each; mostly one.
        label: Class number, one 0 or 1 a class if multilabel; None where the table has no labels.
        masks: Mask file by class name.
        numbers: Numbers that stand for the class in its mask file; those of a plain mask are not listed.
        subject: Who was imaged; a subject is never in two splits.
        split: ``train``, ``val`` or ``test``.
        cue: Mask file of a spurious cue.
        slices: The first slice and the one behind the last, of which the case consists; None for all.
    """

    name: str
    images: tuple[Path, ...]
    label: int | tuple[int, ...] | None
    masks: dict[str, Path] = field(default_factory=dict)
    subject: str = ""
    split: str = ""
    cue: Path | None = None
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    slices: tuple[int, int] | None = None


@dataclass(frozen=True)
class CaseTable:
    """A read table.

    Attributes:
        cases: Its rows.
        task: Kind of label; None without labels.
        classes: Names of the K maps; None without labels.
    """

    cases: tuple[Case, ...]
    task: TaskKind | None
    classes: list[str] | None


def read_table(
    path: Path,
    task: TaskKind | None = None,
    classes: Sequence[str] | None = None,
    negative: str = "normal",
    shares: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    labelled: bool = True,
    allow_outside: bool = False,
) -> CaseTable:
    """Read a table of cases.

    Columns: ``image`` and, for anything but prediction, ``label``; where there are any ``mask``, ``split``,
    ``subject``, ``case``, ``cue`` (mask file of a spurious cue), ``slices`` (``0:60``: the case is these slices of the
    file). Paths are relative to the table. An image is one file, or several on one grid joined by ``|``, which become
    channels. A label is a class name or number, several joined by ``|``. A mask is one file, or ``Class=path`` joined
    by ``|``; ``path=1+4`` says which numbers in it are the class.

    What `task` and `classes` leave open is taken from a ``dataset.json`` beside the table, else from the labels:
    several in a row make it multilabel, two different ones (or 0 and 1) binary, more multiclass.

    Args:
        path: CSV file.
        task: Kind of label.
        classes: Names of the K maps: the positive class alone if binary.
        negative: Label of a case without any finding (binary and multilabel).
        shares: Shares of train, val and test where the table has no ``split`` column: by subject, in the order of a
            hash of its name, each label apart, so that the same table is always split alike.
        labelled: Read labels and masks; prediction does without, whatever they hold.
        allow_outside: Follow paths and links that lead out of the table's folder.

    Raises:
        InputError: If the table cannot be used; names the row.
    """
    rows = read_rows(path)
    header = rows[0][1].keys()
    if "image" not in header:
        raise InputError(f"{path}: has no column 'image', only {', '.join(header)}; 'image' and 'label' are needed")
    names: list[str] = []
    encoded: Sequence[int | tuple[int, ...] | None] = [None] * len(rows)
    if labelled and "label" in header:
        labels = [_read_label(path, line, row["label"], negative) for line, row in rows]
        known = _dataset_json(path)
        kind: TaskKind = task or known.get("task") or _guess_task(labels)
        names = list(classes or known.get("classes") or _guess_classes(path, kind, labels, negative))
        if kind != "multiclass" and negative in names:
            raise InputError(f"{path}: '{negative}' is both a class and the label of a case without any finding")
        encoded = [
            _encode(path, line, parts, kind, names, negative) for (line, _), parts in zip(rows, labels, strict=True)
        ]
        task = kind
    else:
        task = None
    stems = [_stem(row) for _, row in rows]
    unique = len(set(stems)) == len(stems)
    cases = [
        _case(path, line, row, row.get("case") or (stem if unique else row["image"]), label, task, names, allow_outside)
        for (line, row), stem, label in zip(rows, stems, encoded, strict=True)
    ]
    _refuse_doubles(path, cases)
    cases = _check_splits(path, cases) if "split" in header else _split(cases, shares)
    return CaseTable(tuple(cases), task, names or None)


def _stem(row: dict[str, str]) -> str:
    """Name of a case by its first image and its slices."""
    parts = [image_stem(row["image"].partition("|")[0].strip()), row.get("slices", "").replace(":", "-")]
    return "_".join(part for part in parts if part)


def image_stem(image: str) -> str:
    """A path without the ending that says what kind of file it is; the number of ``#3`` joins it by ``_``."""
    name = image.replace("\\", "/")
    found = re.fullmatch(r"(.*?)(?:#(\d+))?", name)
    name, number = (found[1], found[2]) if found else (name, None)
    ending = next((ending for ending in (".nii.gz", ".nii", *PICTURES, *DICOM) if name.lower().endswith(ending)), "")
    return "_".join(part for part in (name[: len(name) - len(ending)], number) if part)


def source_of(case: Case) -> str:
    """Path, size and time of change of a case's files, of a DICOM series those of its folder."""
    parts = [f"slices {case.slices[0]}:{case.slices[1]}"] if case.slices else []
    for image in case.images:
        file, _ = split_number(image)
        try:
            state = file.stat()
            parts.append(f"{image.absolute()} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            parts.append(str(image.absolute()))
    return "|".join(parts)


def files_of_source(source: str) -> list[Path]:
    """The files of a case by what `source_of` says of it."""
    parts = [part for part in source.split("|") if part and not part.startswith("slices ")]
    return [Path(re.sub(r" \d+ \d+$", "", part)) for part in parts]


def _read_label(path: Path, line: int, text: str, negative: str) -> list[str]:
    parts = [part.strip() for part in text.split("|")]
    if not all(parts):
        raise InputError(f"{path}, line {line}: the label is empty; write a class, or '{negative}' for none")
    if len(set(parts)) < len(parts):
        raise InputError(
            f"{path}, line {line}: the label '{text}' names a class twice; list the classes, not zeros and ones"
        )
    return [negative if part.lower() == negative.lower() else part for part in parts]


def _dataset_json(path: Path) -> dict[str, Any]:
    beside = path.with_name("dataset.json")
    if not beside.is_file():
        return {}
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{beside}: is not valid JSON ({error})") from error
    names = known.get("classes", []) if isinstance(known, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{beside}: must be an object whose 'classes' is a list of names")
    if known.get("task") not in (None, *get_args(TaskKind)):
        raise InputError(f"{beside}: task is {known['task']!r}; one of {', '.join(get_args(TaskKind))} is known")
    return dict(known)


def generated_hash(table: Path) -> str | None:
    """Hash of the generated set that a table belongs to; None where there is no ``dataset.json`` with one beside it."""
    found = _dataset_json(table).get("hash")
    return found if isinstance(found, str) else None


def _guess_task(labels: list[list[str]]) -> TaskKind:
    if any(len(parts) > 1 for parts in labels):
        return "multilabel"
    return "binary" if len({parts[0] for parts in labels}) <= 2 else "multiclass"


def _guess_classes(path: Path, task: TaskKind, labels: list[list[str]], negative: str) -> list[str]:
    found = sorted({part for parts in labels for part in parts})
    if task == "multiclass":
        if not all(name.isdigit() for name in found):
            return found
        highest = int(max(found, key=int))
        if highest >= MOST_CLASSES:
            raise InputError(f"{path}: the label {highest} would mean {highest + 1} classes; give --data.classes")
        return [str(number) for number in range(highest + 1)]
    if task == "binary" and set(found) <= {"0", "1"}:
        return ["positive"]
    positives = [name for name in found if name != negative]
    if task == "binary" and len(positives) == 2:
        first, second = positives
        raise InputError(
            f"{path}: the labels are '{first}' and '{second}': say which one means 'no disease', "
            f"for example --data.negative {first}"
        )
    return positives or ["positive"]


def _encode(
    path: Path, line: int, parts: list[str], task: TaskKind, classes: list[str], negative: str
) -> int | tuple[int, ...]:
    numbers = []
    for part in parts:
        if task != "multiclass" and part == negative:
            continue
        if part in classes:
            numbers.append(classes.index(part))
        elif task == "binary" and part in ("0", "1"):
            numbers += [0] if part == "1" else []
        elif task != "binary" and part.isdigit() and int(part) < len(classes):
            numbers.append(int(part))
        else:
            known = ", ".join(classes if task == "multiclass" else [negative, *classes])
            raise InputError(f"{path}, line {line}: the label '{part}' is unknown; known are {known}")
    if task == "multilabel":
        return tuple(int(k in numbers) for k in range(len(classes)))
    if len(parts) > 1:
        raise InputError(
            f"{path}, line {line}: several labels in one case, but the task is {task}; use --data.task multilabel"
        )
    return len(numbers) if task == "binary" else numbers[0]


def _case(
    path: Path,
    line: int,
    row: dict[str, str],
    name: str,
    label: int | tuple[int, ...] | None,
    task: TaskKind | None,
    classes: list[str],
    allow_outside: bool,
) -> Case:
    texts = [part.strip() for part in row["image"].split("|")]
    if not all(texts):
        raise InputError(f"{path}, line {line}: the image is empty")

    def file(text: str) -> Path:
        return file_of(path, line, text, allow_outside=allow_outside)

    masks = {key: mask_numbers(text) for key, text in _masks(path, line, row.get("mask", ""), label, task, classes)}
    return Case(
        name,
        tuple(file(text) for text in texts),
        label,
        {key: file(text) for key, (text, _) in masks.items()},
        row.get("subject") or name,
        row.get("split", ""),
        file(row["cue"]) if label is not None and row.get("cue") else None,
        {key: numbers for key, (_, numbers) in masks.items() if numbers},
        slice_range(path, line, row.get("slices", "")),
    )


def _masks(
    path: Path,
    line: int,
    text: str,
    label: int | tuple[int, ...] | None,
    task: TaskKind | None,
    classes: list[str],
) -> list[tuple[str, str]]:
    if not text or label is None:
        return []
    present = _present(label, task, classes)
    masks: dict[str, str] = {}
    for part in (part.strip() for part in text.split("|")):
        name, sign, file = part.partition("=")
        if not sign or name not in classes:
            if len(present) > 1:
                raise InputError(
                    f"{path}, line {line}: the case has several classes: say whose mask '{part}' is, as Class=path"
                )
            # A case of no class may bring a mask, which must then be empty: checked when it is read.
            name, file = (present or classes)[0], part
        if name in masks:
            raise InputError(f"{path}, line {line}: two masks for class {name}; join them into one file")
        masks[name] = file.strip()
    return list(masks.items())


def _present(label: int | tuple[int, ...], task: TaskKind | None, classes: list[str]) -> list[str]:
    if isinstance(label, tuple):
        return [name for name, there in zip(classes, label, strict=True) if there]
    return (classes if label else []) if task == "binary" else [classes[label]]


def _refuse_doubles(path: Path, cases: list[Case]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise InputError(
                f"{path}: the case '{case.name}' stands in it twice; give each row a name of its own in a column 'case'"
            )
        seen.add(case.name)


def _check_splits(path: Path, cases: list[Case]) -> list[Case]:
    home: dict[str, str] = {}
    for case in cases:
        if case.split not in (*SPLITS, REVERSED):
            allowed = ", ".join((*SPLITS, REVERSED))
            raise InputError(f"{path}, case {case.name}: the split is '{case.split}'; one of {allowed} is needed")
        if home.setdefault(case.subject, case.split) != case.split:
            raise InputError(
                f"{path}, case {case.name}: the subject '{case.subject}' is in {home[case.subject]} "
                f"and in {case.split}; "
                "keep each subject in one split"
            )
    return cases


def _split(cases: list[Case], shares: Sequence[float]) -> list[Case]:
    if len(shares) != 3 or min(shares) < 0 or not sum(shares) > 0:
        raise InputError(f"data.shares is {list(shares)}; three shares for train, val and test are needed")
    first_label: dict[str, object] = {}
    for case in cases:
        first_label.setdefault(case.subject, case.label)
    strata: dict[object, list[str]] = defaultdict(list)
    for subject, label in first_label.items():
        strata[label].append(subject)
    home: dict[str, str] = {}
    total = sum(shares)
    for subjects in strata.values():
        subjects.sort(key=lambda subject: hashlib.sha256(subject.encode()).digest())
        ends = [round(len(subjects) * sum(shares[: n + 1]) / total) for n in range(3)]
        for rank, subject in enumerate(subjects):
            home[subject] = SPLITS[next(n for n, end in enumerate(ends) if rank < end)]
    return [replace(case, split=home[case.subject]) for case in cases]
