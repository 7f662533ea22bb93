from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from synth import Phantoms, PhantomSpec, SpecError
from synth.dataset import generate
from synth.files import DatasetError, nifti_bytes, read_nifti
from synth.verify import open_set, problems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SITES = {"sites": {"a": {"gain": 0.8}, "b": {}, "c": {"gain": 1.2}}}
CUES: dict[str, dict[str, Any]] = {
    "marker": {"cue": {"kind": "marker"}},
    "ring_artefact": {"cue": {"kind": "ring_artefact", "radius_mm": 6, "width_mm": 3}},
    "site": {"cue": {"kind": "site", "site": "b"}, **SITES},
}
LESION = {"radius_mm": [2.2, 3], "delta": 0.3}


def cued(
    make_spec: Callable[..., PhantomSpec], kind: str, dose: float, dimensions: int = 2, **more: Any
) -> PhantomSpec:
    values = {**CUES[kind], "cue": {**CUES[kind]["cue"], "dose": dose}, "lesions": {"lesion": LESION}, **more}
    wide: dict[int, dict[str, Any]] = {
        2: {"shape": [32, 32], "spacing_mm": [1, 1]},
        3: {"shape": [24, 24, 12], "spacing_mm": [1, 1, 1.5]},
    }
    if kind == "marker":
        values["cue"]["size_mm"] = 5
    return make_spec(dimensions, **{**wide[dimensions], **values})


@pytest.mark.parametrize("kind", CUES)
@pytest.mark.parametrize("dose", [0.0, 0.3, 0.8, 1.0])
def test_cue_agrees_with_the_label_as_often_as_its_dose_says(
    make_spec: Callable[..., PhantomSpec], kind: str, dose: float
) -> None:
    cases, phantoms = 300, Phantoms(cued(make_spec, kind, dose), 0)
    for source, expected in ((phantoms, dose), (phantoms.reversed, 1 - dose)):
        drawn = [source[index] for index in range(cases)]
        agree = np.mean([(case.cue is not None) == bool(case.label) for case in drawn])
        assert agree == pytest.approx(expected, abs=4 * np.sqrt(dose * (1 - dose) / cases) + 1e-9)
        if kind == "site":
            assert all((case.cue is not None) == (case.site == "b") for case in drawn)


@pytest.mark.parametrize("kind", ["marker", "ring_artefact"])
def test_twin_without_its_cue_differs_on_the_cue_alone(
    make_spec: Callable[..., PhantomSpec], dimensions: int, kind: str
) -> None:
    phantoms = Phantoms(cued(make_spec, kind, 1.0, dimensions, prevalence=1), 0)
    case = phantoms[0]
    twin, healthy = case.twin(remove="cue"), case.twin(remove="lesion")
    assert case.cue is not None
    assert twin.cue is None
    assert np.array_equal(twin.masks, case.masks)
    assert (twin.label, twin.lesions) == (case.label, case.lesions)
    change = case.image - twin.image
    largest = np.abs(change).max()
    clear = np.abs(np.abs(change) / largest - 0.5) > 1e-4
    assert np.array_equal(case.cue[clear], (np.abs(change) > largest / 2)[clear])
    assert 0 < case.cue.mean() < 0.4
    # Without its lesion the case keeps its cue.
    assert healthy.cue is not None
    assert np.array_equal(healthy.cue, case.cue)
    assert healthy.label == 0
    assert not (case.image != healthy.image)[np.abs(change) > 0].all()


def test_marker_is_a_letter_in_its_corner(make_spec: Callable[..., PhantomSpec]) -> None:
    spec = cued(make_spec, "marker", 1.0, prevalence=1)
    for corner, (x, y) in {"left_back": (0, 0), "right_front": (1, 1), "left_front": (0, 1)}.items():
        values = spec.to_dict()
        values["cue"]["corner"] = corner
        mask = Phantoms(PhantomSpec.from_dict(values), 0)[0].cue
        assert mask is not None
        places = np.argwhere(mask) / np.array(spec.shape)
        assert (np.rint(places.mean(0)) == (x, y)).all()
        # An L: its left and lower border are full, its upper right is not.
        low, high = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
        letter = mask[low[0] : high[0], low[1] : high[1]]
        assert letter[0].all()
        assert letter[:, 0].all()
        assert not letter[-1, -1]


def test_site_twin_comes_from_another_site(make_spec: Callable[..., PhantomSpec]) -> None:
    case = Phantoms(cued(make_spec, "site", 1.0, prevalence=1), 0)[0]
    twin = case.twin(remove="cue")
    assert case.site == "b"
    assert twin.site in ("a", "c")
    assert case.cue is not None
    assert case.cue.all()
    assert not np.array_equal(case.image, twin.image)


def test_cue_can_be_tied_to_one_of_several_classes(make_spec: Callable[..., PhantomSpec]) -> None:
    lesions = {name: {**LESION, "radius_mm": 2.2} for name in ("a", "b")}
    cue = {"kind": "ring_artefact", "radius_mm": 6, "width_mm": 3, "dose": 1, "tied_to": "b"}
    spec = make_spec(task="multilabel", shape=[40, 40], spacing_mm=[1, 1], lesions=lesions, cue=cue)
    phantoms = Phantoms(spec, 0)
    for index in range(40):
        case = phantoms[index]
        assert (case.cue is not None) == ("b" in case.label_text)


