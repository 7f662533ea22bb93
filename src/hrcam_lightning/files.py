"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the place of `path` once the block is done.

    The temporary name ends like `path`, so that writers which choose a format by the name choose the right one.

    Raises:
        InputError: If the folder cannot be written to, or the disk is full.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free it or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_writable(folder: Path, option: str = "--trainer.default_root_dir") -> None:
    """Make sure that a folder can be written to, before hours are spent on what goes there.

    Args:
        folder: Made if it is not there.
        option: That names it.

    Raises:
        InputError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written to ({reason}); choose another {option}") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV, missing values empty."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as JSON that any reader takes: no NaN."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def safe_name(case: str) -> str:
    """A case's name as a file name: path separators and other awkward characters become ``_``."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in case).lstrip(".") or "_"
