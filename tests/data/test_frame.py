"""The grid of a file and the grid of the network."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff
from scipy import ndimage

from hrcam_lightning.data.frame import Affine, Frame, Framing, Grid
from hrcam_lightning.errors import InputError

CODES = ["".join(ends) for axes in permutations(("LR", "PA", "IS")) for ends in product(*axes)]
SHAPE, SPACING = (5, 8, 7), (0.7, 1.3, 4.1)


def affine_of(code: str, spacing: tuple[float, ...] = SPACING, tilt: float = 0.0) -> Affine:
    """An affine whose axes point to `code`, turned by `tilt` radians about the first world axis."""
    turn = inv_ornt_aff(axcodes2ornt(tuple(code)), SHAPE)  # type: ignore[no-untyped-call]
    affine = np.linalg.inv(turn) @ np.diag([1, 1, 1, 1.0])
    affine[:3, :3] = np.sign(np.round(affine[:3, :3])) * np.array(spacing)
    affine[:3, 3] = 3.0, -20.0, 11.0
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return np.asarray(rotation @ affine)


def world(affine: Affine, voxel: tuple[Any, ...]) -> Affine:
    return np.asarray(affine @ [*voxel, 1.0])[:3]


def frame_of(framing: Framing, shape: tuple[int, ...] = SHAPE, affine: Affine | None = None) -> Frame:
    return framing.of(Grid(shape, affine))


def test_there_are_48_orientations() -> None:
    assert len(set(CODES)) == 48
    assert all(
        aff2axcodes(affine_of(code))  # type: ignore[no-untyped-call]
        == tuple(code)
        for code in CODES
    )


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_voxel_comes_back_to_itself_from_any_orientation(code: str, tilt: float) -> None:
    """Also with another spacing and a crop: the same voxel of the file, or one inside of a coarser network voxel."""
    affine = affine_of(code, tilt=tilt)
    framings = [
        Framing("RAS"),
        Framing("LPI", shape=[6, 9, 6]),
        Framing("RAS", spacing=[0.6, 0.9, 2.0]),
        Framing("SAR", spacing=[0.5, 0.5, 0.5], shape=[90, 90, 90]),
    ]
    voxel = (3, 5, 4)
    for framing in framings:
        frame = frame_of(framing, SHAPE, affine)
        middle = np.array(frame.starts) + np.array(frame.steps) * (np.array(frame.grid.shape) - 1) / 2
        odd = 0.5 * (framing.shape is not None)  # a crop is by whole voxels
        assert (abs(middle - (np.array(SHAPE)[list(frame.axes)] - 1) / 2) <= odd + 1e-9).all()
        volume = np.zeros((1, *SHAPE), dtype=np.float32)
        volume[0][voxel] = 1
        framed = frame.image(volume)
        peak = np.unravel_index(framed[0].argmax(), frame.grid.shape)
        assert framed.shape[1:] == frame.grid.shape
        # The affine tells the truth: the peak is where the voxel is, to half of the larger of the two voxels.
        assert frame.grid.affine is not None
        way = np.linalg.solve(frame.grid.affine[:3, :3], world(frame.grid.affine, peak) - world(affine, voxel))
        assert (abs(way) <= 0.5 * np.maximum(1, 1 / np.abs(frame.steps)) + 1e-6).all()
        back = frame.back(framed)
        returned = tuple(int(n) for n in np.unravel_index(np.nanargmax(back[0]), SHAPE))
        steps = np.abs(frame.steps)
        off = np.array(frame.starts) + np.array(frame.steps) * peak - np.array(returned)[list(frame.axes)]
        assert (abs(off) <= 0.5 * np.maximum(1, steps) + 1e-6).all()  # inside the network's voxel
        assert returned == voxel or (steps > 1).any()
        mask = frame.mask(volume[0] > 0)
        assert mask[peak]
        assert ndimage.label(mask)[1] == 1


@pytest.mark.parametrize("code", CODES)
def test_turning_is_nibabels(code: str) -> None:
    rng = np.random.default_rng(0)
    volume, affine = rng.random(SHAPE, dtype=np.float32), affine_of(code)
    frame = frame_of(Framing("RAS"), SHAPE, affine)
    oracle = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))  # type: ignore[no-untyped-call]
    assert frame.grid.affine is not None
    np.testing.assert_array_equal(frame.image(volume[None])[0], oracle.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(frame.grid.affine, oracle.affine, atol=1e-12)
    np.testing.assert_array_equal(frame.back(frame.image(volume[None]))[0], volume)
    np.testing.assert_array_equal(frame.mask(volume > 0.5), oracle.get_fdata(dtype=np.float32) > 0.5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_ramp_stays_a_ramp(dims: int) -> None:
    """Linear sampling and averaging keep a linear image, so its values say where each voxel came from."""
    shape, spacing = (9, 12, 11)[:dims], (1.0, 2.0, 3.0)
    affine = np.diag([*spacing, 1.0])
    for wanted in ([1.5, 1.0, 7.0], [0.4, 5.0, 3.0]):
        frame = frame_of(Framing(spacing=wanted[:dims]), shape, affine)
        assert frame.grid.spacing == pytest.approx(wanted[:dims])
        for axis in range(dims):
            ramp = np.broadcast_to(
                np.arange(shape[axis], dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(dims)]), shape
            )
            framed = frame.image(ramp[None])[0]
            index = np.arange(frame.grid.shape[axis])
            truth = frame.starts[axis] + frame.steps[axis] * index
            line = framed.max(tuple(a for a in range(dims) if a != axis))
            reach = max(1.0, frame.steps[axis])
            inner = (truth > reach) & (truth < shape[axis] - 1 - reach)
            tolerance = 1e-4 if frame.steps[axis] <= 1 else 0.5 * reach  # uneven samples under a wide triangle
            np.testing.assert_allclose(line[inner], truth[inner], atol=tolerance)


def test_averaging_by_hand() -> None:
    """Half the resolution: a triangle of half-foot 2 about the middle of two voxels, weights 1/8, 3/8, 3/8, 1/8."""
    frame = frame_of(Framing(spacing=[2.0, 1.0]), (8, 3), np.eye(4))
    assert frame.starts == (0.5, 0.0)
    assert frame.grid.shape == (4, 3)
    image = np.zeros((1, 8, 3), dtype=np.float32)
    image[0, 3] = 8.0
    np.testing.assert_allclose(frame.image(image)[0, :, 0], [0, 3, 1, 0], atol=1e-5)


def test_cropping_and_filling_by_hand() -> None:
    image = np.arange(1, 6, dtype=np.float32)[None, :, None]  # 5 x 1
    frame = frame_of(Framing(shape=[3, 2]), (5, 1))
    assert frame.starts == (1.0, -1.0)
    np.testing.assert_array_equal(frame.image(image)[0], [[1, 2], [1, 3], [1, 4]])
    back = frame.back(frame.image(image))[0]
    np.testing.assert_array_equal(back[:, 0], [np.nan, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(frame.mask(image[0] > 2)[:, 1], [False, True, True])
    assert not frame.mask(image[0] > 0)[:, 0].any()


def test_stretching_fills_the_shape_with_the_whole_picture() -> None:
    frame = frame_of(Framing(shape=[4, 10], fit="stretch"), (8, 5))
    assert frame.starts == (0.5, -0.25)
    assert frame.steps == (2.0, 0.5)
    picture = np.random.default_rng(0).random((3, 8, 5), dtype=np.float32)
    framed = frame.image(picture)
    assert framed.shape == (3, 4, 10)
    assert np.isfinite(frame.back(framed)).all()
    assert framed.min() >= picture.min()


@pytest.mark.parametrize("step", [0.37, 0.5, 1.0, 1.6, 2.0, 3.3])
def test_masks_and_images_agree_to_half_a_voxel(step: float) -> None:
    """The centre of mass of any small block, as mask and as image, in either grid."""
    size = 24
    frame = frame_of(Framing(spacing=[step, 1.0, 1.0]), (size, 2, 2), np.eye(4))
    for first in range(4, 16):
        for width in (1, 2, 3, 5):
            block = np.zeros((size, 2, 2), dtype=bool)
            block[first : first + width] = True
            share = frame.image(block[None].astype(np.float32))[0, :, 0, 0]
            mask = frame.mask(block)[:, 0, 0]
            index = np.arange(frame.grid.shape[0])
            assert mask.any()
            assert abs((share * index).sum() / share.sum() - index[mask].mean()) <= 0.5 + 1e-6


def test_no_peak_of_a_finer_map_is_lost_on_the_way_back() -> None:
    frame = frame_of(Framing(spacing=[0.2, 1.0]), (8, 2), np.eye(4))
    for cell in range(40):
        fine = np.zeros((1, 40, 2), dtype=np.float32)
        fine[0, cell] = 1
        back = frame.back(fine)[0, :, 0]
        assert back.max() > 0.1
        assert abs(back.argmax() - (cell + 0.5) / 5 + 0.5) <= 0.5 + 1e-6


def test_no_lesion_vanishes_by_resampling() -> None:
    """Each of many single voxels, at an eighth of the resolution, keeps one voxel; two near ones may share it."""
    rng = np.random.default_rng(0)
    frame = frame_of(Framing(spacing=[2.0, 2.0, 2.0]), (16, 16, 16), np.eye(4))
    for _ in range(50):
        voxel = tuple(rng.integers(0, 16, 3))
        mask = np.zeros((16, 16, 16), dtype=bool)
        mask[voxel] = True
        assert np.argwhere(frame.mask(mask)).tolist() == [[n // 2 for n in voxel]]
    both = np.zeros((16, 16, 16), dtype=bool)
    both[1:7, 1:7, 1:7] = both[12, 3, 12] = True
    framed = frame.mask(both)
    assert framed[6, 1, 6]
    assert ndimage.label(framed)[1] == 2


def test_bytes_of_a_part_do_not_hang_on_its_place() -> None:
    """Looking only at the voxels about a part gives what looking at all of them gives."""
    rng = np.random.default_rng(1)
    frame = frame_of(Framing("LSA", spacing=[2.3, 1.7, 3.1], shape=[7, 9, 6]), (14, 15, 16), np.diag([1, 1, 1, 1.0]))
    mask = rng.random((14, 15, 16)) > 0.985
    expected = frame.image(mask[None].astype(np.float32))[0] >= 0.5 - 1e-6
    parts, count = ndimage.label(mask)
    for number in range(1, count + 1):
        share = frame.image((parts == number)[None].astype(np.float32))[0]
        if 0 < share.max() < 0.5 - 1e-6:
            expected[np.unravel_index(share.argmax(), share.shape)] = True
    np.testing.assert_array_equal(frame.mask(mask), expected)


def test_nothing_asked_changes_nothing() -> None:
    frame = frame_of(Framing(), (4, 5), np.eye(4))
    assert frame.is_identity
    assert not frame_of(Framing(shape=[4, 6]), (4, 5)).is_identity
    assert not frame_of(Framing("LPS"), SHAPE, np.eye(4)).is_identity
    assert not frame_of(Framing("ARS"), (5, 5, 5), np.eye(4)).is_identity
    assert frame_of(Framing("RAS", spacing=[1.0, 1.0, 1.0001]), SHAPE, np.eye(4)).is_identity


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"orientation": "RAX"}, "framing.orientation is 'RAX'"),
        ({"orientation": "RAL"}, "one end of each axis"),
        ({"spacing": [1.0, 0.0]}, "millimetres above 0"),
        ({"spacing": [1.0, float("nan")]}, r"is \[1.0, nan\]"),
        ({"shape": []}, "voxels above 0"),
        ({"fit": "stretch"}, "needs framing.shape"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Framing(**settings)


@pytest.mark.parametrize(
    ("framing", "grid", "words"),
    [
        (Framing("RAS"), Grid((4, 4), np.eye(4)), "needs volumes"),
        (Framing("LPS"), Grid((4, 4, 4), None), "needs volumes"),
        (Framing(spacing=[1.0, 1.0]), Grid((4, 4), None), "no millimetres"),
        (Framing(shape=[4, 4, 4]), Grid((4, 4), None), "2 axes"),
    ],
)
def test_grids_that_cannot_be_framed(framing: Framing, grid: Grid, words: str) -> None:
    with pytest.raises(InputError, match=words):
        framing.of(grid)
