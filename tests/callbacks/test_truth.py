"""Known lesions and the observer's readings meet the scores they belong to; extremes are those of the scores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hrcam_lightning.callbacks.curves import OBSERVER, Point, curves_of, draw_curves
from hrcam_lightning.callbacks.extremes import extremes, fetch
from hrcam_lightning.callbacks.truth import SeenCase, match_lesions, observer_scores
from hrcam_lightning.data import Ceiling, KnownLesion
from hrcam_lightning.data.ceiling import Reading
from hrcam_lightning.metrics import CaseScores, ScoreTable, case_number
from hrcam_lightning.metrics.efficiency import ObserverScores

if TYPE_CHECKING:
    from hrcam_lightning.data.module import Sample

AFFINE = np.array([[0, -2.0, 0, 10], [3.0, 0, 0, -5], [0, 0, 1, 0], [0, 0, 0, 1]])


def _table(places: dict[str, list[tuple[int, ...]]], shape: tuple[int, ...] = (12, 12), classes: int = 1) -> ScoreTable:
    """Cases with lesions of one voxel, all in the last class; the map is 1 on the first of each case."""
    maps = torch.zeros(len(places), classes, *shape)
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    for row, lesions in enumerate(places.values()):
        for number, place in enumerate(lesions):
            masks[(row, -1, *place)] = True
            maps[(row, -1, *place)] = 0.0 if number else 1.0
    scores = CaseScores()
    labels = masks.flatten(2).any(-1).long()
    scores.update([*places], labels, torch.rand(labels.shape), maps, masks)
    return scores.compute()


def _cases(names: list[str], affine: np.ndarray | None = None) -> dict[int, SeenCase]:
    return {case_number(name): SeenCase(name, affine, place) for place, name in enumerate(names)}


def _dprimes(found: list[KnownLesion | None], table: ScoreTable, cases: dict[int, SeenCase]) -> dict[str, list[float]]:
    by_case: dict[str, list[float]] = {}
    for number, one in zip(table.lesion_case, found, strict=True):
        by_case.setdefault(cases[int(number)].name, []).append(one.dprime if one else math.nan)
    return by_case


def test_lesions_are_matched_by_case_class_and_centre() -> None:
    table, cases = _table({"a": [(1, 1), (8, 9)], "b": [(5, 5)], "c": []}, classes=2), _cases([*"abc"])
    known = {
        "a": [
            KnownLesion("two", None, (8.2, 9.1), dprime=1),
            KnownLesion("two", None, (1, 1.4), dprime=2),
            KnownLesion("one", None, (1, 1), dprime=3),
        ],
        "b": [KnownLesion("", None, (5, 5), dprime=4)],  # of which class, of two?
    }
    found = _dprimes(match_lesions(table, cases, known, ["one", "two"]), table, cases)
    assert found == {"a": [2, 1], "b": [pytest.approx(math.nan, nan_ok=True)]}
    single = _table({"b": [(5, 5)]})
    assert _dprimes(match_lesions(single, cases, known, ["one"]), single, cases) == {"b": [4]}


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 4)])
def test_with_an_affine_millimetres_count_and_a_partner_is_no_farther_than_a_diameter(shape: tuple[int, ...]) -> None:
    voxel = np.array([4, 7, 2][: len(shape)])
    table, cases = _table({"a": [tuple(voxel.tolist())]}, shape), _cases(["a"], AFFINE)
    place = (AFFINE[:3, :3] @ np.pad(voxel, (0, 3 - len(voxel))) + AFFINE[:3, 3])[: len(shape)]
    assert place[:2].tolist() == [-4, 7]  # axes swapped, scaled and turned
    far = tuple(place + [0, 2.0, 0][: len(shape)])
    for reach, expected in ((2.1, 1.0), (1.9, math.nan)):
        known = {"a": [KnownLesion("mass", far, tuple(voxel + 5.0), size_mm=reach, dprime=1)]}
        (found,) = _dprimes(match_lesions(table, cases, known, ["mass"]), table, cases)["a"]
        assert found == pytest.approx(expected, nan_ok=True)
    # A picture has no millimetres: its voxels count.
    known = {"a": [KnownLesion("mass", far, tuple(voxel + 1.0), size_mm=0.1, dprime=5)]}
    assert _dprimes(match_lesions(table, _cases(["a"]), known, ["mass"]), table, cases) == {"a": [5]}
    assert match_lesions(table, _cases(["a"]), {"a": [KnownLesion("mass", far, None)]}, ["mass"]) == [None]


def test_readings_come_in_the_order_of_the_scores() -> None:
    names = [*"abcdef"]
    table, cases = _table({name: [(1, 1)] for name in names}, classes=2), _cases(names)
    readings = {(name, "mass"): Reading(n, n + 0.5, n % 2) for n, name in enumerate(names)}
    found = observer_scores(table, cases, Ceiling("exact", readings), ["normal", "mass"])
    assert found is not None
    order = [names.index(cases[int(number)].name) for number in table.case]
    assert found.rating[:, 1].tolist() == order
    assert found.located[:, 1].tolist() == [n + 0.5 for n in order]
    assert found.hit[:, 1].tolist() == [n % 2 for n in order]
    assert np.isnan(found.rating[:, 0]).all()
    assert observer_scores(table, cases, None, ["normal", "mass"]) is None
    assert observer_scores(table, cases, Ceiling("exact", readings), ["normal", "node"]) is None
    del readings["d", "mass"]
    with pytest.warns(UserWarning, match="has not read every case that is scored"):
        assert observer_scores(table, cases, Ceiling("exact", readings), ["normal", "mass"]) is None


def _ranked(scores: dict[str, float]) -> dict[str, list[str]]:
    table = _table({name: [(1, 1)] for name in scores})
    cases = _cases([*scores])
    column = np.array([[scores[cases[int(number)].name]] for number in table.case])
    groups: dict[str, list[str]] = {}
    for one in extremes(replace(table, pixel_ap=column), cases):
        groups.setdefault(one.group, []).append(one.case)
        assert one.score == scores[one.case]
        assert one.place == [*scores].index(one.case)
        assert one.number == 0
    return groups


def test_best_median_and_worst_are_those_by_pixel_ap() -> None:
    scores = {f"{n:02d}": n / 20 for n in range(15)}
    assert _ranked(scores) == {"best": ["14", "13", "12"], "median": ["08", "07", "06"], "worst": ["02", "01", "00"]}
    # Ties go by name, wherever the case stands.
    tied = dict.fromkeys("ihgfedcba", 0.5)
    assert _ranked(tied) == {"best": [*"abc"], "median": [*"def"], "worst": [*"ghi"]}


def test_a_few_cases_are_shown_once_each_and_those_without_a_mask_never() -> None:
    assert _ranked({"a": 0.1, "b": 0.9, "c": 0.5, "d": math.nan}) == {"best": ["b"], "median": ["c"], "worst": ["a"]}
    assert _ranked({"a": 0.1, "b": 0.9}) == {"best": ["b"], "worst": ["a"]}
    assert _ranked({"a": 0.1}) == {"best": ["a"]}
    assert _ranked({"a": math.nan}) == {}


def test_cases_are_fetched_by_place_or_looked_for() -> None:
    class Few:
        asked: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            self.asked.append(index)
            return {"image": torch.full((1, 2, 2), float(index)), "case": "abc"[index], "affine": None, "frame": None}

    table, cases = _table({"b": [(1, 1)]}), {case_number("b"): SeenCase("b", None, 1)}
    (ranked,) = extremes(table, cases)
    for place, asked in ((1, [1]), (2, [2, 0, 1]), (9, [0, 1])):
        Few.asked = []
        (batch,) = fetch(Few(), [ranked._replace(place=place)])
        assert batch["case"] == ["b"]
        assert (batch["image"] == 1).all()
        assert Few.asked == asked


def test_curves_hold_what_is_known_and_pointing_only_cases_with_one_lesion() -> None:
    table, cases = _table({"a": [(1, 1), (8, 8)], "b": [(5, 5)], "c": [(3, 3)], "d": []}), _cases([*"abcd"])
    known = {name: [KnownLesion("m", None, (5, 5), dprime=5.2)] for name in "abc"}
    lesions = match_lesions(table, cases, known, ["m"])
    observer = ObserverScores(table.label, table.label, np.where(table.case[:, None] == case_number("b"), 1.0, 0.0))
    curves = curves_of({"model": table}, {"model": [0.5]}, lesions, observer)
    assert "recall_by_size_mm" not in curves  # nobody knows millimetres
    (voxels,) = curves["recall_by_voxels"]["model"]
    assert (voxels.x, voxels.y, voxels.n) == (1, 0.75, 4)  # the second lesion of "a" is below the threshold
    (recall,) = curves["recall_by_dprime"]["model"]
    assert recall.n == 3
    assert recall.y == pytest.approx(2 / 3)  # the partner in "a" is its second lesion, the nearer
    (pointing,) = curves["pointing_by_dprime"]["model"]
    assert (pointing.y, pointing.n) == (1, 2)
    (ideal,) = curves["pointing_by_dprime"][OBSERVER]
    assert (ideal.y, ideal.n) == (0.5, 2)
    assert curves["pointing_by_voxels"] == {
        "model": [pointing._replace(x=1, x_to=1.1)],
        OBSERVER: [ideal._replace(x=1, x_to=1.1)],
    }
    assert curves["lroc"][OBSERVER][-1].y == 1 / 3
    assert set(curves["froc"]) == {"model"}
    assert "froc_by_parts" not in curves  # no threshold
    nothing = curves_of({"model": table}, {}, [None] * len(lesions), None)
    assert "recall_by_dprime" not in nothing
    assert "recall_by_voxels" not in nothing


def test_floors_are_grey_and_dashed_and_the_ideal_observer_black() -> None:
    line = [Point(x, math.nan, 0.5) for x in (0.0, 1.0)]
    bins = [Point(3, 4, 0.5, 0.2, 0.7, 9), Point(4, 5, 0.8, 0.5, 0.9, 12)]
    own = {"model": line, "random": line, "gradcam": line, OBSERVER: line}
    figure = draw_curves({"lroc": own, "recall_by_dprime": dict.fromkeys(own, bins)}, ["random"], {"model": 0.25})
    first, second, empty = figure.axes
    colours = {name: one.get_color() for one in first.lines if not (name := str(one.get_label())).startswith("_")}
    assert set(colours) == {"model", "random (floor)", "gradcam", OBSERVER}
    assert len(set(colours.values())) == 4
    floor = next(one for one in first.lines if one.get_label() == "random (floor)")
    assert floor.get_linestyle() == "--"
    assert floor.get_color() == "#8c8c8c"
    assert [text.get_text() for text in first.texts] == ["model: area 0.250"]
    assert [text.get_text() for text in second.texts] == ["9", "12"]
    assert second.get_xlim() == (3, 5)
    assert not empty.axison
