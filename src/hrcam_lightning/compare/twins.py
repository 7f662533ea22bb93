"""The same job in two comparisons, as our own recipe and PYLON are in several: done once, then copied."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from hrcam_lightning.compare.plan import RECORD, read_record
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.compare.plan import Job, Record

LOCK = ".lock"  # every folder of a comparison has one


def find_twin(job: Job) -> Path | None:
    """The folder of a finished job of the same key, in a comparison beside its own; None if there is none."""
    out = job.folder.parents[2]
    for lock in sorted(out.parent.glob(f"*/{LOCK}")):
        if lock.parent != out:
            for path in sorted(lock.parent.glob(f"*/*/{job.folder.name}/{RECORD}")):
                if _finished(job, path.parent) is not None:
                    return path.parent
    return None


def take_twin(job: Job) -> Record | None:
    """Copy what another comparison has finished, whole or not at all.

    Args:
        job: What is to be done.

    Returns:
        The record of the job, which is finished then; None if there was nothing to take.
    """
    twin = find_twin(job)
    if twin is None:
        return None
    part = job.folder.with_name(f".part-{job.folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(twin, part)
        record = _finished(job, part)
        if record is None:  # the other comparison has begun it anew
            return None
        record = replace(record, taken_from=str(twin))
        record.write(part)
        _name_folder(part / "config.yaml", job.folder)
        remove_run(job.folder)
        part.rename(job.folder)
    except OSError:  # gone, or the disk is full
        return None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def remove_run(folder: Path) -> None:
    """Remove a run, if there is one; under another name, so that a kill leaves no half of it."""
    if folder.exists():
        doomed = folder.with_name(f".removed-{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _finished(job: Job, folder: Path) -> Record | None:
    """The record of a folder, if it holds the same job and is finished."""
    try:
        record = read_record(folder)
    except InputError:  # damaged: whoever runs that comparison is told
        return None
    done = record is not None and record.key == job.key and record.state == "finished"
    return record if done and (folder / job.results.name / "metrics.json").is_file() else None


def _name_folder(config: Path, folder: Path) -> None:
    """Let a copied configuration name its own folder; typed with ``test``, it would write into the other comparison."""
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        # However it was spelled: relative or not, in quotes, or folded over several lines.
        line = f"  default_root_dir: {json.dumps(str(folder), ensure_ascii=False)}"
        text = re.sub(r"(?m)^  default_root_dir:.*(?:\n    .*)*$", lambda _: line, text, count=1)
        config.write_text(text, encoding="utf-8")
