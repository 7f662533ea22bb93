from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from synth import Lesion, Phantoms, SpecError
from synth.grid import Grid
from synth.lesion import draw_ellipsoid, place
from synth.parts import LesionSpec
from synth.shape import Ellipsoid, render

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from synth import PhantomSpec


def radius_in_ellipsoid(lesion: Lesion, spec: PhantomSpec) -> npt.NDArray[np.float64]:
    """Return |D⁻¹ Rᵀ (x - c)| of every voxel: 1 on the surface."""
    voxels = np.moveaxis(np.indices(spec.shape), 0, -1)
    offset = (voxels - np.array(lesion.centre_voxel)) * np.array(spec.spacing_mm)
    inside: npt.NDArray[np.float64] = np.linalg.norm(
        offset @ np.array(lesion.rotation) / np.array(lesion.radii_mm), axis=-1
    )
    return inside


def test_mask_is_the_ellipsoid_that_the_lesion_states(make_spec: Callable[..., PhantomSpec], dimensions: int) -> None:
    spec = make_spec(dimensions, prevalence=1)
    phantoms = Phantoms(spec, 0)
    for index in range(40):
        case = phantoms[index]
        (lesion,) = case.lesions
        radius = radius_in_ellipsoid(lesion, spec)
        clear = np.abs(radius - 1) > 1e-5
        assert np.array_equal(case.masks[0][clear], (radius <= 1)[clear])
        assert lesion.voxels == case.masks[0].sum()
        expected = case.affine[:3, :3] @ np.pad(lesion.centre_voxel, (0, 3 - dimensions)) + case.affine[:3, 3]
        assert lesion.centre_mm == pytest.approx(expected[:dimensions])


def test_mask_is_where_the_change_is_at_least_half_its_maximum(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    phantoms = Phantoms(make_spec(dimensions, prevalence=1), 1)
    for index in range(40):
        case = phantoms[index]
        change = case.image - case.twin().image
        (lesion,) = case.lesions
        assert change.max() == pytest.approx(lesion.delta, abs=1e-6)
        clear = np.abs(change / lesion.delta - 0.5) > 1e-4
        assert np.array_equal(case.masks[0][clear], (change >= lesion.delta / 2)[clear])


def test_volume_and_centroid_of_the_mask_are_those_stated(
    make_spec: Callable[..., PhantomSpec], dimensions: int
) -> None:
    spec = make_spec(dimensions, prevalence=1)
    phantoms = Phantoms(spec, 2)
    ratios, misses = [], []
    for index in range(200):
        case = phantoms[index]
        (lesion,) = case.lesions
        ratios.append(lesion.voxels * np.prod(spec.spacing_mm) / lesion.volume_mm3)
        misses.append(np.argwhere(case.masks[0]).mean(0) - np.array(lesion.centre_voxel))
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)
    assert np.abs(misses).max() < 0.5


def test_radius_is_that_of_the_ball_of_equal_volume(dimensions: int) -> None:
    spec = LesionSpec(radius_mm=(3, 3), cnr=(1, 1), elongation=(1.6, 1.6))
    shape = draw_ellipsoid(spec, dimensions, np.random.default_rng(0))
    assert shape.volume_mm3 == pytest.approx({2: np.pi * 9, 3: 4 / 3 * np.pi * 27}[dimensions])
    assert shape.radii_mm[0] / shape.radii_mm[-1] == pytest.approx(1.6)
    assert shape.rotation @ shape.rotation.T == pytest.approx(np.eye(dimensions), abs=1e-12)
    assert np.linalg.det(shape.rotation) == pytest.approx(1)


def test_orientations_are_uniform(dimensions: int) -> None:
    rng, spec = np.random.default_rng(0), LesionSpec(radius_mm=(3, 3), cnr=(1, 1))
    long_axes = np.array([draw_ellipsoid(spec, dimensions, rng).rotation[:, 0] for _ in range(2000)])
    assert long_axes.mean(0) == pytest.approx(0, abs=0.06)
    assert long_axes.T @ long_axes / 2000 == pytest.approx(np.eye(dimensions) / dimensions, abs=0.06)


