"""The rows of `cases.csv`, and what an entry of one means: a file, a mask's numbers, a range of slices."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

from hrcam_lightning.data.readers import split_number
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with the number of the line that they end on.

    UTF-8 with or without a byte-order mark; commas, semicolons or tabs, whichever splits the first line into columns
    of which one is ``image``.

    Raises:
        InputError: If it cannot be read, holds no cases, or has a row longer than its first line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=_delimiter(text))
        rows = []
        for row in reader:
            if any(value.strip() for value in row.pop(None, [])):
                raise InputError(
                    f"{path}, line {reader.line_num}: has more values than the first line has columns; put a value "
                    "that holds the delimiter in quotes"
                )
            values = {key.strip(): (value or "").strip() for key, value in row.items() if key}
            rows.append((reader.line_num, values))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a table of cases with --data.cases") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise InputError(f"{path}: holds no cases; the first line names the columns, each further line is a case")
    return rows


def file_of(path: Path, line: int, text: str, *, allow_outside: bool) -> Path:
    """The file that an entry names, relative to the table; ``scan.nii.gz#3`` keeps its number.

    Raises:
        InputError: If there is none, or it lies outside the table's folder and that is not allowed.
    """
    named = path.parent / text
    file, _ = split_number(named)
    try:
        there = file.exists()  # a link that leads in a circle leads nowhere
        outside = not file.resolve().is_relative_to(path.parent.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a name with a null byte
        there = outside = False
        if isinstance(error, PermissionError):
            raise InputError(f"{path}, line {line}: {file} cannot be opened ({error.strerror})") from error
    if not there:
        raise InputError(f"{path}, line {line}: {file} does not exist; paths are relative to the table")
    if outside and not allow_outside:
        raise InputError(
            f"{path}, line {line}: {text} lies outside the table's folder; move the table, or give "
            "--data.allow_outside true if you trust it"
        )
    return named


def mask_numbers(text: str) -> tuple[str, tuple[int, ...]]:
    """The file and the numbers of ``seg.nii.gz=1+4``; no numbers if there are none."""
    found = re.fullmatch(r"(.+?)\s*=\s*(\d+(?:\s*\+\s*\d+)*)", text)
    return (found[1], tuple(int(number) for number in found[2].split("+"))) if found else (text, ())


def slice_range(path: Path, line: int, text: str) -> tuple[int, int] | None:
    """First slice and the one behind the last of ``0:60``; None if nothing is said.

    Raises:
        InputError: If it is no such range.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)\s*:\s*(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise InputError(f"{path}, line {line}: slices is '{text}'; write first:last+1, as 0:60 for the first sixty")
    return int(found[1]), int(found[2])


def _delimiter(text: str) -> str:
    head = text.splitlines()[0] if text else ""
    for delimiter in ",;\t":
        if "image" in [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]:
            return delimiter
    return ","
