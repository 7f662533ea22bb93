from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from synth import Phantoms, PhantomSpec
from synth.ceiling import Seen, ceiling, drawn, kind_of, scanned, stored
from synth.dataset import generate
from synth.files import DatasetError, nifti_bytes
from synth.observer import Observer
from synth.scores import against_the_rest, area, share
from synth.tables import ceiling_table
from synth.verify import open_set

if TYPE_CHECKING:
    from collections.abc import Callable

SUBTLE = Path(__file__).parents[2] / "configs/synth/subtle.yaml"
HEAD = {"shape": [48, 48], "spacing_mm": [1.0, 1.0], "anatomy": {"kind": "head"}}
SCORES = ("image_auroc", "pointing", "lroc")


def scores(spec: PhantomSpec, cases: int, seed: int = 0, templates: int = 24) -> dict[str, Any]:
    return ceiling(spec, drawn(Phantoms(spec, seed), range(cases)), total=cases, seed=seed, templates=templates)


def values(found: dict[str, Any], name: str = "lesion") -> list[float]:
    return [found["classes"][name][key]["value"] for key in SCORES]


def test_subtle_sits_where_it_tells_methods_apart() -> None:
    found = scores(PhantomSpec.from_yaml(SUBTLE), 300, templates=32)
    auroc, pointing, lroc = values(found)
    assert found["kind"] == "exact"
    assert 0.85 < auroc < 0.97
    assert 0.6 < pointing < 0.9
    assert lroc < auroc


def test_more_dprime_never_lowers_a_score(make_spec: Callable[..., PhantomSpec]) -> None:
    rows = []
    for dprime in (0, 2, 3.5, 5, 8):
        spec = make_spec(lesions={"lesion": {"radius_mm": [2, 3], "dprime": dprime}})
        rows.append(values(scores(spec, 200)))
    assert (np.diff(rows, axis=0) >= 0).all()
    assert rows[0][0] == pytest.approx(0.5, abs=0.12)
    assert rows[-1] == pytest.approx([1, 1, 1], abs=0.02)


def test_scores_depend_on_the_seed_alone(make_spec: Callable[..., PhantomSpec]) -> None:
    spec = make_spec()
    assert scores(spec, 30, seed=1) == scores(spec, 30, seed=1)
    assert values(scores(spec, 30, seed=1)) != values(scores(spec, 30, seed=2))


@pytest.mark.parametrize(
    ("changed", "kind"),
    [({}, "exact"), ({"noise": {"kind": "rician", "sd": 0.03}}, "upper_bound"), (HEAD, "upper_bound")],
    ids=["uniform", "rician", "head"],
)
def test_a_set_on_disk_is_read_as_its_cases_are(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path, changed: dict[str, object], kind: str
) -> None:
    spec = make_spec(**changed)
    generate(tmp_path, spec, seed=3, splits={"train": 2, "test": 12})
    found = open_set(tmp_path)
    afresh = ceiling(spec, drawn(Phantoms(spec, 3), range(2, 14)), total=12, templates=8)
    on_disk = ceiling(spec, stored(found), total=12, templates=8)
    assert on_disk == afresh
    assert on_disk["kind"] == kind
    seen = [case for case in stored(found, 5) if isinstance(case, Seen)]
    assert [case.class_name or "normal" for case in seen] == [row["label"] for row in found.cases[2:7]]
    # What is on disk is read where the reader is exact.
    image = tmp_path / found.cases[2]["image"]
    image.write_bytes(nifti_bytes(np.full((*spec.shape, 1), 0.7, np.float32), Phantoms(spec).grid.affine))
    first = next(stored(found))
    assert isinstance(first, Seen)
    assert (first.residual == first.residual.flat[0]).all() == (kind == "exact")


