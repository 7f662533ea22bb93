from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from synth import Phantoms, PhantomSpec, SpecError
from synth.anatomy import draw_background
from synth.chance import draw_lesions
from synth.chest import ChestAnatomy
from synth.grid import Grid
from synth.head import HeadPose, draw_pose, render_head
from synth.midbrain import MidbrainAnatomy
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


def test_a_head_larger_than_the_field_is_seen_in_part(dimensions: int) -> None:
    folded = {"rotation_deg": (-20, 20), "shift": 0, "tissue": 0.5, "white": 0.7, "cortex_mm": 7}
    whole, part = HeadAnatomy(size=(0.8, 0.9), **folded), HeadAnatomy(size=(1.6, 1.8), **folded)  # type: ignore[arg-type]
    wide, narrow = Grid((64,) * dimensions, (2.0,) * dimensions), Grid((32,) * dimensions, (2.0,) * dimensions)
    seen = draw_background(part, narrow, np.random.default_rng(3))
    head = draw_background(whole, wide, np.random.default_rng(3))
    middle = (slice(16, 48),) * dimensions
    assert seen.image == pytest.approx(head.image[middle], abs=1e-5)
    assert np.array_equal(seen.tissue, head.tissue[middle])


def test_white_matter_lies_under_a_ribbon_of_cortex(dimensions: int) -> None:
    grid = {2: Grid((128, 128), (1.5, 1.5)), 3: Grid((72, 72, 60), (2.5, 2.5, 3.0))}[dimensions]
    spec, rng = HeadAnatomy(tissue=0.5, white=0.7, cortex_mm=7), np.random.default_rng(0)
    for _ in range(5):
        background = draw_background(spec, grid, rng)
        white, grey = background.region("white"), background.region("grey")
        assert not (white & grey).any()
        assert ((white | grey) <= background.tissue).all()
        assert background.image[white] == pytest.approx(0.7, abs=1e-5)
        assert background.image[grey] == pytest.approx(0.5, abs=1e-5)
        # The ribbon lies outside: its middle voxel is nearer to the skull than that of white matter.
        to_skull = ndimage.distance_transform_edt(background.image < 0.9, sampling=grid.spacing)
        assert np.median(to_skull[grey]) < np.median(to_skull[white]) - 4
        assert white.sum() > 0.4 * background.tissue.sum()
        assert grey.sum() > 0.1 * background.tissue.sum()


def test_a_head_without_white_matter_needs_no_folds_and_draws_none() -> None:
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    draw_background(HeadAnatomy(), GRIDS[2], one)
    draw_pose(HeadAnatomy(), GRIDS[2], other)
    assert one.random() == other.random()
    with pytest.raises(SpecError, match="white must be set together with cortex_mm"):
        HeadAnatomy(white=0.7)


def test_midbrain_has_two_equal_bright_crescents() -> None:
    grid = Grid((96, 96), (0.6, 0.6))
    still = MidbrainAnatomy(scale=(1, 1), rotation_deg=(0, 0), shift_mm=0, asymmetry=0)
    background = draw_background(still, grid, np.random.default_rng(0))
    assert background.image == pytest.approx(background.image[::-1], abs=1e-5)
    bright = background.image > 0.62
    labelled, number = ndimage.label(bright)
    assert number == 2
    assert (bright <= (background.structures["crescents"] > 0.1)).all()
    # Without the crescents nothing is bright: what fades is only they.
    assert (background.image - background.structures["crescents"]).max() < 0.51
    areas = np.bincount(labelled.ravel())[1:] * 0.36
    assert areas == pytest.approx([36, 36], abs=12)
    assert (background.region("crescents") <= background.tissue).all()


