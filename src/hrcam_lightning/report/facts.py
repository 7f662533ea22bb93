"""What is told of a case beside its pictures: truth, decision, outcome, size and d′; and which cases are shown."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from hrcam_lightning.report.evaluation import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hrcam_lightning.report.evaluation import Evaluation, Row

NORMAL = "normal"
ERRORS = ("missed", "beside", "false alarm")
SHOWN = ("pixel_ap", "dice", "peak_distance", "relevance_mass")
"""Scores of a case that stand beside its pictures."""


@dataclass(frozen=True)
class CaseFacts:
    """Of one case.

    Attributes:
        truth: Findings that it has.
        called: Findings that the network calls.
        probabilities: By class.
        outcome: See `outcome_of`.
        size_mm: Diameter of the disc or ball with the size of its largest lesion; None if not known.
        dprime: Detectability of that lesion; None if not known.
        scores: Of `SHOWN`, and whose case it is.
    """

    truth: tuple[str, ...]
    called: tuple[str, ...]
    probabilities: Mapping[str, float]
    outcome: str
    size_mm: float | None
    dprime: float | None
    scores: Mapping[str, str | float]


def outcome_of(label: Sequence[float], called: Sequence[float], pointing: Sequence[float]) -> str:
    """What became of a case, by its findings; of several the worst counts.

    ``missed``: a finding is not called. ``beside``: one is called, but the peak of its map is not on it. ``false
    alarm``: one is called that is not there. ``hit``: all are called and pointed at. ``called``: all are called, and
    there is no mask to say whether they are pointed at. ``correct normal``: there is none, and none is called. Empty
    where the decision is not known.

    Args:
        label: 1 where the finding is there.
        called: 1 where it is called, NaN where that is not known.
        pointing: 1 where the peak lies on it, NaN without a mask.
    """
    if any(math.isnan(one) for one in called):
        return ""
    findings = list(zip(label, called, pointing, strict=True))
    there = [(call, hit) for truth, call, hit in findings if truth]
    if any(not call for call, _ in there):
        return "missed"
    if any(hit == 0 for _, hit in there):
        return "beside"
    if any(call for truth, call, _ in findings if not truth):
        return "false alarm"
    if not there:
        return "correct normal"
    return "hit" if any(hit == 1 for _, hit in there) else "called"


def case_facts(
    tested: Evaluation, classes: Sequence[str], spacings: Mapping[str, Sequence[float]]
) -> dict[str, CaseFacts]:
    """Facts of the cases of a test.

    Args:
        tested: The run.
        classes: Names of the K maps. In a multiclass task one called "normal" is no finding.
        spacings: Of the cases that are asked for, mm along each axis; empty where there are no millimetres.
    """
    endings = [f"/{name}" for name in classes] if len(classes) > 1 else [""]
    rows = {row["case"]: row for row in tested.cases}
    exclusive = len(classes) > 1 and bool((tested.scores.label.sum(1) == 1).all())
    findings = [k for k, name in enumerate(classes) if not (exclusive and name == NORMAL)]
    lesions: dict[str, list[Row]] = {}
    for lesion in tested.lesions:
        lesions.setdefault(lesion["case"], []).append(lesion)
    found = {}
    for case, spacing in spacings.items():
        row = rows[case]
        label, called, pointing = (numbers(row, name, endings) for name in ("label", "predicted", "pointing"))
        size, dprime = _largest(lesions.get(case, []), spacing)
        scores: dict[str, str | float] = {"subject": row["subject"]} if row.get("subject") else {}
        for name in SHOWN:
            values = zip(endings, numbers(row, name, endings), strict=True)
            scores |= {f"{name}{ending}": float(value) for ending, value in values if not math.isnan(value)}
        found[case] = CaseFacts(
            truth=tuple(classes[k] for k in findings if label[k] == 1),
            called=tuple(classes[k] for k in findings if called[k] == 1),
            probabilities=dict(zip(classes, numbers(row, "probability", endings).tolist(), strict=True)),
            outcome=outcome_of(*([float(values[k]) for k in findings] for values in (label, called, pointing))),
            size_mm=size,
            dprime=dprime,
            scores=scores,
        )
    return found


def _largest(lesions: Sequence[Row], spacing: Sequence[float]) -> tuple[float | None, float | None]:
    """Diameter and d′ of the lesion of most voxels."""
    if not lesions:
        return None, None
    row = max(lesions, key=lambda one: int(one["voxels"]))
    size = float(row["size_mm"]) if row.get("size_mm") else None
    if size is None and spacing:
        content = int(row["voxels"]) * math.prod(spacing)
        size = 2 * math.sqrt(content / math.pi) if len(spacing) == 2 else (6 * content / math.pi) ** (1 / 3)
    return size, float(row["dprime"]) if row.get("dprime") else None


def order_of(outcomes: Mapping[str, str]) -> list[str]:
    """Cases in the order in which they are taken for the browser: an error and another in turn, each by a hash of name.

    So any first N hold as many errors as others, or all there are; which ones depends on nothing but their names.
    """
    errors = by_hash(case for case, outcome in outcomes.items() if outcome in ERRORS)
    others = by_hash(case for case, outcome in outcomes.items() if outcome not in ERRORS)
    return [case for pair in zip_longest(errors, others) for case in pair if case is not None]


def by_hash(cases: Iterable[str]) -> list[str]:
    """Names in an order that nothing but they decide."""
    return sorted(cases, key=lambda case: hashlib.sha256(case.encode()).hexdigest())