def test_a_bound_is_not_drawn_from_another_generator(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    generate(tmp_path, make_spec(**HEAD), splits={"test": 2})
    found = open_set(tmp_path)
    older = found._replace(info={**found.info, "generator": "synth 0.0.1"})
    with pytest.raises(DatasetError, match=r"was made by synth 0\.0\.1"):
        next(stored(older))
    with pytest.raises(DatasetError, match="no case in its test split"):
        next(stored(found._replace(cases=[{**row, "split": "train"} for row in found.cases])))


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_the_bound_faces_the_lesion_in_a_field_of_texture_and_noise(
    make_spec: Callable[..., PhantomSpec], kind: str
) -> None:
    lesions = {"lesion": {"radius_mm": 3, "delta": 1.3}}
    spec = make_spec(**HEAD, prevalence=1, noise={"kind": kind, "sd": 0.03}, lesions=lesions)
    phantoms = Phantoms(spec, 1)
    variances = []
    for index, seen in enumerate(scanned(phantoms, range(30))):
        tissue, middles = seen.rooms["lesion"]
        assert seen.mask is not None
        assert tissue is not None
        assert middles is not None
        assert np.array_equal(tissue, middles)
        assert np.array_equal(seen.mask, phantoms[index].masks[0])
        assert np.sum(seen.mask ^ (seen.residual > 0.65)) < 6
        assert tissue[seen.mask].all()
        assert not tissue.all()
        variances.append(seen.residual[:10, :10].var())  # a corner, where a head has no texture
    assert np.sqrt(np.mean(variances)) == pytest.approx(0.05, rel=0.1)


def test_an_anatomy_known_is_worth_more_than_one_that_fills_the_field(make_spec: Callable[..., PhantomSpec]) -> None:
    lesions = {"lesion": {"radius_mm": [2, 3], "dprime": [3, 4]}}
    head = make_spec(**HEAD, lesions=lesions)
    field = replace(head, anatomy=make_spec().anatomy)
    assert sum(values(scores(head, 250))) > sum(values(scores(field, 250)))


def test_scores_equal_those_of_the_readings_one_by_one(make_spec: Callable[..., PhantomSpec]) -> None:
    spec = make_spec(lesions={"lesion": {"radius_mm": [2, 3], "dprime": [2, 4]}})
    phantoms, rng = Phantoms(spec, 6), np.random.default_rng(np.random.SeedSequence(6, spawn_key=(1,)))
    reader = Observer.of(spec.lesions["lesion"], phantoms.texture, phantoms.grid, "lesions", 24, rng)
    ratings: dict[int, list[tuple[float, float, bool]]] = {0: [], 1: []}
    for case in (phantoms[index] for index in range(80)):
        reading = reader.read(case.image - np.float32(0.6))
        peak, hit = float(reading.inside.max()), bool(case.masks[0].flat[reading.inside.argmax()])
        ratings[int(bool(case.label))].append((reading.log_ratio, reading.log_ratio + np.log(peak), hit))
    pairs = [(high, low) for high in ratings[1] for low in ratings[0]]
    auroc = np.mean([high[0] > low[0] for high, low in pairs])
    lroc = np.mean([high[1] > low[1] and high[2] for high, low in pairs])
    pointing = np.mean([hit for _, _, hit in ratings[1]])
    assert values(scores(spec, 80, seed=6)) == pytest.approx([auroc, pointing, lroc], abs=1e-9)


def test_areas_and_odds_equal_those_by_hand() -> None:
    rng = np.random.default_rng(0)
    ratings, present = np.array([3.0, 1.0, 2.0, 2.0, 0.0]), np.array([True, True, True, False, False])
    image, local = (area(ratings, present, np.array(credit), rng) for credit in ([1.0, 1, 1], [1.0, 1, 0]))
    assert image is not None
    assert local is not None
    assert image.value == pytest.approx((2 + 1 + 1.5) / 6)
    assert local.value == pytest.approx((2 + 1) / 6)
    assert 0 <= image.low < image.value < image.high <= 1
    assert image.n == 5
    assert area(ratings, np.ones(5, bool), np.ones(5), rng) is None

    ratios = np.array([[1.0, -2.0], [0.5, 3.0]])
    likelihoods = np.exp(ratios)
    first = likelihoods[:, 0] * 0.3 / (0.4 + 0.3 * likelihoods[:, 1])
    assert np.exp(against_the_rest(ratios, 0.6)[:, 0]) * 0.3 == pytest.approx(first)
    assert against_the_rest(ratios, 1.0)[:, 0] == pytest.approx(ratios[:, 0] - ratios[:, 1] - np.log(0.5))
    assert against_the_rest(ratios[:, :1], 1.0) == pytest.approx(ratios[:, :1])


def test_the_interval_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(1)
    present = np.arange(200) < 100
    covered = 0
    for _ in range(60):
        found = area(rng.standard_normal(200) + present, present, np.ones(100), rng)
        assert found is not None
        covered += found.low < 0.7602 < found.high
    assert covered >= 52


def test_no_interval_is_a_point(make_spec: Callable[..., PhantomSpec]) -> None:
    rng, present = np.random.default_rng(0), np.arange(80) < 20
    every, none, some = (share(np.arange(60) < hits, rng) for hits in (60, 0, 40))
    assert every is not None
    assert none is not None
    assert some is not None
    assert (every.value, every.low, every.high) == pytest.approx((1, 1 / (1 + 1.96**2 / 60), 1), rel=1e-4)  # Wilson
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 1 - every.low))
    assert 0.5 < some.low < 40 / 60 < some.high < 0.8
    whole = area(present + rng.random(80) / 2, present, np.ones(20), rng)
    assert whole is not None
    assert whole.value == 1
    assert np.isnan([whole.low, whole.high]).all()
    assert whole.plain() == {"value": 1, "low": None, "high": None, "n": 80}
    lesion = {"radius_mm": 3, "dprime": 40}
    clear = scores(make_spec(lesions={"lesion": lesion}), 20, templates=4)
    assert clear["classes"]["lesion"]["image_auroc"] == {"value": 1, "low": None, "high": None, "n": 20}
    with StringIO() as file:
        Console(file=file, width=100).print(ceiling_table(clear))
        assert "1.000" in file.getvalue()
        assert "nan" not in file.getvalue()


