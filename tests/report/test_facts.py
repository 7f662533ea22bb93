"""What is told of a case: outcome, size, d′; and which cases are shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning.report.evaluation import Evaluation, Row
from hrcam_lightning.report.facts import ERRORS, case_facts, order_of, outcome_of
from tests.compare.tables import run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

NAN = math.nan


def _tested(cases: Sequence[Row], lesions: Sequence[Row] = (), labels: Sequence[Sequence[int]] = ((1,),)) -> Evaluation:
    scores = run_of([0] * len(cases), [0.5] * len(cases))
    object.__setattr__(scores, "label", np.array(labels, float))
    return Evaluation(Path("run"), {}, scores, {}, {}, list(cases), list(lesions), ())


def test_every_outcome_of_one_finding() -> None:
    assert outcome_of([1], [1], [1]) == "hit"
    assert outcome_of([1], [1], [0]) == "beside"
    assert outcome_of([1], [1], [NAN]) == "called"  # no mask to say
    assert outcome_of([1], [0], [1]) == "missed"  # wherever its map points
    assert outcome_of([0], [1], [NAN]) == "false alarm"
    assert outcome_of([0], [0], [NAN]) == "correct normal"
    assert outcome_of([1], [NAN], [1]) == ""


def test_of_several_findings_the_worst_counts() -> None:
    assert outcome_of([1, 1], [1, 0], [0, 1]) == "missed"
    assert outcome_of([1, 0], [1, 1], [0, NAN]) == "beside"
    assert outcome_of([1, 0], [1, 1], [1, NAN]) == "false alarm"
    assert outcome_of([1, 1], [1, 1], [1, NAN]) == "hit"


def test_a_case_of_several_classes() -> None:
    row = {"case": "a", "subject": "anna", "pixel_ap/mass": "0.25", "pixel_ap/nodule": "", "pixel_ap/normal": "0.5"}
    row |= {f"{name}/{label}": value for name, values in {"label": "100", "predicted": "001", "pointing": "1"}.items()
            for label, value in zip(("mass", "nodule", "normal"), values, strict=False)}  # fmt: skip
    row |= {"probability/mass": "0.1", "probability/nodule": "0.2", "probability/normal": "0.7"}
    classes = ["mass", "nodule", "normal"]
    exclusive = case_facts(_tested([row], labels=[[1, 0, 0]]), classes, {"a": (1.0, 1.0)})["a"]
    assert (exclusive.truth, exclusive.called, exclusive.outcome) == (("mass",), (), "missed")
    assert exclusive.probabilities == {"mass": 0.1, "nodule": 0.2, "normal": 0.7}
    assert exclusive.scores == {"subject": "anna", "pixel_ap/mass": 0.25, "pixel_ap/normal": 0.5}
    # Where several may be there at once, a class of that name is a finding like any other.
    several = case_facts(_tested([row], labels=[[1, 1, 0]]), classes, {"a": (1.0, 1.0)})["a"]
    assert several.called == ("normal",)


@pytest.mark.parametrize(
    ("spacing", "voxels", "size"),
    [((2.0, 0.5), "100", 2 * math.sqrt(100 / math.pi)), ((1.0, 1.0, 2.0), "36", (6 * 72 / math.pi) ** (1 / 3))],
)
def test_size_is_the_diameter_of_the_largest_lesion(spacing: tuple[float, ...], voxels: str, size: float) -> None:
    case = {"case": "a", "label": "1", "predicted": "1", "pointing": "1", "probability": "0.9"}
    small = {"case": "a", "voxels": "3", "size_mm": "", "dprime": "9"}
    large = {"case": "a", "voxels": voxels, "size_mm": "", "dprime": "4.5"}
    found = case_facts(_tested([case], [small, large]), ["lesion"], {"a": spacing})["a"]
    assert found.size_mm == pytest.approx(size)
    assert found.dprime == 4.5
    known = case_facts(_tested([case], [small, large | {"size_mm": "7.5"}]), ["lesion"], {"a": spacing})["a"]
    assert known.size_mm == 7.5
    picture = case_facts(_tested([case], [{"case": "a", "voxels": voxels}]), ["lesion"], {"a": ()})["a"]
    assert (picture.size_mm, picture.dprime) == (None, None)
    assert case_facts(_tested([case]), ["lesion"], {"a": spacing})["a"].size_mm is None


def test_any_first_cases_are_half_errors_and_depend_on_names_alone() -> None:
    kinds = [*ERRORS, *["hit"] * 5, *["correct normal"] * 12]
    outcomes = {f"case_{number}": kind for number, kind in enumerate(kinds)}
    order = order_of(outcomes)
    assert sorted(order) == sorted(outcomes)
    assert [outcomes[case] in ERRORS for case in order[:6]] == [True, False] * 3
    assert order == order_of(dict(sorted(outcomes.items(), reverse=True)))
    assert order[7:] != sorted(order[7:])  # not simply the first by name
    fewer = order_of({case: kind for case, kind in outcomes.items() if case != order[-1]})
    assert fewer == order[:-1]