def test_chest_has_two_dark_lungs_a_heart_to_the_right_and_ribs_that_can_be_taken_away() -> None:
    grid, rng = Grid((128, 128), (2.6, 2.6)), np.random.default_rng(0)
    for _ in range(10):
        background = draw_background(ChestAnatomy(), grid, rng)
        lungs = background.region("lungs")
        assert (lungs <= background.tissue).all()
        labelled, _ = ndimage.label(lungs)
        first, second, *rest = sorted(np.bincount(labelled.ravel())[1:], reverse=True)
        assert second > 0.4 * first
        assert sum(rest) < 0.05 * second
        assert background.image[lungs].mean() < 0.5
        assert lungs[:64].sum() > lungs[64:].sum(), "the heart takes from the lung at the right of the picture"
        bare = (background.image - background.structures["ribs"])[lungs]
        assert bare.std() < background.image[lungs].std()


@pytest.mark.parametrize("kind", ["midbrain", "chest"])
def test_flat_anatomies_are_refused_in_3d(kind: str) -> None:
    whole = {"name": "a", "task": "binary", "shape": [32, 32, 32], "spacing_mm": [2, 2, 2], "anatomy": {"kind": kind}}
    with pytest.raises(SpecError, match=f"^anatomy.kind is '{kind}' but must be another for 3 axes: this one has 2"):
        PhantomSpec.from_dict({**whole, "lesions": {"a": {"radius_mm": 4, "cnr": 1}}})


def fading(**replaced: object) -> Phantoms:
    family = {"kind": "structure_loss", "structure": "crescents"}
    lesion = {"radius_mm": [3, 4], "polarity": "dark", "tissue": "crescents", "family": family, **replaced}
    whole = {"name": "a", "task": "binary", "shape": [96, 96], "spacing_mm": [0.6, 0.6], "prevalence": 1}
    still = {"anatomy": {"kind": "midbrain", "asymmetry": 0}, "texture": {}, "noise": {"sd": 1e-6}}
    return Phantoms(PhantomSpec.from_dict({**whole, **still, "lesions": {"loss": lesion}}), 0)


def test_structure_loss_fades_the_structure_and_nothing_else() -> None:
    phantoms = fading(delta=0.15)
    for index in range(8):
        case = phantoms[index]
        before, (lesion,) = case.twin().image, case.lesions
        change = case.image - before
        assert change.min() == pytest.approx(-0.15, abs=1e-4)
        assert change.max() < 1e-4
        assert (before[change < -0.075] > 0.57).all(), "only what was bright fades"
        clear = np.abs(change / -0.15 - 0.5) > 1e-3
        assert np.array_equal(case.masks[0][clear], (change <= -0.075)[clear])
        assert np.argwhere(case.masks[0]).mean(0) == pytest.approx(np.array(lesion.centre_voxel))
        assert lesion.volume_mm3 == pytest.approx(case.masks[0].sum() * 0.36)


def test_what_fades_keeps_its_distance() -> None:
    chest = {"kind": "chest"}
    family = {"kind": "structure_loss", "structure": "ribs"}
    lesion = {"radius_mm": 10, "polarity": "dark", "delta": 0.01, "family": family, "count": 3, "apart_mm": 30}
    whole = {"name": "a", "task": "binary", "shape": [128, 128], "spacing_mm": [2.6, 2.6], "prevalence": 1}
    spec = PhantomSpec.from_dict({**whole, "anatomy": chest, "lesions": {"loss": lesion}})
    grid = Grid(spec.shape, spec.spacing_mm)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        background = draw_background(spec.anatomy, grid, rng)
        drawn = draw_lesions(spec.lesions, background, np.zeros(grid.shape, bool), grid, rng)
        places = [np.argwhere(one.placed.outline > 0) + [part.start for part in one.placed.box] for one in drawn]
        gaps = [cdist(first, second).min() * 2.6 for first, second in combinations(places, 2)]
        assert len(gaps) == 3
        assert min(gaps) > 30


@pytest.mark.parametrize(("control", "asked"), [("dprime", 2e7), ("cnr", 3e5), ("delta", 0.3)])
def test_no_more_is_lost_than_there_is(control: str, asked: float) -> None:
    with pytest.raises(SpecError, match=rf"^lesions\.loss\.{control} is .*: 0\.22 is all of what the structure"):
        fading(**{control: asked})[0]
