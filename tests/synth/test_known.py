from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from synth import Phantoms, PhantomSpec
from synth.acquisition import pass_through, transfer
from synth.ceiling import ceiling, drawn, stored
from synth.dataset import generate
from synth.known import known, shown_products
from synth.scores import Estimate, area
from synth.tables import ceiling_table
from synth.verify import open_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from synth.grid import Array64

NOTHING = {"radius_mm": 2.5, "delta": 0}
CHEST = {"shape": [24, 24], "spacing_mm": [14.0, 14.0], "anatomy": {"kind": "chest"}}
MIDBRAIN = {"shape": [24, 24], "spacing_mm": [2.4, 2.4], "anatomy": {"kind": "midbrain"}}
FADING = {"tissue": "crescents", "polarity": "dark", "family": {"kind": "structure_loss", "structure": "crescents"}}


def auroc(spec: PhantomSpec, name: str, cases: int = 600, seed: int = 0) -> Estimate:
    read = list(known(Phantoms(spec, seed), range(cases)))
    present = np.array([name in one.present for one in read])
    ratings = np.array([one.ratios[list(spec.lesions).index(name)] for one in read])
    found = area(ratings, present, np.ones(present.sum()), np.random.default_rng(0))
    assert found is not None
    return found


def agrees(found: Estimate, expected: float) -> bool:
    if np.isnan(found.low):  # where no resample differs
        return found.value == expected
    return found.low - (found.high - found.low) / 2 <= expected <= found.high + (found.high - found.low) / 2


def whole(phantoms: Phantoms, index: int, name: str) -> tuple[Array64, list[float]]:
    """Return the change of a class in the object, and the d′ of its lesions one by one."""
    parts = phantoms.parts(index, (name,))
    change, single = np.zeros(phantoms.spec.shape), []
    for one in parts.lesions:
        lesion = phantoms.measure(one, phantoms.site(parts, cued=False))
        change[one.placed.box] += lesion.delta * one.placed.profile
        single.append(lesion.dprime)
    return change, single


def products(phantoms: Phantoms, index: int, names: Sequence[str]) -> Array64:
    worlds = [phantoms.parts(index, (name,)) for name in names]
    site = phantoms.site(worlds[0], cued=False)
    changes = [[(phantoms.measure(one, site), one.placed) for one in parts.lesions] for parts in worlds]
    return shown_products(phantoms, worlds[0], changes, cued=False)


def dense(phantoms: Phantoms, index: int, names: Sequence[str]) -> Array64:
    """Return the products from the covariance matrix of the very image: texture where it lies, bias, scanner."""
    spec, parts = phantoms.spec, phantoms.parts(index, (names[0],))
    site, size = phantoms.site(parts, cued=False), int(np.prod(phantoms.spec.shape))
    scanner, bias = spec.scanners[site], phantoms.bias(parts, site)
    passed = transfer(scanner, phantoms.grid)
    units = np.eye(size, dtype=np.float32).reshape(size, *spec.shape)
    scan = np.array([pass_through(unit, passed).ravel() for unit in units], np.float64).T
    scan *= 1 if bias is None else bias.ravel()
    axes = range(len(spec.shape))
    filtered = np.fft.rfftn(units, axes=[axis + 1 for axis in axes]) * phantoms.textures[site].power
    covariance = np.fft.irfftn(filtered, s=spec.shape, axes=[axis + 1 for axis in axes]).reshape(size, size)
    weight = parts.background.texture.ravel()
    seen = scan @ (weight[:, np.newaxis] * covariance * weight) @ scan.T + spec.noise.sd**2 * np.eye(size)
    changes = np.array([scan @ whole(phantoms, index, name)[0].ravel() for name in names])
    result: Array64 = changes @ np.linalg.solve(seen, changes.T)
    return result


@pytest.mark.parametrize("asked", [1.0, 2.0])
def test_one_lesion_reaches_the_auroc_of_its_dprime(
    make_spec: Callable[..., PhantomSpec], dimensions: int, asked: float
) -> None:
    spec = make_spec(dimensions, lesions={"lesion": {"radius_mm": 2.5, "dprime": asked}})
    assert agrees(auroc(spec, "lesion", 1000), stats.norm.cdf(asked / np.sqrt(2)))