def test_edge_of_a_ball_is_a_half_wave_of_the_cosine_over_its_whole_width(dimensions: int) -> None:
    grid = Grid((41,) * dimensions, (0.25,) * dimensions)
    radius, edge = 3.0, 0.8
    ball = Ellipsoid(np.full(dimensions, radius), np.eye(dimensions), edge)
    placed = render(ball, np.full(dimensions, 20.0), grid)
    assert placed is not None
    line = np.zeros(41)
    middle = tuple(20 - box.start for box in placed.box)
    line[placed.box[0]] = placed.profile[(slice(None), *middle[1:])]
    distance = np.abs(np.arange(41) - 20) * 0.25 - radius
    expected = np.where(
        distance < -edge, 1, np.where(distance > edge, 0, 0.5 - 0.5 * np.sin(np.pi / 2 * distance / edge))
    )
    assert line == pytest.approx(expected, abs=1e-6)
    assert not line[distance >= edge].any()


def test_a_hard_edge_gives_the_mask_itself(dimensions: int) -> None:
    ball = Ellipsoid(np.full(dimensions, 3.0), np.eye(dimensions), 0.0)
    placed = render(ball, np.full(dimensions, 8.2), Grid((17,) * dimensions, (1.0,) * dimensions))
    assert placed is not None
    assert np.array_equal(placed.profile, placed.mask.astype(np.float32))


def test_placed_supports_stay_in_what_is_free_and_never_overlap(dimensions: int) -> None:
    grid = Grid((40,) * dimensions, (1.0,) * dimensions)
    rng = np.random.default_rng(0)
    free = np.zeros(grid.shape, bool)
    free[3:35, 5:38] = True
    free[18:20] = False
    before = free.copy()
    spec = LesionSpec(radius_mm=(2, 3.5), cnr=(1, 1), elongation=(1, 1.5))
    lost = [before]
    for _ in range(8):
        placed = place(draw_ellipsoid(spec, dimensions, rng), free, grid, "lesions.a", rng)
        support = np.zeros(grid.shape, bool)
        support[placed.box] = placed.profile > 0
        assert (support <= lost[-1]).all()
        lost.append(free.copy())
        assert np.array_equal(lost[-1], lost[-2] & ~support)
    assert all(later.sum() < earlier.sum() for earlier, later in pairwise(lost))


def test_tight_tissue_does_not_favour_small_lesions(make_spec: Callable[..., PhantomSpec]) -> None:
    # Fields of 17 mm hold discs of 2 to 7 mm radius, the largest in a few places only.
    lesion = {"radius_mm": [2, 7], "cnr": 1}
    spec = make_spec(shape=[18, 18], spacing_mm=[1, 1], prevalence=1, lesions={"lesion": lesion})
    phantoms = Phantoms(spec, 0)
    radii = [phantoms[index].lesions[0].radii_mm[0] for index in range(400)]
    assert np.mean(radii) == pytest.approx(4.5, abs=3 * 5 / np.sqrt(12 * 400))


def test_lesions_that_find_no_room_are_named_after_a_bounded_search(
    make_spec: Callable[..., PhantomSpec],
) -> None:
    crowd = {"radius_mm": 4, "cnr": 1, "count": 40}
    with pytest.raises(SpecError, match=r"^lesions\.lesion\.radius_mm leaves no room in the tissue"):
        Phantoms(make_spec(prevalence=1, lesions={"lesion": crowd}), 0)[0]


@pytest.mark.parametrize("control", ["dprime", "cnr", "delta"])
@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_subtlety_is_what_was_asked_and_dprime_cnr_and_delta_agree(
    make_spec: Callable[..., PhantomSpec], dimensions: int, control: str, polarity: str
) -> None:
    asked = {"dprime": 7.0, "cnr": 3.0, "delta": 0.2}[control]
    lesion = {"radius_mm": [2.2, 3], control: asked, "polarity": polarity}
    phantoms = Phantoms(make_spec(dimensions, prevalence=1, lesions={"lesion": lesion}), 0)
    for index in range(5):
        case = phantoms[index]
        (known,) = case.lesions
        assert abs(getattr(known, control)) == pytest.approx(asked)
        assert (known.delta > 0) == (polarity == "bright")
        assert known.cnr == pytest.approx(abs(known.delta) / 0.05)
        change = case.image - case.twin().image
        assert phantoms.texture.dprime(change) == pytest.approx(known.dprime, rel=1e-4)
