from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from synth import Phantoms, PhantomSpec, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES: dict[str, dict[str, Any]] = {
    "ellipsoid": {"family": "ellipsoid"},
    "gaussian": {"family": "gaussian"},
    "ring": {"family": {"kind": "ring", "rim": 0.4, "core": 0.5}, "edge_mm": 0.8},
    "spiculated": {"family": {"kind": "spiculated", "width_deg": 14, "length": 0.6}},
    "texture": {"family": {"kind": "texture", "length_mm": 0.8}},
    "cluster": {"family": {"kind": "cluster", "foci": [3, 5], "focus_mm": 2.0}, "edge_mm": 0.5, "radius_mm": [7, 8]},
}
SOLID = ("ellipsoid", "gaussian", "spiculated", "cluster")
TEXTURES: dict[str, dict[str, Any]] = {
    "correlated": {"components": [{"sd": 0.04, "length_mm": 1.5}]},
    "power law": {"power_law": {"sd": 0.04}},
    "lumpy": {"lumpy": {"sd": 0.04, "length_mm": 2}},
    "clustered lumpy": {"clustered_lumpy": {"sd": 0.04, "spread_mm": 5}},
}
FIELDS = {
    2: {"shape": [64, 56], "spacing_mm": [1.0, 1.2]},
    3: {"shape": [44, 44, 30], "spacing_mm": [1.0, 1.0, 1.5]},
}


