"""What a test must not have seen in training: the same image in two splits, or a mask given as an image."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.data.readers import split_number
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hrcam_lightning.data.table import Case

PROBE = 4096  # bytes read at the start, middle and end of files of one size, before any of them is read in full
SHOWN = 3


@dataclass(frozen=True)
class _Stat:
    """What the file system says of a file."""

    path: str
    size: int
    changed: int  # ns


@dataclass(frozen=True)
class _Use:
    """A file, or the folder of a series, and what a case uses it for."""

    path: Path
    case: Case
    is_image: bool


def check_leakage(table: Path, cases: Sequence[Case]) -> None:
    """Compare the files of all cases by their bytes.

    Files of one size are read at three places, and in full only where these agree: a set without duplicates costs
    little more than asking for the sizes. What the same voxels look like in another compression or format is not found.

    Args:
        table: Where the cases stand, for the sentence.
        cases: Cases of all splits; that a subject is in one split only is checked when the table is read.

    Raises:
        InputError: If an image is in two splits, or is a mask of the table as well.
    """
    uses = [_Use(path, case, is_image=True) for case in cases for path in case.images]
    for case in cases:
        files = [*case.masks.values(), *([case.cue] if case.cue else [])]
        uses += [_Use(path, case, is_image=False) for path in files]
    shared = [found for found in _same_content(uses) if any(use.is_image for use in found)]
    for found in shared:
        mask = next((use for use in found if not use.is_image), None)
        if mask is not None:
            image = next(use for use in found if use.is_image)
            same = "is" if image.path == mask.path else f"holds the same bytes as {mask.path}, which is"
            raise InputError(
                f"{table}: {image.path}, the image of case '{image.case.name}', {same} the mask of case "
                f"'{mask.case.name}': the image would hold the answer; mend the columns"
            )
    pairs = [pair for found in shared if (pair := _overlap(found)) is not None]
    leaks = [(a, b) for a, b in pairs if a.case.split != b.case.split]
    if leaks:
        raise InputError(
            f"{table}: {_pairs(leaks)}; keep each image in one split (--data.check_leakage false if this is meant)"
        )
    if pairs:
        warnings.warn(f"{table}: {_pairs(pairs)}; an image that stands twice counts twice", stacklevel=2)


def _same_content(uses: Iterable[_Use]) -> list[list[_Use]]:
    """Uses of the same content, in the order of the table; contents of a single use are left out."""
    stats: dict[Path, list[_Stat]] = {}
    by_size: dict[tuple[int, ...], list[_Use]] = defaultdict(list)
    for use in uses:
        if use.path not in stats:
            stats[use.path] = _stats(use.path)
        by_size[tuple(sorted(stat.size for stat in stats[use.path]))].append(use)
    groups = [found for size, found in by_size.items() if sum(size) and _is_worth_reading(found)]
    for read in (_probe, _digest):
        groups = [part for found in groups for part in _parted(found, stats, read)]
    return groups


def _is_worth_reading(found: list[_Use]) -> bool:
    return len(found) > 1 and any(use.is_image for use in found)


def _parted(found: list[_Use], stats: dict[Path, list[_Stat]], read: Callable[[_Stat], bytes]) -> Iterator[list[_Use]]:
    """Uses that were taken for the same, by what is read of their files."""
    parts: dict[object, list[_Use]] = defaultdict(list)
    one_file = len({use.path for use in found}) == 1  # rows of one volume: it need not be compared with itself
    for use in found:
        _, number = split_number(use.path)  # two volumes of one file are two images
        # Sorted, for a series is the same whatever its files are called.
        parts[() if one_file else (number, *sorted(map(read, stats[use.path])))].append(use)
    yield from filter(_is_worth_reading, parts.values())


def _overlap(found: list[_Use]) -> tuple[_Use, _Use] | None:
    """Two cases of the same image, of two splits if there are any; None if their ranges of slices are apart."""
    latest: dict[str, _Use] = {}  # of each split the case whose range ends last
    inside: tuple[_Use, _Use] | None = None
    for use in sorted((use for use in found if use.is_image), key=lambda use: _range(use.case)):
        for split, other in latest.items():
            if other.case is use.case or _range(other.case)[1] <= _range(use.case)[0]:
                continue
            if split != use.case.split:
                return other, use
            inside = inside or (other, use)
        last = latest.setdefault(use.case.split, use)
        if _range(use.case)[1] > _range(last.case)[1]:
            latest[use.case.split] = use
    return inside


def _range(case: Case) -> tuple[float, float]:
    return case.slices or (0, math.inf)


def _pairs(pairs: list[tuple[_Use, _Use]]) -> str:
    shown = [
        f"'{a.case.name}' ({a.case.split}) and '{b.case.name}' ({b.case.split}) are the same image, "
        + (f"{a.path}" if a.path == b.path else f"{a.path} and {b.path}")
        for a, b in pairs[:SHOWN]
    ]
    more = len(pairs) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _stats(path: Path) -> list[_Stat]:
    """The file, or the files of a series."""
    file, _ = split_number(path)
    files = [child for child in file.iterdir() if child.is_file()] if file.is_dir() else [file]
    found = [(file, file.stat()) for file in files]
    return [_Stat(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]


@cache  # `fit` and a `test` after it in one process ask for the same files
def _probe(stat: _Stat) -> bytes:
    parts = []
    with Path(stat.path).open("rb") as file:
        for start in (0, stat.size // 2, max(0, stat.size - PROBE)):
            file.seek(start)
            parts.append(file.read(PROBE))
    return hashlib.blake2b(b"".join(parts)).digest()


@cache
def _digest(stat: _Stat) -> bytes:
    with Path(stat.path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
