"""The case browser: what it shows, and how that is written into the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import nibabel as nib
import numpy as np

from hrcam_lightning.errors import InputError
from hrcam_lightning.report.arrays import COARSE, FINE, GREY, Bools, Floats, Store, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = "inferno"
"""Rises evenly in lightness, so that it is read without colour vision and in grey; what is weak stays dark."""
SHARE = 0.9
"""Share of the cases whose highest value, and of those whose lowest, stays within the colours."""
OUTCOMES = ("hit", "called", "beside", "missed", "false alarm", "correct normal")


@dataclass(frozen=True)
class CaseView:
    """What is shown of one case.

    Attributes:
        case: Its name; always shown as text.
        image: (*S), one channel, 2D or 3D; shown from its lowest to its highest value.
        spacing: Millimetres per axis of `image`.
        truth: Classes that it has; () is normal, None where there is no truth.
        called: Classes that the model calls.
        probabilities: By class.
        outcome: One of `OUTCOMES`, "" without truth.
        masks: By class, (*S); empty where there is none.
        maps: By `MapKind.name` and class, (*S), raw.
        levels: By name of a level and class, (*S): what each adds to the model's own map.
        size_mm: Equivalent diameter of the largest lesion.
        dprime: Its detectability.
        facts: Whatever else is worth a line.
        affine: (4, 4), voxel to millimetres, of arrays that stand as in their file: they are turned upright here, like
            all of the project's pictures, and positions are told in the file's own voxels and millimetres. None for a
            picture, or for what is upright already: rows down and columns to the right in 2D, R-A-S in 3D.
    """

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
    """A kind of map: the model's own, an explainer's, or that of an experiment of a comparison.

    Attributes:
        name: As in `CaseView.maps`.
        threshold: Fitted on validation cases, in raw units, of all classes or by class; where the slider starts. None
            if there is none.
        unit: "logit", or "" for units of its own.
        floor: Whether it has not seen the disease.
    """

    name: str
    threshold: float | Mapping[str, float] | None
    unit: str
    floor: bool = False


@dataclass(frozen=True)
class Browser:
    """All that the browser shows.

    Attributes:
        classes: In the order of the model.
        maps: The first is shown large at first.
        cases: In the order of the list.
    """

    classes: tuple[str, ...]
    maps: tuple[MapKind, ...]
    cases: tuple[CaseView, ...]


class _Ends(NamedTuple):
    """Lowest and highest value of a map, and whether the case has what it is the map of."""

    low: float
    high: float
    found: bool


def browser_html(browser: Browser) -> str:
    """The browser's controls, and its data in one ``<script type="application/json">``.

    Raises:
        InputError: If a map holds values that are not finite, or is not of its image's shape, or if two cases have
            one name.
    """
    counted = Counter(case.case for case in browser.cases)
    if double := next((name for name, count in counted.items() if count > 1), None):
        raise InputError(f"{double}: more than one case has this name, so that no link can tell them apart; rename one")
    markup = (files(__package__) / "assets" / "browser.html").read_text(encoding="utf-8")
    return f'{markup}<script type="application/json" id="browser-data">{embedded(_content(browser))}</script>\n'


def embedded(content: object) -> str:
    """JSON that may stand in a ``<script>``: no name in it can end the element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _content(browser: Browser) -> dict[str, Any]:
    store = Store()
    coarse = {kind.name for kind in browser.maps if kind.floor}
    cases = [_case(case, coarse, store) for case in browser.cases]
    kinds = [
        _kind(
            kind,
            browser.classes,
            [end for case in cases for end in _ends(case, case["maps"].get(kind.name, {}), store)],
        )
        for kind in browser.maps
    ]
    levels = list(dict.fromkeys(name for case in browser.cases for name in case.levels))
    # One scale for all levels: what each adds is compared with what the others add.
    unit = browser.maps[0].unit if browser.maps else ""
    together = [end for case in cases for maps in case["levels"].values() for end in _ends(case, maps, store)]
    kinds += [{**_kind(MapKind(name, None, unit), (), together), "level": True} for name in levels]
    table = np.rint(255 * mpl.colormaps[COLOURS](np.arange(256))[:, :3]).astype(np.uint8)
    return {
        "classes": list(browser.classes),
        "outcomes": list(OUTCOMES),
        "colours": table.tobytes().hex(),
        "kinds": kinds,
        "cases": cases,
        "arrays": store.arrays,
    }


