"""Shards of one set put together: the same bytes as the set made in one piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synth.dataset import JOURNAL, SHARD, Shard, complete, differing, indices
from synth.files import DatasetError, write_whole
from synth.records import OnCase, Record, ignore, record_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def merge(out: Path, shards: Sequence[Path], *, resume: bool = False, on_case: OnCase = ignore) -> bool:
    """Copy the cases of all shards of a set into one, in any order of ``shards``; the shards stay as they are.

    Args:
        out: folder, new or empty.
        shards: what ``generate`` wrote for each part.
        resume: complete an interrupted merge.
        on_case: told the number of copied cases and their total, now and then.

    Returns:
        Whether anything was missing.

    Raises:
        DatasetError: the shards are not those of one set, or one is missing, unfinished or there twice; or the
            folder is not empty.
        OSError: a file could not be read or written.
    """
    header: Mapping[str, Any] = {}
    parts: dict[int, Path] = {}
    origin: dict[int, tuple[Path, Record]] = {}
    for folder in shards:
        own, shard, records = _read(folder)
        header = header or own
        key = differing(own, header)
        if key:
            raise DatasetError(f"{folder} is of a set with another {key} than {shards[0]}")
        if shard.number != len(shards):
            raise DatasetError(f"{folder} is shard {shard} but {len(shards)} are given: merge takes all of them")
        if shard.part in parts:
            raise DatasetError(f"{folder} and {parts[shard.part]} are both shard {shard}")
        parts[shard.part] = folder
        origin |= {record["index"]: (folder, record) for record in records}

    def copy(chunks: list[list[int]]) -> Iterator[list[Record]]:
        for chunk in chunks:
            for index in chunk:
                folder, record = origin[index]
                for path in record_files(record):
                    write_whole(out / path, (folder / path).read_bytes())
            yield [origin[index][1] for index in chunk]

    return complete(out, header, copy, resume=resume, on_case=on_case)


def _read(folder: Path) -> tuple[dict[str, Any], Shard, list[Record]]:
    """Return what a finished shard is made from, which one it is, and its records."""
    if (folder / JOURNAL).exists():
        raise DatasetError(f"{folder} is unfinished: complete it with hrcam-synth generate --resume")
    if not (folder / SHARD).exists():
        raise DatasetError(f"{folder} holds no shard: {SHARD} is missing")
    try:
        header, *records = map(json.loads, (folder / SHARD).read_bytes().splitlines())
        expected = list(indices(header))
        shard = Shard(*header.pop("shard"))
        whole = [record["index"] for record in records] == expected
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DatasetError(f"{folder / SHARD} is damaged: generate the shard again in another folder")
    return header, shard, records
