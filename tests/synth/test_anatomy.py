from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from synth.anatomy import draw_background
from synth.grid import Grid
from synth.head import HeadPose, draw_pose, render_head
from synth.parts import HeadAnatomy, UniformAnatomy

GRIDS = {2: Grid((64, 72), (1.0, 1.0)), 3: Grid((48, 48, 32), (2.0, 2.0, 3.0))}
STILL = HeadAnatomy(size=(0.9, 0.9), aspect=(0.8, 0.8), rotation_deg=(0, 0), shift=0, ventricles=(1, 1))


def test_uniform_anatomy_is_one_tissue_everywhere(dimensions: int) -> None:
    background = draw_background(UniformAnatomy(tissue=0.4), GRIDS[dimensions], np.random.default_rng(0))
    assert (background.image == np.float32(0.4)).all()
    assert (background.texture == 1).all()
    assert background.tissue.all()


def test_head_has_the_drawn_extent(dimensions: int) -> None:
    grid = GRIDS[dimensions]
    pose = draw_pose(STILL, grid, np.random.default_rng(0))
    head = render_head(STILL, pose, grid).image > 0.5
    extents = [np.ptp(np.flatnonzero(head.any(axis=tuple(set(range(dimensions)) - {axis})))) + 1 for axis in (0, 1)]
    length = 0.9 * min(grid.field_mm[0] / 0.8, grid.field_mm[1])
    assert pose.length_mm == pytest.approx(length / 2)
    assert extents[1] * grid.spacing_mm[1] == pytest.approx(length, abs=2 * grid.spacing_mm[1])
    assert extents[0] * grid.spacing_mm[0] == pytest.approx(0.8 * length, abs=2 * grid.spacing_mm[0])


def test_unrotated_head_is_its_own_mirror_image(dimensions: int) -> None:
    grid = GRIDS[dimensions]
    background = render_head(STILL, draw_pose(STILL, grid, np.random.default_rng(0)), grid)
    assert np.array_equal(background.image, background.image[::-1])
    assert np.array_equal(background.tissue, background.tissue[::-1])


def test_turning_the_pose_turns_the_picture() -> None:
    grid = Grid((65, 65), (1.0, 1.0))
    upright = HeadPose(np.zeros(2), np.eye(2), 28.0, 0.8, 1.0)
    quarter = HeadPose(np.zeros(2), np.array([[0.0, 1.0], [-1.0, 0.0]]), 28.0, 0.8, 1.0)
    first, second = (render_head(HeadAnatomy(), pose, grid).image for pose in (upright, quarter))
    assert np.rot90(first) == pytest.approx(second, abs=1e-5)


def test_every_drawn_head_lies_in_the_plane_of_the_field_with_two_ventricles(dimensions: int) -> None:
    grid, spec, rng = GRIDS[dimensions], HeadAnatomy(), np.random.default_rng(0)
    for _ in range(40):
        background = draw_background(spec, grid, rng)
        border = np.ones(grid.shape[:2], bool)
        border[1:-1, 1:-1] = False
        assert background.image[border].max() < spec.skull / 2
        inside = ndimage.binary_fill_holes(background.tissue)
        ventricles = (background.image < 0.45) & ndimage.binary_erosion(inside, iterations=1)
        labelled, _ = ndimage.label(ventricles, np.ones((3,) * dimensions))
        first, second, *rest = np.sort(np.bincount(labelled.ravel())[1:])[::-1]
        assert second > 0.5 * first
        assert sum(rest) < 0.2 * second


def test_tissue_is_pure_and_its_texture_whole(dimensions: int) -> None:
    grid, spec, rng = GRIDS[dimensions], HeadAnatomy(), np.random.default_rng(1)
    for _ in range(10):
        background = draw_background(spec, grid, rng)
        assert background.tissue.sum() > 0.1 * background.tissue.size
        assert (background.texture[background.tissue] == 1).all()
        assert background.image[background.tissue] == pytest.approx(spec.tissue, abs=1e-6)
        assert background.texture.min() >= 0
        assert background.image.min() >= 0


def test_few_slices_cut_a_slab_from_a_head_of_the_same_size() -> None:
    whole, slab = Grid((48, 48, 48), (2.0, 2.0, 2.0)), Grid((48, 48, 12), (2.0, 2.0, 2.0))
    pose = draw_pose(STILL, whole, np.random.default_rng(0))
    cut = draw_pose(STILL, slab, np.random.default_rng(0))
    assert cut.length_mm == pose.length_mm
    assert render_head(STILL, cut, slab).image == pytest.approx(
        render_head(STILL, pose, whole).image[..., 18:30], abs=1e-5
    )
