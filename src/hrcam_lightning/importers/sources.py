"""What importers read: tables, lists and trees of files."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def read_rows(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a CSV or TSV file, without the white space around values.

    Raises:
        InputError: If it cannot be read, has no rows, or lacks a column.
    """
    header, *rows = read_cells(path, delimiter)
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}: has no column '{missing[0]}', only {', '.join(filter(None, header))}")
    return [dict(zip(header, row, strict=False)) for row in rows]


def read_cells(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Lines of a CSV or TSV file, the header first, each as long as the header at least; empty ones left out.

    Raises:
        InputError: If it cannot be read, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter) if any(line)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table in UTF-8 ({error})") from error
    if len(lines) < 2:
        raise InputError(f"{path}: holds no rows; the first line names the columns")
    return [line + [""] * (len(lines[0]) - len(line)) for line in lines]


def read_list(path: Path) -> list[str]:
    """First words of the lines of a text file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text in UTF-8 ({error})") from error


def number(path: Path, text: str, what: str) -> float:
    """A number of a table.

    Raises:
        InputError: If it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{path}: {what} is '{text}', not a number") from error


def require_folder(folder: Path) -> Path:
    """Make sure that a folder is there.

    Raises:
        InputError: If not.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return folder


def find_files(folder: Path, key: Callable[[str], str | None]) -> dict[str, Path]:
    """Files below a folder by what `key` makes of their names; those of which it makes None, and hidden ones, left out.

    Raises:
        InputError: If there is no such folder, or two files have the same key.
    """
    found: dict[str, Path] = {}
    for root, folders, names in os.walk(require_folder(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            known = None if name.startswith(".") else key(name)
            if known is None:
                continue
            path = Path(root, name)
            if known in found:
                raise InputError(f"{found[known]} and {path}: two files for '{known}'; keep one below {folder}")
            found[known] = path
    return found