@pytest.mark.parametrize("scanner", [{}, {"blur_mm": 0.8, "gain": 0.9}, {"ghost": 0.3, "kspace": 0.6}], ids=str)
def test_several_lesions_count_as_their_sum_in_the_covariance_of_what_is_seen(
    make_spec: Callable[..., PhantomSpec], scanner: dict[str, float]
) -> None:
    two = {"radius_mm": [1.6, 2], "delta": [0.1, 0.2], "count": [2, 3]}
    lesions = {"a": two, "b": {**two, "polarity": "dark", "edge_mm": 0.5}}
    spec = make_spec(
        task="multiclass", shape=[16, 14], spacing_mm=[1, 1], lesions=lesions, acquisition=scanner,
        texture={"components": [{"sd": 0.06, "length_mm": 3}]},
    )  # fmt: skip
    phantoms = Phantoms(spec, 0)
    for index in range(3):
        found = products(phantoms, index, ["a", "b"])
        assert found == pytest.approx(dense(phantoms, index, ["a", "b"]), rel=1e-4)
        _, single = whole(phantoms, index, "a")
        assert abs(found[0, 0] / np.sum(np.square(single)) - 1) > 0.003  # neighbours share their texture


@pytest.mark.parametrize(
    ("changed", "lesion"),
    [
        (CHEST, {"radius_mm": 24, "edge_mm": 7, "delta": 0.1}),
        ({**CHEST, "acquisition": {"blur_mm": 16}}, {"radius_mm": 24, "edge_mm": 7, "delta": 0.1}),
        ({**CHEST, "acquisition": {"ghost": 0.5, "bias": 0.2, "gain": 0.8}}, {"radius_mm": 24, "delta": 0.1}),
        (MIDBRAIN, {"radius_mm": 5, "delta": 0.05, "count": 2, **FADING}),
        ({**MIDBRAIN, "noise": {"kind": "rician", "sd": 0.03}}, {"radius_mm": 5, "delta": 0.05, **FADING}),
    ],
    ids=["chest", "blur", "ghost and bias", "fading", "rician"],
)
def test_in_an_anatomy_and_behind_a_scanner_it_sees_more_than_the_image_shows(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, object], lesion: dict[str, object]
) -> None:
    length = 20 if changed["anatomy"] == {"kind": "chest"} else 4
    texture = {"components": [{"sd": 0.05, "length_mm": length}]}
    phantoms = Phantoms(make_spec(**{"texture": texture, **changed}, lesions={"lesion": lesion}), 0)
    for index in range(4):
        bound, shown = products(phantoms, index, ["lesion"])[0, 0], dense(phantoms, index, ["lesion"])[0, 0]
        assert shown < bound < 6 * shown


def test_no_scan_of_places_beats_it(make_spec: Callable[..., PhantomSpec]) -> None:
    spec = make_spec(lesions={"lesion": {"radius_mm": [2, 3], "dprime": [2, 3.5]}})
    scanned = ceiling(spec, drawn(Phantoms(spec, 0), range(300)), total=300, templates=16)
    assert scanned["kind"] == "exact"
    assert auroc(spec, "lesion", 300).low > scanned["classes"]["lesion"]["image_auroc"]["high"]


def test_each_finding_of_several_is_bound_alone(make_spec: Callable[..., PhantomSpec]) -> None:
    asked = {"faint": 0.7, "clear": 2.2}
    lesions = {name: {"radius_mm": 2.2, "dprime": dprime} for name, dprime in asked.items()}
    spec = make_spec(task="multilabel", lesions=lesions, shape=[40, 40], spacing_mm=[1, 1])
    for name, dprime in asked.items():
        assert agrees(auroc(spec, name, 400), stats.norm.cdf(dprime / np.sqrt(2)))


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_of_several_classes_one_is_told_from_the_other_by_their_difference(
    make_spec: Callable[..., PhantomSpec], noise: str
) -> None:
    # Equal but for their sign, and at the same place: their difference has twice the d′ of each.
    lesions = {
        name: {"radius_mm": 2.5, "dprime": 0.8, "polarity": name, "count": [1, 2]} for name in ("bright", "dark")
    }
    spec = make_spec(task="multiclass", prevalence=1, lesions=lesions, noise={"kind": noise, "sd": 0.01}, texture={})
    found = ceiling(spec, drawn(Phantoms(spec, 0), range(600)), total=600)
    assert found["kind"] == "known_exactly"
    assert found["templates"] is None
    assert sum(found["cases_with"].values()) == 600
    one, two = (stats.norm.cdf(2 * 0.8 * scale / np.sqrt(2)) for scale in (1, np.sqrt(2)))
    for own in found["classes"].values():
        assert one < own["image_auroc"]["high"]
        assert own["image_auroc"]["low"] < two
        assert (own["pointing"], own["lroc"]) == (None, None)


