"""Which cases a prediction has done: what a run that was cut off leaves to the next one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = list[dict[str, Any]]


class Journal:
    """Rows of the cases that are done, a line of JSON each, appended once all files of the case are written.

    Args:
        folder: Where predictions go.
        rank: Of this process; each has a file of its own, ``.done-<rank>.jsonl``.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.first = folder, rank == 0
        self.path = folder / f".done-{rank}.jsonl"

    def begin(self, checkpoint: str, *, resume: bool) -> list[str]:
        """Begin a prediction, and say which cases are done already: none unless resumed.

        Raises:
            InputError: If what is there was made with another checkpoint.
        """
        if not resume:
            for path in self._paths() if self.first else []:
                path.unlink()
            return []
        for path in self._paths():
            theirs = _lines(path)[:1]
            if theirs and theirs[0].get("checkpoint") != checkpoint:
                raise InputError(
                    f"{self.folder}: holds predictions of another checkpoint; predict without --resume, or give "
                    "another --predictions.folder"
                )
        return list(self.rows())

    def add(self, checkpoint: str, case: str, rows: Sequence[dict[str, Any]]) -> None:
        """Note that a case is done."""
        new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(json.dumps({"checkpoint": checkpoint}) + "\n")
            file.write("\n" * _is_torn(self.path) + json.dumps({"case": case, "rows": list(rows)}) + "\n")

    def rows(self) -> dict[str, Rows]:
        """Rows of every case that is done, by case, in the order of their names; those of all processes."""
        found = {line["case"]: line["rows"] for path in self._paths() for line in _lines(path) if "case" in line}
        return dict(sorted(found.items()))

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(".done-*.jsonl"))


def fingerprint(path: str | Path | None) -> str:
    """SHA-256 of a file; empty if there is none."""
    if not path or not Path(path).is_file():
        return ""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; the last one may have been torn when the run was killed."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(dict(json.loads(line)))
        except ValueError:
            continue
    return found


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        if not file.tell():
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"
