"""A set of phantoms on disk: generated in any number of processes, resumable, the same bytes in the end.

While a set is made, ``incomplete.jsonl`` records what it is (first line) and each finished case. The tables
and ``dataset.json`` are written from that journal at the end, and the journal goes last. A shard is made the same
way, and holds in the end its journal alone, as ``shard.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from synth.files import DatasetError, remove_parts, write_whole
from synth.parallel import run
from synth.phantom import Phantoms
from synth.records import INDEX, OnCase, Record, folders, ignore, record_files, write_cases, write_tables
from synth.spec import SPLITS, PhantomSpec, Splits, check_splits

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
# Raise it whenever the same specification and seed would give other bits, of a case or of the set's own files.
GENERATOR_VERSION = "0.5.0"
JOURNAL, SHARD = "incomplete.jsonl", "shard.jsonl"
HEADER = ("schema", "generator", "spec", "seed", "splits", "twins", "shard")
TRIAL_CASES = 8
CHUNK = 8

# Yields function(*fixed, task) for each task.
Spread = Callable[[Callable[..., Any], tuple[Any, ...], Iterable[Any]], Iterator[Any]]


class Shard(NamedTuple):
    """One of ``number`` parts of a set: the cases whose index leaves the rest ``part``."""

    part: int
    number: int

    def __str__(self) -> str:
        return f"{self.part}/{self.number}"


def generate(
    out: Path,
    spec: PhantomSpec,
    *,
    seed: int = 0,
    splits: Mapping[str, int] | None = None,
    shard: Shard | None = None,
    twins: bool = False,
    workers: int = 1,
    spread: Spread | None = None,
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
        shard: the part of the set to write; all of it if None.
        twins: whether to write each abnormal case without its lesions as well.
        workers: number of processes.
        spread: how to spread the work, instead of over ``workers``; whoever works sees ``out`` where it is here.
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
    header = {"schema": SCHEMA, "generator": f"synth {GENERATOR_VERSION}", "spec": spec.to_dict(), "seed": seed,
              "splits": counts}  # fmt: skip
    if twins:
        header["twins"] = True
    if shard is not None:
        header["shard"] = list(shard)
    phantoms = Phantoms(spec, seed)
    phantoms.check()
    for index in indices(header)[:TRIAL_CASES]:  # a lesion that fits nowhere is found before any file is written
        phantoms[index]
    first_reversed = sum(counts.values()) - counts.get("reversed", 0)
    spread = spread or partial(run, workers=workers)
    make = partial(spread, write_cases, (phantoms, out.resolve(), twins, first_reversed))
    return complete(out, header, make, resume=resume, on_case=on_case)


def indices(header: Mapping[str, Any]) -> range:
    """Return the numbers of the cases of a set or shard."""
    part, number = header.get("shard", (0, 1))
    return range(part, sum(header["splits"].values()), number)


def complete(
    out: Path,
    header: Mapping[str, Any],
    make: Callable[[list[list[int]]], Iterator[list[Record]]],
    *,
    resume: bool,
    on_case: OnCase,
) -> bool:
    """Make the missing cases of a set or shard, then what names them all.

    Args:
        out: folder, new or empty, or an interrupted set if ``resume``.
        header: what the set is made from.
        make: yields the records of each of the given chunks of case numbers, their files written.
        resume: complete an interrupted set.
        on_case: told the number of finished cases and their total, now and then.

    Returns:
        Whether anything was missing.

    Raises:
        DatasetError: the folder is not empty, or holds another set.
        OSError: a file could not be written.
    """
    wanted = indices(header)
    records = _finished(out, header, resume=resume)
    if records is None:
        on_case(len(wanted), len(wanted))
        return False
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    journal = out / JOURNAL
    write_whole(journal, "".join([json_line(header), *map(json_line, records.values())]).encode())
    for folder in folders(header):
        (out / folder).mkdir(exist_ok=True)
    on_case(len(records), len(wanted))
    missing = [index for index in wanted if index not in records]
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    with journal.open("a", encoding="utf-8", newline="\n") as log:
        for batch in make(chunks):
            for record in batch:
                log.write(json_line(record))
                records[record["index"]] = record
            log.flush()
            on_case(len(records), len(wanted))
    made = [records[index] for index in wanted]
    if "shard" in header:
        write_whole(out / SHARD, "".join([json_line(header), *map(json_line, made)]).encode())
    else:
        write_tables(out, made, header)
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


def _finished(out: Path, header: Mapping[str, Any], *, resume: bool) -> dict[int, Record] | None:
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


def _read_finished(out: Path, header: Mapping[str, Any]) -> dict[int, Record] | None:
    if (out / JOURNAL).exists():
        first, *lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
        _same_set(out, json.loads(first), header)
        # A kill may have cut the last line short.
        records = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return {record["index"]: record for record in records if _on_disk(out, record)}
    if (out / INDEX).exists():
        _same_set(out, json.loads((out / INDEX).read_text(encoding="utf-8")), header)
        return None
    if (out / SHARD).exists():
        _same_set(out, json.loads((out / SHARD).read_bytes().splitlines()[0]), header)
        return None
    raise DatasetError(f"{out} holds no interrupted set: choose another folder")


def _same_set(out: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    key = differing(found, header)
    if key:
        was = "" if key == "spec" else f" ({found.get(key)}, not {header.get(key)})"
        advice = "resume with the same one, or choose another folder"
        raise DatasetError(f"{out} holds a set with another {key}{was}: {advice}")


def differing(found: Mapping[str, Any], header: Mapping[str, Any]) -> str | None:
    """Return the first key in which two sets are not made from the same; None if there is none."""
    return next((key for key in HEADER if found.get(key) != header.get(key)), None)


def _on_disk(out: Path, record: Record) -> bool:
    return all((out / path).exists() for path in record_files(record))