@pytest.mark.parametrize("asked", [1.0, 2.0])
def test_counts_of_known_means_reach_the_auroc_of_their_dprime(
    make_spec: Callable[..., PhantomSpec], asked: float
) -> None:
    lesions = {"lesion": {"radius_mm": 2.5, "dprime": asked}}
    bare = make_spec(lesions=lesions, noise={"kind": "poisson", "sd": 0.01}, texture={})
    assert agrees(auroc(bare, "lesion", 1000), stats.norm.cdf(asked / np.sqrt(2)))
    # Where there is texture, it is told: it can only be more.
    textured = make_spec(lesions=lesions, noise={"kind": "poisson", "sd": 0.03})
    found = auroc(textured, "lesion")
    assert np.fmax(found.value, found.high) > stats.norm.cdf(asked / np.sqrt(2))


def test_lumps_are_told_and_gaussian_texture_is_not(make_spec: Callable[..., PhantomSpec]) -> None:
    gaussian = {"components": [{"sd": 0.04, "length_mm": 2}]}
    lesions = {"lesion": {"radius_mm": 3, "delta": 0.1}}
    for texture in ({}, gaussian):
        lumpy = make_spec(lesions=lesions, texture={**texture, "lumpy": {"sd": 0.05, "length_mm": 2}})
        found = products(Phantoms(lumpy), 0, ["lesion"])
        without = products(Phantoms(make_spec(lesions=lesions, texture=texture)), 0, ["lesion"])
        assert found == pytest.approx(without)
        if not texture:
            change, _ = whole(Phantoms(lumpy), 0, "lesion")
            assert found[0, 0] == pytest.approx((change**2).sum() / 0.03**2, rel=1e-5)


@pytest.mark.parametrize(("dose", "expected"), [(0.5, 0.5), (0.9, 0.9), (0.2, 0.8), (1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("kind", ["marker", "site"])
def test_the_cue_is_read_too(make_spec: Callable[..., PhantomSpec], kind: str, dose: float, expected: float) -> None:
    cue: dict[str, Any] = {"kind": kind, "dose": dose} | ({"size_mm": 6} if kind == "marker" else {"site": "b"})
    spec = make_spec(lesions={"lesion": NOTHING}, cue=cue, sites={"a": {}, "b": {"blur_mm": 1}})
    assert agrees(auroc(spec, "lesion", 300), expected)


def test_a_cue_tells_of_its_own_class_alone(make_spec: Callable[..., PhantomSpec]) -> None:
    cue = {"kind": "marker", "dose": 1, "size_mm": 6, "tied_to": "b"}
    spec = make_spec(task="multilabel", lesions={"a": NOTHING, "b": NOTHING}, cue=cue)
    assert auroc(spec, "b", 100).value == 1
    assert auroc(spec, "a", 100).value == 0.5


def test_a_set_on_disk_is_read_as_its_cases_are(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    lesions = {name: {"radius_mm": 2, "dprime": 1, "count": [1, 2]} for name in ("a", "b")}
    spec = make_spec(task="multilabel", lesions=lesions, shape=[48, 48], spacing_mm=[1, 1])
    generate(tmp_path, spec, seed=3, splits={"train": 2, "test": 12})
    found = open_set(tmp_path)
    read = list(stored(found))
    assert read == list(drawn(Phantoms(spec, 3), range(2, 14)))
    assert ["|".join(case.present) or "normal" for case in known(Phantoms(spec, 3), range(2, 14))] == [
        row["label"] for row in found.cases[2:]
    ]
    assert ceiling(spec, iter(read), total=12) == ceiling(spec, stored(found), total=12)
    table = ceiling_table(ceiling(spec, stored(found), total=12))
    assert [list(column.cells) for column in table.columns][-2:] == [["-", "-"], ["-", "-"]]
