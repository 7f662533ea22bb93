"""The sets of cases of a comparison: drawn if they are not there, and known by a hash."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.data.ceiling import INDEX, SET
from hrcam_lightning.data.readers import split_number
from hrcam_lightning.data.table import read_table
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.compare.schema import DataSet


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

    Raises:
        InputError: If that fails.
    """
    folder = data.cases.parent
    if not data.cases.is_file():
        say(f"drawing {folder}")
        _synth("generate", str(folder), "--config", *data.generate, "--resume")
    if data.ceiling and not (folder / INDEX).is_file():
        say(f"the ideal observer reads {folder}")
        _synth("observer", "--dataset", str(folder), "--write")


def _synth(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "synth", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise InputError(f"hrcam-synth {' '.join(words)}: {last.removeprefix('hrcam-synth: error: ')}")


def data_hash(cases: Path) -> str:
    """Hash of a set: of a drawn one its table and the hash that it carries, else its table and every file in it.

    Raises:
        InputError: If the table or a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update(cases.read_bytes())
        if (cases.parent / SET).is_file():
            carried = json.loads((cases.parent / SET).read_text(encoding="utf-8")).get("hash")
            digest.update(str(carried).encode())
            return digest.hexdigest()
        for case in read_table(cases, allow_outside=True).cases:
            for path in (*case.images, *case.masks.values(), *([case.cue] if case.cue else [])):
                for file in _files(split_number(path)[0]):
                    with file.open("rb") as content:
                        digest.update(hashlib.file_digest(content, "sha256").digest())
    except (OSError, ValueError) as error:
        raise InputError(f"{cases}: the set cannot be read ({error})") from error
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """A file, or those of a folder, which is a DICOM series."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