@pytest.mark.parametrize("kind", CUES)
def test_files_hold_sites_cues_and_the_reversed_split(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path, kind: str
) -> None:
    spec = cued(make_spec, kind, 1.0)
    splits = {"train": 12, "test": 4, "reversed": 12}
    for workers in (1, 2):
        generate(tmp_path / str(workers), spec, seed=3, splits=splits, workers=workers)
        assert problems(tmp_path / str(workers)) == []
    first, second = ((tmp_path / str(n) / "cases.csv").read_bytes() for n in (1, 2))
    assert first == second
    with (tmp_path / "1/cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[7:] == (["site", "cue"] if kind == "site" else ["cue"])
    for index, row in enumerate(rows):
        case = (Phantoms(spec, 3).reversed if row["split"] == "reversed" else Phantoms(spec, 3))[index]
        ill, cue = row["label"] != "normal", bool(row["cue"])
        assert (ill == cue) == (row["split"] != "reversed")
        assert np.array_equal(read_nifti(tmp_path / "1" / row["image"])[0][..., 0], case.image)
        if cue:
            assert case.cue is not None
            assert np.array_equal(read_nifti(tmp_path / "1" / row["cue"])[0][..., 0], case.cue)
        assert row.get("site", "") == case.site
    cue_file = next((tmp_path / "1/cues").iterdir())
    cue_file.write_bytes((tmp_path / "1" / rows[0]["image"]).read_bytes())
    assert any(cue_file.name[:11] in problem for problem in problems(tmp_path / "1"))


def test_distractors_occur_alike_in_every_class_and_stay_in_twins(make_spec: Callable[..., PhantomSpec]) -> None:
    other = {"radius_mm": 2.2, "delta": 0.5, "prevalence": 0.4, "count": [1, 2]}
    phantoms = Phantoms(make_spec(shape=[40, 40], spacing_mm=[1, 1], distractors={"spot": other}), 0)
    seen: dict[object, list[bool]] = {0: [], 1: []}
    for index in range(400):
        case = phantoms[index]
        seen[case.label].append(bool(case.distractors))
        assert case.twin().distractors == case.distractors
        assert case.masks.sum() == sum(lesion.voxels for lesion in case.lesions)
        for lesion in case.distractors:
            middle = tuple(np.rint(lesion.centre_voxel).astype(int))
            assert not case.masks[0][middle]
            assert case.image[middle] > 0.85
    for present in seen.values():
        assert np.mean(present) == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / len(present)))


def test_files_hold_the_masks_and_rows_of_distractors(
    make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path
) -> None:
    field: dict[str, Any] = {"shape": [40, 40, 12][:dimensions], "spacing_mm": [1, 1, 1.5][:dimensions]}
    spots = {name: {"radius_mm": 2.2, "cnr": 3, "prevalence": 0.4, "count": [1, 2]} for name in ("spot", "dot")}
    spec = make_spec(dimensions, **field, distractors=spots)
    generate(tmp_path, spec, seed=3, splits={"train": 10, "test": 4})
    assert problems(tmp_path) == []
    found = open_set(tmp_path)
    assert list(found.cases[0])[7:] == ["distractor"]
    for index, row in enumerate(found.cases):
        case, rows = Phantoms(spec, 3)[index], found.distractors.get(row["case"], [])
        assert [own["class"] for own in rows] == [distractor.class_name for distractor in case.distractors]
        assert [float(own["dprime"]) for own in rows] == [distractor.dprime for distractor in case.distractors]
        assert (case.distractor is not None) == bool(row["distractor"]) == bool(rows)
        if case.distractor is not None:
            mask = read_nifti(tmp_path / row["distractor"])[0].reshape(spec.shape)
            assert np.array_equal(mask, case.distractor)
            assert mask.sum() == sum(distractor.voxels for distractor in case.distractors)
            assert not (case.distractor & case.masks.any(axis=0)).any()
    here = next(row for row in found.cases if row["distractor"])
    voxels, affine = read_nifti(tmp_path / here["distractor"])
    voxels[tuple(np.argwhere(voxels)[0])] = 0
    (tmp_path / here["distractor"]).write_bytes(nifti_bytes(voxels, affine))
    (problem,) = problems(tmp_path)
    assert f"{here['case']}: the mask of (distractor) has {voxels.sum()} voxels, its rows in distractors.csv" in problem


def test_a_changed_table_of_distractors_is_found(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    generate(tmp_path, make_spec(distractors={"spot": {**LESION, "radius_mm": 2.2}}), splits={"test": 2})
    table = tmp_path / "distractors.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("spot", "spat"), encoding="utf-8")
    (problem,) = problems(tmp_path)
    assert problem.startswith("cases.csv, lesions.csv, distractors.csv or dataset.json was changed")
    table.unlink()
    with pytest.raises(DatasetError, match=r"distractors\.csv is missing"):
        open_set(tmp_path)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"cue": {"kind": "marker", "dose": 1.2}}, "cue.dose is 1.2 but must lie between 0 and 1"),
        ({"cue": {"kind": "marker", "dose": 1, "size_mm": 30}}, "cue.size_mm is 30.0 but must be at most a quarter"),
        ({"cue": {"kind": "marker", "dose": 1, "tied_to": "x"}}, "cue.tied_to is 'x' but must be a class: lesion"),
        ({"cue": {"kind": "site", "dose": 1, "site": "x"}}, "cue.site is 'x' but must be one of the sites: there are"),
        ({"cue": {"kind": "ring_artefact", "dose": 1, "radius_mm": 15}}, "cue.radius_mm is 15.0 but must leave the"),
        ({"splits": {"train": 4, "reversed": 4}}, "splits.reversed is 4 but must have a cue"),
        ({"distractors": {"a": {**LESION, "prevalence": 2}}}, "distractors.a.prevalence is 2.0 but must lie between"),
        ({"distractors": {"a": {**LESION, "radius_mm": 90}}}, "distractors.a.radius_mm is [90.0, 90.0] but must fit"),
    ],
)
def test_an_impossible_control_is_refused(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(2, **changed)
    assert str(caught.value).startswith(sentence)
