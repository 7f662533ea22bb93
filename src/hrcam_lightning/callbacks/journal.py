"""Which cases a prediction has done: what a run that was cut off leaves to the next one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
        self._head: dict[str, Any] = {}

    def begin(self, checkpoint: str, settings: Mapping[str, str], *, resume: bool) -> dict[str, str]:
        """Begin a prediction, and say what is done already: nothing unless resumed.

        Args:
            checkpoint: Fingerprint of the network.
            settings: What else decides the maps and scores, by option.
            resume: Go on with what is there.

        Returns:
            What each case that is done was read from.

        Raises:
            InputError: If what is there was made with another checkpoint, or with other settings.
        """
        self._head = {"checkpoint": checkpoint, "settings": dict(settings)}
        if not resume:
            for path in self._paths() if self.first else []:
                path.unlink()
            return {}
        for path in self._paths():
            theirs: dict[str, Any] = next(iter(_lines(path)), self._head)
            ways = "predict without --resume, or give another --predictions.folder"
            if theirs.get("checkpoint") != checkpoint:
                raise InputError(f"{self.folder}: holds predictions of another checkpoint; {ways}")
            earlier = theirs.get("settings", {})
            for option, value in settings.items():
                if earlier.get(option) != value:
                    raise InputError(
                        f"{self.folder}: its predictions were made with {option} {earlier.get(option)}, not {value}; "
                        f"{ways}"
                    )
        return self.sources()

    def tidy(self, cases: Collection[str]) -> None:
        """Keep the lines of some cases alone, in the file of the first process; to be called before anybody adds.

        A case that is done anew may come to another process: its old line, in that one's file, would stand beside the
        new one, and nothing would say which is which.
        """
        paths = self._paths() if self.first else []
        lines = [line for path in paths for line in _lines(path)]
        kept = {line["case"]: line for line in lines if line.get("case") in cases}
        if paths:
            with replacing(self.path) as part:
                part.write_text("".join(json.dumps(line) + "\n" for line in (self._head, *kept.values())), "utf-8")
        for path in paths:
            if path != self.path:
                path.unlink()

    def head(self) -> dict[str, Any]:
        """What the network of an earlier prediction is known by, and its settings; empty if there was none."""
        return next((line for path in self._paths() for line in _lines(path)[:1]), {})

    def sources(self) -> dict[str, str]:
        """What each case that is done was read from."""
        return {line["case"]: line.get("source", "") for path in self._paths() for line in _lines(path)[1:]}

    def add(self, case: str, rows: Sequence[dict[str, Any]], source: str = "") -> None:
        """Note that a case is done, and what it was read from."""
        new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(json.dumps(self._head) + "\n")
            line = json.dumps({"case": case, "source": source, "rows": list(rows)})
            file.write("\n" * _is_torn(self.path) + line + "\n")

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
