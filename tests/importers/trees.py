"""Tiny trees of files, and what an importer writes of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hrcam_lightning.data.table import CaseTable, read_table
from hrcam_lightning.importers.command import run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def picture(path: Path, height: int = 16, width: int = 16, seed: int | None = None) -> Path:
    """A grey picture; each of its own noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 255, (height, width), dtype=np.uint8)).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pixels(path: Path) -> NDArray[Any]:
    with Image.open(path) as found:
        return np.asarray(found)


def box(height: int, width: int, rows: slice, columns: slice) -> NDArray[Any]:
    """A mask, 255 in a box."""
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return mask


def imported(*words: object) -> None:
    """Run ``hrcam cases``."""
    run([str(word) for word in words])


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def labels_of(table: CaseTable) -> dict[str, object]:
    return {case.name: case.label for case in table.cases}


__all__ = ["box", "imported", "labels_of", "lines_of", "picture", "pixels", "read_table", "text"]