def family_spec(
    make_spec: Callable[..., PhantomSpec], dimensions: int, family: str, control: str, value: float, **replaced: Any
) -> PhantomSpec:
    lesion = {"radius_mm": [5, 6], "elongation": [1, 1.3], control: value, **FAMILIES[family]}
    whole = {**FIELDS[dimensions], "prevalence": 1, "lesions": {"lesion": lesion}, **replaced}
    return make_spec(dimensions, **whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_contrast_leaves_the_image_unchanged(
    make_spec: Callable[..., PhantomSpec], dimensions: int, family: str
) -> None:
    case = Phantoms(family_spec(make_spec, dimensions, family, "delta", 0), 0)[0]
    assert np.array_equal(case.image, case.twin().image)
    assert case.masks.any()


@pytest.mark.parametrize(("family", "texture"), list(product(FAMILIES, TEXTURES)))
def test_subtlety_is_what_was_asked_in_every_texture(
    make_spec: Callable[..., PhantomSpec], dimensions: int, family: str, texture: str
) -> None:
    for control, asked in (("dprime", 7.0), ("cnr", 3.0), ("delta", 0.2)):
        spec = family_spec(make_spec, dimensions, family, control, asked, texture=TEXTURES[texture])
        phantoms = Phantoms(spec, 1)
        case = phantoms[0]
        (known,) = case.lesions
        assert known.family == family
        assert abs(getattr(known, control)) == pytest.approx(asked)
        assert known.cnr == pytest.approx(abs(known.delta) / 0.05)
        change = case.image - case.twin().image
        assert phantoms.texture.dprime(change) == pytest.approx(known.dprime, rel=1e-3)
        if family != "texture":
            assert change.max() == pytest.approx(known.delta, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_centre_and_volume_agree_with_the_mask(
    make_spec: Callable[..., PhantomSpec], dimensions: int, family: str
) -> None:
    spec = family_spec(make_spec, dimensions, family, "delta", 0.3)
    phantoms = Phantoms(spec, 2)
    for index in range(12):
        case = phantoms[index]
        (lesion,) = case.lesions
        assert lesion.voxels == case.masks.sum() > 30
        assert lesion.voxels * np.prod(spec.spacing_mm) == pytest.approx(lesion.volume_mm3, rel=0.1)
        assert np.argwhere(case.masks[0]).mean(0) == pytest.approx(np.array(lesion.centre_voxel), abs=0.5)


@pytest.mark.parametrize("family", SOLID)
def test_mask_is_at_half_maximum(make_spec: Callable[..., PhantomSpec], dimensions: int, family: str) -> None:
    phantoms = Phantoms(family_spec(make_spec, dimensions, family, "delta", 0.3), 3)
    for index in range(6):
        case = phantoms[index]
        relative = (case.image - case.twin().image) / 0.3
        clear = np.abs(relative - 0.5) > 1e-4
        assert np.array_equal(case.masks[0][clear], (relative >= 0.5)[clear])
        assert relative.min() > -1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_support_lies_in_the_tissue_and_twins_differ_nowhere_else(
    make_spec: Callable[..., PhantomSpec], dimensions: int, family: str
) -> None:
    wide: dict[int, dict[str, Any]] = {
        2: {"shape": [112, 112], "spacing_mm": [1.0, 1.0]},
        3: {"shape": [72, 72, 64], "spacing_mm": [1, 1, 1]},
    }
    head = {**wide[dimensions], "anatomy": {"kind": "head", "tissue": 0.7}, "texture": {}, "noise": {"sd": 1e-6}}
    values = family_spec(make_spec, dimensions, family, "delta", 0.3, **head).to_dict()
    if family == "gaussian":  # its tail needs twice the room
        values["lesions"]["lesion"]["radius_mm"] = 3
    phantoms = Phantoms(PhantomSpec.from_dict(values), 0)
    for index in range(3):
        case = phantoms[index]
        before = case.twin().image
        changed = np.abs(case.image - before) > 1e-5
        assert before[changed] == pytest.approx(0.7, abs=1e-4)
        assert ndimage.distance_transform_edt(~case.masks[0])[changed].max() < 9
        assert changed[case.masks[0]].mean() > 0.85


def test_ring_has_a_bright_rim_a_dark_core_and_a_filled_mask(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    case = Phantoms(family_spec(make_spec, dimensions, "ring", "delta", 0.3), 0)[0]
    change, (lesion,) = case.image - case.twin().image, case.lesions
    middle = tuple(np.rint(lesion.centre_voxel).astype(int))
    assert change[middle] == pytest.approx(-0.15, abs=0.01)
    assert case.masks[0][middle]
    assert change[case.masks[0]].max() == pytest.approx(0.3, abs=1e-4)
    assert np.array_equal(ndimage.binary_fill_holes(case.masks[0]), case.masks[0])


def test_texture_lesion_has_the_mean_of_the_tissue_and_the_stated_rms(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    case = Phantoms(family_spec(make_spec, dimensions, "texture", "delta", 0.3), 0)[0]
    change = (case.image - case.twin().image).astype(np.float64)
    assert change.sum() == pytest.approx(0, abs=0.01)
    assert change[case.masks[0]].std() == pytest.approx(0.3, rel=0.15)
    neighbours = (change[1:] * change[:-1])[case.masks[0][1:]].mean() / change[case.masks[0]].var()
    # Correlation at 1 mm of a length of 0.8 mm.
    assert neighbours == pytest.approx(np.exp(-1 / (2 * 0.8**2)), abs=0.2)


def test_cluster_is_made_of_separate_foci(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    phantoms = Phantoms(family_spec(make_spec, dimensions, "cluster", "delta", 0.3), 0)
    numbers = [ndimage.label(phantoms[index].masks[0])[1] for index in range(12)]
    assert set(numbers) == {3, 4, 5}


def test_volume_of_a_cluster_is_that_of_its_foci(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    family = {"kind": "cluster", "foci": [3, 3], "focus_mm": 4.0}
    lesion = {"radius_mm": 11, "delta": 0.3, "edge_mm": 0.5, "family": family}
    field = {2: {"shape": [100, 100]}, 3: {"shape": [64, 64, 64]}}[dimensions]
    spacing = [0.6 if dimensions == 2 else 1.0] * dimensions
    spec = make_spec(dimensions, **field, spacing_mm=spacing, prevalence=1, lesions={"lesion": lesion})
    ball = {2: np.pi * 16, 3: 4 / 3 * np.pi * 64}[dimensions]
    volumes = [Phantoms(spec, 0)[index].lesions[0].volume_mm3 for index in range(4)]
    assert volumes == pytest.approx([3 * ball] * 4, rel=0.03)


def test_spiculated_mass_is_ragged(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    def roundness(family: str) -> float:
        mask = Phantoms(family_spec(make_spec, dimensions, family, "delta", 0.3), 0)[0].masks[0]
        return float(ndimage.binary_opening(mask, iterations=2).sum() / mask.sum())

    assert roundness("spiculated") < roundness("ellipsoid") - 0.04


def test_depth_and_distance_are_kept(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    lesion = {"radius_mm": 2.5, "cnr": 3, "depth_mm": [6, 9], "apart_mm": 5, "count": 3}
    spec = make_spec(dimensions, **FIELDS[dimensions], prevalence=1, lesions={"lesion": lesion})
    phantoms = Phantoms(spec, 0)
    half = np.array(spec.shape) * np.array(spec.spacing_mm) / 2
    for index in range(8):
        case = phantoms[index]
        depths = [(half - np.abs(known.centre_mm)).min() for known in case.lesions]
        step = max(spec.spacing_mm)
        assert 6 - step <= min(depths)
        assert max(depths) <= 9 + step
        labelled, number = ndimage.label(case.masks[0], np.ones((3,) * dimensions))
        assert number == 3
        for one in (1, 2, 3):
            away = ndimage.distance_transform_edt(labelled != one, sampling=spec.spacing_mm)
            assert away[(labelled > 0) & (labelled != one)].min() > 5


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"family": "blob"}, "lesions.lesion.family.kind is 'blob' but must be one of ellipsoid, gaussian, ring"),
        ({"family": {"kind": "ring", "rim": 1.2}}, "lesions.lesion.family.rim is 1.2 but must lie above 0"),
        ({"family": {"kind": "ring", "rim": 0.1}, "edge_mm": 0.1}, "lesions.lesion.family is 'ring' but must have no"),
        ({"family": {"kind": "cluster", "focus_mm": 0.8}}, "lesions.lesion.edge_mm is 1.0 but must be at most the"),
        ({"family": {"kind": "structure_loss", "structure": "x"}, "polarity": "dark"}, "family.structure is 'x' but"),
        ({"family": {"kind": "texture"}}, "lesions.lesion.family.length_mm is missing"),
        ({"tissue": "bone"}, "lesions.lesion.tissue is 'bone' but must be a tissue of the anatomy uniform: tissue"),
        ({"apart_mm": -1}, "lesions.lesion.apart_mm is -1.0 but must be at least 0"),
        ({"depth_mm": [-1, 2]}, "lesions.lesion.depth_mm is [-1.0, 2.0] but must be at least 0"),
        ({"radius_mm": 14, "family": "gaussian"}, "lesions.lesion.radius_mm is [14.0, 14.0] but must fit the field"),
    ],
)
def test_what_a_family_cannot_be_is_refused(
    make_spec: Callable[..., PhantomSpec], changed: dict[str, Any], sentence: str
) -> None:
    lesion = {"radius_mm": 5, "cnr": 3, **changed}
    with pytest.raises(SpecError) as caught:
        make_spec(2, shape=[48, 48], spacing_mm=[1, 1], lesions={"lesion": lesion})
    assert sentence in str(caught.value)


def test_places_that_do_not_exist_are_named(make_spec: Callable[..., PhantomSpec]) -> None:
    deep = make_spec(prevalence=1, lesions={"lesion": {"radius_mm": 3, "cnr": 1, "depth_mm": [30, 40]}})
    with pytest.raises(SpecError, match=r"^lesions\.lesion\.depth_mm is \[30\.0, 40\.0\] but must be found"):
        Phantoms(deep, 0)[0]
    crowd = {"kind": "cluster", "foci": [40, 40], "focus_mm": 1.5}
    full = make_spec(prevalence=1, lesions={"lesion": {"radius_mm": 4, "cnr": 1, "family": crowd}})
    with pytest.raises(SpecError, match=r"^lesions\.lesion\.family\.foci is \[40, 40\] but must fit"):
        Phantoms(full, 0)[0]
