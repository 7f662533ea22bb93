"""The table that every importer writes: contract 1."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hrcam_lightning.errors import InputError
from hrcam_lightning.files import write_csv
from hrcam_lightning.importers.masks import Mask, save_masks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NEGATIVE = "normal"  # what the table calls a case without any finding, whatever its source called it
COLUMNS = ("image", "label", "mask", "split", "subject", "case")
SHOWN = 3


@dataclass(frozen=True)
class Row:
    """A case, as an importer finds it.

    Attributes:
        name: Unique in the table.
        images: Image file; several are channels.
        labels: Its classes; none means no finding.
        masks: By class, a file that is there or what to draw one from. No mask for a class that is there: not known.
            A case without a finding may have one under `NEGATIVE`, which must be empty.
        split: ``train``, ``val`` or ``test``; empty if the source does not say.
        subject: Who was imaged; empty if the source does not say.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[str, ...]
    masks: Mapping[str, Mask] = field(default_factory=dict)
    split: str = ""
    subject: str = ""


def write_table(path: Path, rows: Sequence[Row], *, overwrite: bool) -> None:
    """Draw the masks that are not files yet, beside the table, then write the table.

    Raises:
        InputError: If there are no rows, a class cannot be written, or the table is there and is not to be replaced.
    """
    if not rows:
        raise InputError(f"{path}: not written, for no case was found; look at the folder and the options")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: replace it with --overwrite, or choose another --out")
    for name in sorted({label for row in rows for label in row.labels}):
        if not name or set(name) & set("|=") or name != name.strip() or name.lower() == NEGATIVE:
            raise InputError(
                f"'{name}' cannot be a class of {path}: it must not be '{NEGATIVE}', hold '|' or '=', or begin or end "
                "with a space; rename it at its source"
            )
    doubles = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if doubles:
        raise InputError(f"{path}: two cases would be called '{doubles[0]}'; rename one of their files")
    drawn = save_masks(path.with_name(f"{path.stem}_masks"), {row.name: row.masks for row in rows})
    written = _written(path.parent, rows, drawn)
    known = [name for name in COLUMNS if any(row[name] for row in written)]
    write_csv(path, [{name: row[name] for name in known} for row in written], known)


def show(path: Path, rows: Sequence[Row], *, multilabel: bool) -> None:
    """Print how many cases of each class each split holds, and the command to go on with.

    Args:
        path: The table.
        rows: Its rows.
        multilabel: A case of this source may have several labels, even if none of these has.
    """
    splits = [name for name in ("train", "val", "test", "") if any(row.split == name for row in rows)]
    table = Table()
    for name in ("class", *(name or "cases" for name in splits), "with mask"):
        table.add_column(name, justify="left" if name == "class" else "right")
    classes = sorted({label for row in rows for label in row.labels})
    for name in [*([NEGATIVE] if any(not row.labels for row in rows) else []), *classes]:
        chosen = [row for row in rows if name in (row.labels or (NEGATIVE,))]
        counts = Counter(row.split for row in chosen)
        masks = sum(name in row.masks for row in chosen)
        table.add_row(name, *(str(counts[split]) for split in splits), str(masks) if name != NEGATIVE else "")
    console = Console()
    console.print(table)
    counts = Counter(row.split for row in rows)
    parts = ", ".join(f"{split} {counts[split]}" for split in splits if split)
    subjects = len({row.subject for row in rows if row.subject})
    words = [f"{len(rows)} cases" + (f" ({parts})" if parts else ""), f"{len(classes)} classes"]
    words += [f"{subjects} subjects"] if subjects else []
    words += [f"{sum(len(row.masks) for row in rows)} masks"]
    console.print(f"{path}: {', '.join(words)}", highlight=False, soft_wrap=True)
    command = f"hrcam fit --data CaseDataModule --data.cases {path}"
    if multilabel and all(len(row.labels) < 2 for row in rows):
        command += " --data.task multilabel"
    folders = {file.parent for row in rows for file in row.images}
    if any(Path(os.path.relpath(folder, path.parent)).parts[:1] == ("..",) for folder in folders):
        command += " --data.allow_outside true"
    console.print(f"Next: {command}", highlight=False, soft_wrap=True)


def refuse_missing(source: Path, missing: Sequence[str], what: str, *, skip: bool) -> None:
    """Say what a source names and the disk does not hold.

    Raises:
        InputError: If anything is missing and `skip` was not asked for.
    """
    if missing and not skip:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise InputError(
            f"{source}: {len(missing)} {what} ({names}); mend it, or leave these cases out with --skip_missing"
        )


def carve(rows: Sequence[Row], share: float) -> list[Row]:
    """Give a share of the training cases to validation: whole subjects, in the order of a hash of their names.

    Args:
        rows: Cases with their splits; a case without a subject is one of its own.
        share: Least share of the cases of ``train`` that becomes ``val``.

    Raises:
        InputError: If the share is not at least 0 and below 1.
    """
    if not 0 <= share < 1:
        raise InputError(f"--val is {share}; a share of at least 0 and below 1 is needed")
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.split == "train":
            sizes[row.subject or row.name] += 1
    wanted = share * sum(sizes.values())
    taken: set[str] = set()
    count = 0
    for subject in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if count >= wanted:
            break
        taken.add(subject)
        count += sizes[subject]
    return [
        replace(row, split="val") if row.split == "train" and (row.subject or row.name) in taken else row
        for row in rows
    ]


def _written(start: Path, rows: Sequence[Row], masks: Mapping[str, Mapping[str, Path]]) -> list[dict[str, str]]:
    """Rows as texts, paths relative to a folder."""
    ways: dict[Path, Path] = {}  # of a hundred thousand images in a dozen folders

    def way(path: Path) -> str:
        if path.parent not in ways:
            ways[path.parent] = Path(os.path.relpath(path.parent, start))
        found = (ways[path.parent] / path.name).as_posix()
        if "|" in found:
            raise InputError(f"{path}: the sign '|' joins paths in a table; rename the file")
        return found

    return [
        {
            "image": "|".join(way(path) for path in row.images),
            "label": "|".join(row.labels) or NEGATIVE,
            "mask": "|".join(
                f"{name}={way(path)}" if len(row.labels) > 1 else way(path) for name, path in masks[row.name].items()
            ),
            "split": row.split,
            "subject": row.subject,
            "case": row.name,
        }
        for row in rows
    ]