def _case(case: CaseView, coarse: set[str], store: Store) -> dict[str, Any]:
    size = np.shape(case.image)
    if len(size) not in (2, 3) or len(case.spacing) != len(size):
        raise InputError(f"{case.case}: an image of shape {size} with spacing {case.spacing} is neither 2D nor 3D")

    def keep(values: Floats | Bools, what: str, steps: int) -> int:
        if np.shape(values) != size:
            raise InputError(f"{case.case}: {what} is of shape {np.shape(values)}, but its image of shape {size}")
        return store.add(pack(_upright(values, case.affine), f"{case.case}: {what}", steps))

    def keep_all(maps: Mapping[str, Mapping[str, Floats]], steps: Mapping[str, int]) -> dict[str, dict[str, int]]:
        return {
            name: {label: keep(values, f"the map {name} of {label}", steps[name]) for label, values in by_class.items()}
            for name, by_class in maps.items()
        }

    return {
        "case": case.case,
        "truth": None if case.truth is None else list(case.truth),
        "called": list(case.called),
        "probabilities": dict(case.probabilities),
        "outcome": case.outcome,
        "size_mm": case.size_mm,
        "dprime": case.dprime,
        "facts": {name: value for name, value in case.facts.items() if value == value},  # what is undefined is left out
        "frame": _frame(case),
        "image": keep(case.image, "the image", GREY),
        "masks": {name: keep(mask, f"the mask of {name}", 1) for name, mask in case.masks.items() if np.any(mask)},
        "maps": keep_all(case.maps, {name: COARSE if name in coarse else FINE for name in case.maps}),
        "levels": keep_all(case.levels, dict.fromkeys(case.levels, COARSE)),
    }


def _upright(values: Floats | Bools, affine: Floats | None) -> Floats | Bools:
    if affine is None:
        return values
    if values.ndim == 2:
        return values.T[::-1]
    turn = nib.orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
    return np.asarray(nib.orientations.apply_orientation(values, turn))  # type: ignore[no-untyped-call]


def _frame(case: CaseView) -> dict[str, Any]:
    """How the axes that are shown stand in the file: which each was, and whether it counts the other way."""
    axes, flips = list(range(len(case.spacing))), [False] * len(case.spacing)
    if case.affine is not None and len(axes) == 2:
        axes, flips = [1, 0], [True, False]
    elif case.affine is not None:
        turn = nib.orientations.io_orientation(case.affine)  # type: ignore[no-untyped-call]
        axes = [int(axis) for axis in np.argsort(turn[:, 0])]
        flips = [bool(turn[axis, 1] < 0) for axis in axes]
    affine = None if case.affine is None else np.asarray(case.affine, dtype=np.float64)[:3].tolist()
    return {"axes": axes, "flips": flips, "spacing": [float(case.spacing[axis]) for axis in axes], "affine": affine}


def _ends(case: Mapping[str, Any], maps: Mapping[str, int], store: Store) -> list[_Ends]:
    found = case["truth"] or ()
    return [
        _Ends(store.arrays[place]["low"], store.arrays[place]["high"], label in found) for label, place in maps.items()
    ]


def _kind(kind: MapKind, classes: Sequence[str], ends: Sequence[_Ends]) -> dict[str, Any]:
    lows, highs = [end.low for end in ends] or [0.0], [end.high for end in ends] or [1.0]
    found = [end.high for end in ends if end.found] or highs
    # One scale for all cases, so that a normal image looks normal. Its upper end is of the cases that have the finding:
    # with all of them a rare finding would have the scale of normal images, which would then look ill.
    low, high = float(np.quantile(lows, 1 - SHARE)), float(np.quantile(found, SHARE))
    if not low < high:  # nothing but constant maps
        low, high = low - 0.5, low + 0.5
    given = kind.threshold if isinstance(kind.threshold, Mapping) else dict.fromkeys(classes, kind.threshold)
    thresholds = {name: float(value) for name, value in given.items() if value is not None and np.isfinite(value)}
    reached = [low, high, *thresholds.values(), min(lows), max(highs)]
    return {
        "name": kind.name,
        "unit": kind.unit,
        "floor": kind.floor,
        "level": False,
        "scale": [low, high],
        "range": [min(reached), max(reached)],
        "thresholds": thresholds,
    }
