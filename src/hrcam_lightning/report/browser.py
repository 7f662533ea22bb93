"""The case browser: what it shows, and its data in the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Floats = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class CaseView:
    """A case as the browser shows it."""

    case: str
    image: Floats
    spacing: tuple[float, ...]
    truth: tuple[str, ...] | None
    called: tuple[str, ...]
    probabilities: Mapping[str, float]
    outcome: str
    masks: Mapping[str, Bools]
    maps: Mapping[str, Mapping[str, Floats]]
    levels: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    size_mm: float | None = None
    dprime: float | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)
    affine: Floats | None = None


@dataclass(frozen=True)
class MapKind:
    """A kind of map."""

    name: str
    threshold: float | Mapping[str, float] | None
    unit: str
    floor: bool = False
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Browser:
    """All cases."""

    classes: tuple[str, ...]
    maps: tuple[MapKind, ...]
    cases: tuple[CaseView, ...]


def browser_html(browser: Browser) -> str:
    """The browser's container and its data."""
    names = json.dumps([case.case for case in browser.cases]).replace("<", "\\u003c")
    return f'<div id="browser"></div><script type="application/json" id="browser-data">{names}</script>'
