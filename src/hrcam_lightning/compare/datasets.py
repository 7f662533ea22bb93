"""The sets of cases of a comparison: drawn if they are not there, and known by a hash."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.compare.locks import locked
from hrcam_lightning.data.ceiling import INDEX, SET
from hrcam_lightning.data.phantoms import GENERATOR
from hrcam_lightning.data.readers import split_number
from hrcam_lightning.data.rows import file_of, mask_numbers, read_rows
from hrcam_lightning.data.table import generated_hash, read_table
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hrcam_lightning.compare.schema import DataSet

LOCK = ".lock"


def check_data(data: DataSet) -> None:
    """Make sure that a set is there or can be drawn.

    Raises:
        InputError: If neither.
    """
    if data.generate and not Path(data.generate[0]).is_file():
        raise InputError(f"data.{data.name}.generate: {data.generate[0]}: no such specification")
    if not data.generate and not data.cases.is_file():
        raise InputError(
            f"data.{data.name}.cases: {data.cases} is not there; draw it, or name its specification under 'generate'"
        )


def draw(data: DataSet, say: Callable[[str], None]) -> None:
    """Draw a set that is not there, or only in part, and let the ideal observer read it if that is wanted.

    Another comparison may be about to draw the same set: the one waits for the other.

    Raises:
        InputError: If that fails, or the set that is there was drawn from another specification.
    """
    folder = data.cases.parent
    # No cluster is asked for only to look.
    if data.generate and "--dask" not in data.generate and _of_this_generator(data.cases):
        _synth("generate", str(folder), "--config", *data.generate, "--resume")
    if not _lacks(data):
        return
    beside = folder.absolute()
    check_writable(beside.parent, f"data.{data.name}.cases")
    busy = f"another comparison draws {folder}: waiting for its end"
    with locked(beside.with_name(f".{beside.name}{LOCK}"), busy, say) as lock:
        if not data.cases.is_file():
            say(f"drawing {folder}")
            _synth("generate", str(folder), "--config", *data.generate, "--resume", lock=lock)
        if _lacks(data):
            say(f"the ideal observer reads {folder}")
            _synth("observer", "--dataset", str(folder), "--write", lock=lock)


def _of_this_generator(cases: Path) -> bool:
    """Whether a set is there that could be drawn again; one of one's own, or of an earlier version, is left alone."""
    if not cases.is_file() or not generated_hash(cases):
        return False
    made = json.loads(cases.with_name(SET).read_text(encoding="utf-8")).get("generator")
    return bool(made == GENERATOR)


def _lacks(data: DataSet) -> bool:
    return not data.cases.is_file() or (data.ceiling and not data.cases.with_name(INDEX).is_file())


def _synth(*words: str, lock: int | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "synth", *words],
        capture_output=True, text=True, check=False, pass_fds=() if lock is None else [lock],
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise InputError(f"hrcam-synth {' '.join(words)}: {last.removeprefix('hrcam-synth: error: ')}")


def data_hash(cases: Path) -> str:
    """Hash of a set: of a drawn one its table and the hash that it carries, else its table and every file in it.

    What labels and masks mean is left to the settings of each experiment: only the files count here.

    Raises:
        InputError: If the table or a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update(cases.read_bytes())
        if carried := generated_hash(cases):
            digest.update(carried.encode())
            return digest.hexdigest()
        for path in (*_listed(cases), *([cases.with_name(SET)] if cases.with_name(SET).is_file() else [])):
            for file in _files(path):
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    except (OSError, ValueError) as error:
        raise InputError(f"{cases}: the set cannot be read ({error})") from error
    return digest.hexdigest()


def _listed(cases: Path) -> Iterator[Path]:
    """Every file or folder that a table names: of each row the images, the masks and the cue."""
    images = read_table(cases, labelled=False, allow_outside=True).cases
    for case, (line, row) in zip(images, read_rows(cases), strict=True):
        yield from (split_number(image)[0] for image in case.images)
        masks = [part.strip() for part in row.get("mask", "").split("|")]
        for texts in (*map(_readings, masks), [row.get("cue", "")]):
            there = [text for text in texts if text and split_number(cases.parent / text)[0].exists()]
            for text in there or texts[:1]:
                if text:
                    yield split_number(file_of(cases, line, text, allow_outside=True))[0]


def _readings(mask: str) -> list[str]:
    """The file of ``seg.nii.gz=1+4``, and that of ``Class=seg.nii.gz=1+4``: which it is, the classes would say."""
    return [mask_numbers(text.strip())[0] for text in (mask, mask.partition("=")[2])]


def _files(path: Path) -> list[Path]:
    """A file, or those of a folder, which is a DICOM series."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
