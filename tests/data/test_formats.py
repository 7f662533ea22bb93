"""Several images in one file, deep and coloured pictures, and files that lie about themselves."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from hrcam_lightning import InputError
from hrcam_lightning.data.readers import read_grid, read_mask, read_scan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _nifti(path: Path, data: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)  # type: ignore[no-untyped-call]
    return path


def _refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_scan(path)
    message = str(caught.value)
    assert message.startswith(str(path).partition("#")[0])
    assert "\n" not in message


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 1, 6), (3, 4, 5, 6, 1)])
def test_a_volume_of_several_is_chosen(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = _nifti(tmp_path / name, data)
    _refused(path, rf"has shape 3 x 4 x .*, 6 volumes; choose one, counted from 0, as {name}#0")
    for number in (0, 5):
        chosen = tmp_path / f"{name}#{number}"
        wanted = data[:, :, :, number].reshape([n for n in shape[:3] if n > 1])
        assert read_grid(chosen)[0] == wanted.shape
        np.testing.assert_array_equal(read_scan(chosen).voxels[0], wanted)
    _refused(tmp_path / f"{name}#6", "has no volume #6; its 6 volumes are counted from 0")


def test_other_numbers_of_axes_are_refused_and_a_hash_may_be_part_of_a_name(tmp_path: Path) -> None:
    _refused(_nifti(tmp_path / "five.nii", np.zeros((3, 3, 3, 2, 3), np.float32)), "3 x 3 x 3 x 2 x 3; 2D, 3D and 4D")
    _refused(_nifti(tmp_path / "one.nii", np.zeros(5, np.float32)), "has shape 5; 2D, 3D and 4D")
    whole = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    _nifti(tmp_path / "scan.nii", whole)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.nii#0").voxels[0], whole)
    _refused(tmp_path / "scan.nii#1", "has no volume #1")
    (tmp_path / "scan.nii").rename(tmp_path / "scan#1")
    _refused(tmp_path / "scan#1", "not a known kind of image")  # the file itself, not a part of one
    np.testing.assert_array_equal(read_scan(_nifti(tmp_path / "a#2.nii", whole)).voxels[0], whole)


def test_slope_and_intercept_are_applied_and_doubles_read(tmp_path: Path) -> None:
    stored = np.arange(12, dtype=np.int16).reshape(3, 4, 1)
    image = nib.Nifti1Image(stored, np.eye(4))  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(0.5, -3)  # type: ignore[no-untyped-call]
    nib.save(image, tmp_path / "s.nii.gz")
    np.testing.assert_allclose(read_scan(tmp_path / "s.nii.gz").voxels[0], stored[..., 0] * 0.5 - 3)
    data = np.random.default_rng(0).normal(size=(3, 4))
    scan = read_scan(_nifti(tmp_path / "d.nii", data))
    assert scan.voxels.dtype == np.float32
    np.testing.assert_allclose(scan.voxels[0], data, rtol=1e-6)


def test_tiff_of_eight_and_sixteen_bits_and_pages(tmp_path: Path) -> None:
    deep = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(read_scan(tmp_path / "deep.tif").voxels[0], deep)
    rgb = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in (rgb, rgb[::-1])]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    _refused(tmp_path / "pages.tiff", "holds 2 pictures; choose one, counted from 0, as pages.tiff#0")
    np.testing.assert_array_equal(read_scan(tmp_path / "pages.tiff#1").voxels, rgb[::-1].transpose(2, 0, 1))
    _refused(tmp_path / "pages.tiff#2", "has no picture #2")


def test_a_png_that_pillow_would_cut_to_eight_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "deep.png")
    data = bytearray((tmp_path / "deep.png").read_bytes())
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "deep.png").write_bytes(data)
    _refused(tmp_path / "deep.png", "has 16 bits a colour, of which 8 would be lost")


def test_no_memory_is_asked_for_on_a_headers_word(tmp_path: Path) -> None:
    small = _nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32)).read_bytes()
    lie = bytearray(small)
    struct.pack_into("<8h", lie, 40, 3, 10000, 10000, 10000, 1, 1, 1, 1)
    (tmp_path / "lie.nii").write_bytes(lie)
    (tmp_path / "lie.nii.gz").write_bytes(gzip.compress(bytes(lie)))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "lie.png")
    data = bytearray((tmp_path / "lie.png").read_bytes())
    data[16:24] = struct.pack(">II", 9000, 9000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "lie.png").write_bytes(data)
    # What a file of this size may hold, but does not: read as far as it goes.
    struct.pack_into("<8h", lie, 40, 3, 40, 20, 20, 1, 1, 1, 1)
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(bytes(lie) + np.random.default_rng(0).bytes(400)))
    tracemalloc.start()
    _refused(tmp_path / "lie.nii", r"claims 4,000,000,000,000 bytes of voxels, which a file of 608 bytes cannot hold")
    _refused(tmp_path / "lie.nii.gz", r"claims 4,000,000,000,000 bytes of voxels")
    _refused(tmp_path / "lie.png", r"claims 10,125,000 bytes of voxels")
    _refused(tmp_path / "short.nii.gz", r"may be damaged \(Expected 64000 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_volumes_without_a_place_in_space_are_refused(tmp_path: Path) -> None:
    data = np.ones((3, 4, 5), np.float32)
    whole = _nifti(tmp_path / "a.nii", data).read_bytes()

    def broken(name: str, *rows: tuple[float, ...]) -> Path:
        header = bytearray(whole)
        struct.pack_into("<2h", header, 252, 0, 1)  # the sform counts
        for n, row in enumerate(rows):
            struct.pack_into("<4f", header, 280 + 16 * n, *row)
        (tmp_path / name).write_bytes(header)
        return tmp_path / name

    flat = broken("flat.nii", (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0))
    _refused(flat, "a voxel has no size; mend the spacing")
    _refused(broken("line.nii", (1, 2, 0, 0), (1, 2, 0, 0), (0, 0, 1, 0)), "its affine is singular")
    _refused(broken("nan.nii", (np.nan, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)), "its affine is not finite")
    lost = broken("lost.nii", (1, 0, 0, np.inf), (0, 1, 0, 0), (0, 0, 1, 0))
    _refused(lost, "its affine is not finite")
    header = bytearray(whole)  # neither sform nor qform: the spacing alone says how large a voxel is
    struct.pack_into("<2h", header, 252, 0, 0)
    struct.pack_into("<4f", header, 76, 1, 2, 0, 3)
    (tmp_path / "zero.nii.gz").write_bytes(gzip.compress(bytes(header)))
    _refused(tmp_path / "zero.nii.gz", "its spacing is 0; mend the spacing")
    struct.pack_into("<4f", header, 76, 1, 2, 1, 3)
    (tmp_path / "spaced.nii").write_bytes(header)
    assert np.sqrt((read_scan(tmp_path / "spaced.nii").affine[:3, :3] ** 2).sum(0)).tolist() == [2, 1, 3]  # type: ignore[index]
    struct.pack_into("<4f", header, 76, 1, 0, 0, 0)
    struct.pack_into("<h", header, 254, 1)  # with an sform the spacing says nothing
    (tmp_path / "spaced.nii").write_bytes(header)
    np.testing.assert_array_equal(read_scan(tmp_path / "spaced.nii").affine, np.eye(4))
    # A 2D image needs no third axis; it gets one at a right angle.
    slice_ = nib.Nifti1Image(data[..., :1], np.diag([2, 3, 1, 1]))  # type: ignore[no-untyped-call]
    nib.save(slice_, tmp_path / "b.nii")
    whole = (tmp_path / "b.nii").read_bytes()
    scan = read_scan(broken("slice.nii", (2, 0, 0, 5), (0, 3, 0, 6), (0, 0, 0, 7)))
    np.testing.assert_allclose(scan.affine, [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])  # type: ignore[arg-type]


def test_voxels_that_are_no_numbers_on_a_scale_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    _refused(_nifti(tmp_path / "rgb.nii", rgb), "are not numbers on a scale")
    _refused(_nifti(tmp_path / "complex.nii.gz", np.zeros((3, 3), np.complex128)), "complex128 are not numbers")
    infinite = np.zeros((3, 3), np.float32)
    infinite[0, :2] = np.inf, -np.inf
    _refused(_nifti(tmp_path / "inf.nii", infinite), "2 voxels are NaN or infinite")
    red = np.zeros((3, 3, 3), np.uint8)
    red[1, 1, 0] = 255
    Image.fromarray(red).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match=r"colour\.png: the mask is in colour; save it in grey"):
        read_mask(tmp_path / "colour.png", tmp_path / "x.png", read_scan(tmp_path / "colour.png"))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    _refused(tmp_path / "folder.nii.gz", "is a folder without DICOM files")
    for name in ("zero.nii", "zero.png", "zero.tif", "zero.nii.gz"):
        (tmp_path / name).touch()
        _refused(tmp_path / name, "may be damaged")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    _refused(tmp_path / "loop.nii", "no such file")
    whole = _nifti(tmp_path / "whole.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 5))).read_bytes()
    for size in (30, 400, len(whole) - 60):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:size])
        _refused(tmp_path / "cut.nii.gz", "may be damaged|cannot hold")
    foreign = tmp_path / "Größe 画像 'ü'.nii.gz"
    np.testing.assert_array_equal(read_scan(_nifti(foreign, np.eye(3, dtype=np.float32))).voxels[0], np.eye(3))