def test_two_classes_are_told_apart_and_each_scoredagainst_the_rest(make_spec: Callable[..., PhantomSpec]) -> None:
    lesions = {
        "bright": {"radius_mm": [2, 3], "dprime": 7},
        "dark": {"radius_mm": [2, 3], "dprime": 7, "polarity": "dark"},
    }
    for prevalence in (0.7, 1):
        found = scores(make_spec(task="multiclass", lesions=lesions, prevalence=prevalence), 60)
        assert list(found["classes"]) == ["bright", "dark"]
        for name in lesions:
            assert values(found, name) == pytest.approx([1, 1, 1], abs=0.04)
    normal = scores(make_spec(task="multiclass", lesions=lesions, prevalence=0), 5)
    assert normal["classes"]["dark"] == dict.fromkeys(SCORES)


LESION = {"radius_mm": 3, "cnr": 1}
SITES = {"north": {}, "south": {"gain": 0.9}}


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({}, "exact"),
        ({"texture": {"power_law": {"sd": 0.04, "beta": 2}}}, "exact"),
        (
            {
                "lesions": {
                    "lesion": {**LESION, "edge_mm": 0.5, "family": {"kind": "ring", "rim": 0.5}, "depth_mm": [4, 9]}
                }
            },
            "exact",
        ),
        ({"noise": {"kind": "rician"}}, "upper_bound"),
        ({"anatomy": {"kind": "chest"}}, "upper_bound"),
        ({"anatomy": {"kind": "midbrain"}}, "upper_bound"),
        ({"task": "multiclass", "lesions": {"a": LESION, "b": LESION}}, "upper_bound"),
    ],
)
def test_exact_only_where_nothing_but_one_lesion_in_gaussian_noise_is_unknown(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, object], kind: str
) -> None:
    assert kind_of(make_spec(**changed)) == kind


CRESCENTS = {"polarity": "dark", "family": {"kind": "structure_loss", "structure": "crescents"}}


@pytest.mark.parametrize(
    "changed",
    [
        {"lesions": {"lesion": {**LESION, "count": [1, 2]}}},
        {"task": "multilabel"},
        {"lesions": {"lesion": {**LESION, "family": {"kind": "texture", "length_mm": 1}}}},
        {"anatomy": {"kind": "midbrain"}, "lesions": {"lesion": {**LESION, **CRESCENTS}}},
        {"lesions": {"lesion": {**LESION, "family": "spiculated"}}},
        {"lesions": {"lesion": {**LESION, "edge_mm": 0.7, "family": {"kind": "cluster", "focus_mm": 0.8}}}},
        {"texture": {"lumpy": {"sd": 0.1, "length_mm": 2}}},
        {"texture": {"clustered_lumpy": {"sd": 0.1}}},
        {"noise": {"kind": "poisson"}},
        {"acquisition": {"blur_mm": 1}},
        {"sites": SITES},
        {"cue": {"kind": "marker", "dose": 0.9}},
        {"distractors": {"spot": LESION}},
    ],
    ids=str,
)
def test_what_no_scan_covers_is_read_by_one_who_is_told(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, object]
) -> None:
    assert kind_of(make_spec(**changed)) == "known_exactly"


@pytest.mark.parametrize(
    "family",
    [
        "ellipsoid",
        "gaussian",
        {"kind": "ring", "rim": 0.5, "core": 0.3},
    ],
    ids=str,
)
def test_every_family_it_reads_is_found_where_it_is_clear(
    make_spec: Callable[..., PhantomSpec], family: object
) -> None:
    lesion = {"radius_mm": 3, "edge_mm": 0.7, "dprime": 12, "family": family}
    spec = make_spec(shape=[40, 40], spacing_mm=[1, 1], lesions={"lesion": lesion})
    assert values(scores(spec, 60, templates=32)) == pytest.approx([1, 1, 1], abs=0.05)


def test_lesions_are_sought_where_their_class_may_lie(make_spec: Callable[..., PhantomSpec]) -> None:
    lesions = {
        "left": {"radius_mm": 4, "dprime": 7, "tissue": "lungs"},
        "deep": {"radius_mm": 4, "dprime": 7, "depth_mm": [10, 30]},
    }
    changed = {"shape": [64, 64], "spacing_mm": [4.0, 4.0], "anatomy": {"kind": "chest"}, "prevalence": 1}
    spec = make_spec(task="multiclass", lesions=lesions, **changed)
    phantoms, found = Phantoms(spec, 2), set()
    for index, seen in enumerate(scanned(phantoms, range(8))):
        background = phantoms.background(index)
        lungs, anywhere = seen.rooms["left"], seen.rooms["deep"]
        assert lungs[0] is not None
        assert anywhere[0] is not None
        assert anywhere[1] is not None
        assert np.array_equal(lungs[0], background.region("lungs"))
        assert np.array_equal(anywhere[0], background.tissue)
        assert 0 < anywhere[1].sum() < background.tissue.sum()
        (lesion,) = phantoms[index].lesions
        middle = tuple(np.floor(np.array(lesion.centre_voxel) + 0.5).astype(int))
        middles = seen.rooms[lesion.class_name][1]
        assert middles is not None
        assert middles[middle]
        found.add(lesion.class_name)
    assert found == {"left", "deep"}
