"""Cases whose every pixel is known, for the tests of the report's page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hrcam_lightning.report.browser import Browser, CaseView, MapKind
from hrcam_lightning.report.page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.report.arrays import Bools, Floats
    from hrcam_lightning.report.page import Section

HOSTILE = '<img src=x onerror=alert(1)></script><b>&amp; "it\'s" %'
ROWS, COLUMNS = 12, 16
RAMP: Floats = np.broadcast_to(np.linspace(-4.0, 8.0, COLUMNS), (ROWS, COLUMNS)).copy()
"""From -4 to 8 logits: 0.8 a column, which is 17 of 255 steps, exactly."""
SHADES: Floats = np.broadcast_to(np.linspace(0.0, 1.0, ROWS)[:, None], (ROWS, COLUMNS)).copy()
THRESHOLD = 2.0


def block(rows: slice, columns: slice) -> Bools:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[rows, columns] = True
    return mask


def case(name: str, **changes: Any) -> CaseView:
    """A hit with the ramp for a map: a lesion of rows 2-4 and columns 12-14."""
    view = CaseView(
        case=name,
        image=SHADES,
        spacing=(1.0, 1.0),
        truth=("lesion",),
        called=("lesion",),
        probabilities={"lesion": 0.9},
        outcome="hit",
        masks={"lesion": block(slice(2, 5), slice(12, 15))},
        maps={"model": {"lesion": RAMP}, "center": {"lesion": np.full((ROWS, COLUMNS), 3.0)}},
        levels={"stride 1": {"lesion": RAMP / 2}, "stride 2": {"lesion": RAMP / 4}},
        size_mm=3.4,
        dprime=7.5,
        facts={"pixel AP": 0.5, "undefined": float("nan")},
    )
    return replace(view, **changes)


def normal(name: str, **changes: Any) -> CaseView:
    """A correct normal, whose map stays below the threshold."""
    none: dict[str, Any] = {"truth": (), "called": (), "masks": {}, "size_mm": None, "dprime": None, "facts": {}}
    quiet = {"model": {"lesion": RAMP / 8}}
    return case(
        name, **{**none, "outcome": "correct normal", "probabilities": {"lesion": 0.1}, "maps": quiet} | changes
    )


MODEL = MapKind("model", THRESHOLD, "logit")
CENTER = MapKind("center", None, "", floor=True)


def browser(
    *cases: CaseView, maps: Sequence[MapKind] = (MODEL, CENTER), classes: Sequence[str] = ("lesion",)
) -> Browser:
    return Browser(tuple(classes), tuple(maps), cases)


def several() -> Browser:
    """One case of each outcome, and one of a hostile name."""
    return browser(
        case("a hit"),
        case("b beside", outcome="beside", probabilities={"lesion": 0.8}, size_mm=6.0, dprime=9.0),
        case("c missed", outcome="missed", called=(), probabilities={"lesion": 0.3}, size_mm=2.0, dprime=5.0),
        normal("d alarm", outcome="false alarm", called=("lesion",), probabilities={"lesion": 0.7}),
        normal("e normal"),
        normal(HOSTILE),
    )


VOXELS = (7, 9, 5)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 0, 4.0, -20], [0, 3.0, 0, 5], [0, 0, 0, 1]])
"""File axes run to the left, up and to the front, 2, 3 and 4 mm apart: the picture's axes are 0, 2 and 1."""


def volume(name: str = "volume") -> CaseView:
    """A volume of voxels that all differ, its peak at (5, 2, 3) of the file and its lesion round (1, 7, 1)."""
    image = np.arange(np.prod(VOXELS), dtype=float).reshape(VOXELS)
    found, mask = np.full(VOXELS, -4.0), np.zeros(VOXELS, bool)
    found[5, 2, 3] = 8.0
    mask[0:3, 6:9, 0:3] = True
    return case(
        name,
        image=image,
        spacing=(2.0, 3.0, 4.0),
        masks={"lesion": mask},
        maps={"model": {"lesion": found}},
        levels={},
        affine=AFFINE,
    )


def write(
    folder: Path,
    content: Browser | None,
    title: str = "Report",
    lead: str = "A test.",
    sections: Sequence[Section] = (),
    scripts: Sequence[str] = (),
) -> Path:
    path = folder / "report.html"
    write_page(path, title, lead, sections, content, scripts)
    return path
