"""Reading images: values kept, every kind of damage named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from hrcam_lightning import InputError
from hrcam_lightning.data.readers import read_image, read_mask, read_scan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

AFFINE = np.array([[0, 2, 0, 5], [-1, 0, 0, 7], [0, 0, 3, -9], [0, 0, 0, 1.0]])


def _nifti(path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)  # type: ignore[no-untyped-call]
    return path


@pytest.mark.parametrize(
    ("stored", "read"),
    [((4, 5), (4, 5)), ((4, 5, 1), (4, 5)), ((4, 5, 6), (4, 5, 6)), ((4, 5, 6, 1), (4, 5, 6))],
)
def test_nifti_keeps_values_and_affine(tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).normal(size=stored).astype(np.float32)
    scan = read_scan(_nifti(tmp_path / "a.nii.gz", data))
    assert scan.voxels.shape == (1, *read)
    np.testing.assert_array_equal(scan.voxels.reshape(stored), data)
    assert scan.affine is not None
    np.testing.assert_array_equal(scan.affine, AFFINE)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_pictures_have_one_channel(tmp_path: Path, suffix: str) -> None:
    data = np.full((6, 9), 77, np.uint8)
    Image.fromarray(data).save(tmp_path / f"a.{suffix}")
    scan = read_scan(tmp_path / f"a.{suffix}")
    assert scan.affine is None
    np.testing.assert_allclose(scan.voxels, data[None], atol=1)


def test_colour_sixteen_bit_palette_and_transparent_pictures(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "rgb.png").voxels, rgb.transpose(2, 0, 1))
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "rgba.png").voxels, rgb.transpose(2, 0, 1))
    deep = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "deep.png").voxels[0], deep)
    Image.fromarray(rgb).quantize(4).save(tmp_path / "palette.png")
    assert read_scan(tmp_path / "palette.png").voxels.shape == (3, 5, 4)


def test_a_mask_is_zero_and_one_or_the_numbers_that_are_named(tmp_path: Path) -> None:
    image = _nifti(tmp_path / "i.nii", np.ones((3, 3, 2), np.float32))
    data = np.zeros((3, 3, 2), np.uint8)
    data[1, 2, 0], data[0, 0, 1] = 1, 7

    def mask(numbers: NDArray[Any], *values: int) -> NDArray[np.bool_]:
        return read_mask(_nifti(tmp_path / "m.nii", numbers), image, read_scan(image), values)

    np.testing.assert_array_equal(mask((data == 7).astype(np.uint8)), data == 7)
    np.testing.assert_array_equal(mask((data == 7) * np.float64(255)), data == 7)
    np.testing.assert_array_equal(mask(data, 7), data == 7)
    np.testing.assert_array_equal(mask(data, 7, 1), data > 0)
    np.testing.assert_array_equal(mask(data, 3), np.zeros(data.shape, bool))
    for unclear, shown in (
        (data, "holds 0, 1, 7, not"),
        (data * 0.5, "holds 0, 0.5, 3.5, not"),
        (data // 7 * 254 + 1, ""),
    ):
        with pytest.raises(InputError, match=rf"m\.nii: the mask {shown}.* as m\.nii=2"):
            mask(unclear)


def test_damaged_and_unfit_files_are_named(tmp_path: Path) -> None:
    whole = _nifti(tmp_path / "whole.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 5)).astype(np.float32))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.nii").write_text("hello")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nonsense")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "ok.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:50])
    (tmp_path / "a.txt").write_text("x")
    _nifti(tmp_path / "four.nii", np.zeros((3, 3, 3, 2), np.float32))
    _nifti(tmp_path / "complex.nii", np.zeros((3, 3, 3), np.complex64))
    holed = np.zeros((3, 3), np.float32)
    holed[1, 1] = np.nan
    _nifti(tmp_path / "nan.nii", holed)
    expected = {
        "cut.nii.gz": "may be damaged",
        "text.nii": "may be damaged",
        "empty.nii.gz": "may be damaged",
        "bad.png": "may be damaged",
        "cut.png": "may be damaged",
        "a.txt": "not a known kind of image",
        "missing.nii": "no such file",
        "four.nii": "3 x 3 x 3 x 2",
        "complex.nii": "complex64",
        "nan.nii": "1 voxels are NaN",
    }
    for name, words in expected.items():
        with pytest.raises(InputError, match=words) as caught:
            read_scan(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name))
        assert "\n" not in message


def test_a_mask_off_its_images_grid_is_refused(tmp_path: Path) -> None:
    image = _nifti(tmp_path / "i.nii", np.ones((3, 4), np.float32))
    other_shape = _nifti(tmp_path / "shape.nii", np.ones((4, 3), np.uint8))
    other_affine = _nifti(tmp_path / "affine.nii", np.ones((3, 4), np.uint8), np.eye(4))
    with pytest.raises(InputError, match=r"the mask is 4 x 3, but its image .* is 3 x 4"):
        read_mask(other_shape, image, read_scan(image))
    with pytest.raises(InputError, match="another affine"):
        read_mask(other_affine, image, read_scan(image))


def test_files_on_one_grid_become_channels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    paths = [_nifti(tmp_path / f"{n}.nii", one) for n, one in enumerate(data)]
    np.testing.assert_array_equal(read_image(paths).voxels, data)
    np.testing.assert_array_equal(read_image(paths[::-1]).voxels, data[::-1])
    moved = _nifti(tmp_path / "moved.nii", data[0], AFFINE + np.diag([0, 0, 0.01, 0]))
    small = _nifti(tmp_path / "small.nii", data[0, :3])
    for other, words in ((moved, "has another affine than"), (small, "is 3 x 5 x 6, but")):
        with pytest.raises(InputError, match=words) as caught:
            read_image([paths[0], other])
        assert str(paths[0]) in str(caught.value)
        assert str(other) in str(caught.value)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "rgb.png")
    assert read_image([tmp_path / "grey.png"] * 2).voxels.shape == (2, 4, 5)
    with pytest.raises(InputError, match=r"rgb\.png: is in colour and joined with others"):
        read_image([tmp_path / "grey.png", tmp_path / "rgb.png"])


def test_masks_from_pictures_are_exact_or_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "i.png")
    scan = read_scan(tmp_path / "i.png")
    numbers = np.zeros((4, 5), np.uint8)
    numbers[1, 2] = 1
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])  # the background is white
    palette.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", tmp_path / "i.png", scan), numbers == 1)
    Image.fromarray(numbers).save(tmp_path / "m.jpg")
    with pytest.raises(InputError, match="a JPEG cannot hold a mask"):
        read_mask(tmp_path / "m.jpg", tmp_path / "i.png", scan)
    Image.fromarray(np.stack([numbers, numbers], -1), mode="LA").save(tmp_path / "la.png")
    assert read_scan(tmp_path / "la.png").voxels.shape == (1, 4, 5)


def test_no_damage_to_a_header_escapes_as_another_error(tmp_path: Path) -> None:
    whole = _nifti(tmp_path / "a.nii", np.ones((4, 4, 4), np.float32)).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(0, 352))] = int(rng.integers(0, 256))
        (tmp_path / "b.nii").write_bytes(damaged)
        try:
            read_scan(tmp_path / "b.nii")
        except InputError:
            refused += 1
    assert refused > 10
