"""DICOM: values, order and place of slices, against NIfTI of the same voxels and by hand; what is refused."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from hrcam_lightning import InputError
from hrcam_lightning.data.readers import read_grid, read_image, read_scan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hrcam_lightning.data.scan import Scan

AXIAL, SAGITTAL, CORONAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
TURN = np.deg2rad(20)
OBLIQUE = [np.cos(TURN), np.sin(TURN), 0, -np.sin(TURN) * 0.8, np.cos(TURN) * 0.8, -0.6]
SERIES = generate_uid()


def _dataset(pixels: NDArray[Any], **values: Any) -> FileDataset:
    """A file of one frame (H, W), several (N, H, W), or in colour (H, W, 3)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID = SERIES
    colour = pixels.shape[-1] == 3
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        made.NumberOfFrames = len(pixels)
    made.Rows, made.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _save(path: Path, pixels: NDArray[Any], **values: Any) -> Path:
    _dataset(pixels, **values).save_as(path, enforce_file_format=True)
    return path


def _place(orientation: Sequence[float], position: NDArray[Any]) -> dict[str, Any]:
    as_text = [f"{value:.9g}" for value in orientation]
    return {
        "ImageOrientationPatient": as_text,
        "ImagePositionPatient": [f"{value:.9g}" for value in position],
        "PixelSpacing": ["0.5", "0.75"],  # between rows, between columns
    }


def _series(folder: Path, orientation: Sequence[float], at: Sequence[float], drift: float = 0.0) -> NDArray[np.int16]:
    """A series whose files are named in no order; its pixels (N, H, W) from the first slice along the normal on."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(-500, 2000, (len(at), 4, 6)).astype(np.int16)
    across, down = np.reshape(orientation, (2, 3))
    names = np.random.default_rng(1).permutation(len(at))
    for k, distance in enumerate(at):
        position = np.array([10, -20, 30]) + np.cross(across, down) * distance + down * drift * k
        _save(folder / f"IM{names[k]:03d}", pixels[k], **_place(orientation, position))
    return pixels


def _world(scan: Scan, voxel: tuple[int, int, int]) -> NDArray[Any]:
    assert scan.affine is not None
    return np.asarray(scan.affine @ [*voxel, 1])[:3]


@pytest.mark.parametrize(
    "orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE], ids=["axial", "sagittal", "coronal", "oblique"]
)
def test_every_pixel_of_a_series_lies_where_its_headers_say(tmp_path: Path, orientation: Sequence[float]) -> None:
    at = [0, 2.5, 5, 7.5, 10]
    pixels = _series(tmp_path / "s", orientation, at)
    scan = read_scan(tmp_path / "s")
    assert scan.voxels.shape == (1, 6, 4, 5)
    across, down = np.reshape(orientation, (2, 3))
    for k, row, column in ((0, 0, 0), (3, 1, 5), (4, 3, 2)):
        assert scan.voxels[0, column, 3 - row, k] == pixels[k, row, column]
        # PS3.3 C.7.6.2.1.1, in millimetres to the left and to the back.
        lps = np.array([10, -20, 30]) + np.cross(across, down) * at[k] + across * 0.75 * column + down * 0.5 * row
        np.testing.assert_allclose(_world(scan, (column, 3 - row, k)), lps * [-1, -1, 1], atol=1e-5)
    shape, affine = read_grid(tmp_path / "s")
    assert shape == scan.voxels.shape[1:]
    np.testing.assert_array_equal(affine, scan.affine)
    assert scan.affine is not None
    nib.save(nib.Nifti1Image(scan.voxels[0], scan.affine), tmp_path / "same.nii")  # type: ignore[no-untyped-call]
    both = read_image([tmp_path / "s", tmp_path / "same.nii"])  # one grid
    np.testing.assert_array_equal(both.voxels[0], both.voxels[1])


def test_an_axial_series_has_the_affine_that_one_writes_down_by_hand(tmp_path: Path) -> None:
    _series(tmp_path / "s", AXIAL, [0, 3])
    affine = np.array([[-0.75, 0, 0, -10], [0, 0.5, 0, 20 - 3 * 0.5], [0, 0, 3, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(read_scan(tmp_path / "s").affine, affine)  # type: ignore[arg-type]
    _series(tmp_path / "tilted", AXIAL, [0, 3, 6], drift=0.5)  # the gantry leans: slices move to the back
    affine[1, 2] = -0.5
    np.testing.assert_allclose(read_scan(tmp_path / "tilted").affine, affine)  # type: ignore[arg-type]


def test_values_are_in_the_units_of_the_file_and_more_is_brighter(tmp_path: Path) -> None:
    pixels = np.array([[0, 100], [4095, 7]], np.uint16)
    window = {"WindowCenter": 40, "WindowWidth": 80}  # of display, not of the values
    scaled = _save(tmp_path / "a.dcm", pixels, RescaleSlope="2", RescaleIntercept="-1024", BitsStored=12, **window)
    np.testing.assert_array_equal(read_scan(scaled).voxels[0], pixels * 2.0 - 1024)
    assert read_scan(scaled).affine is None
    grey = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    inverted = _save(tmp_path / "b.dcm", pixels, RescaleSlope="2", RescaleIntercept="-1024", **grey)
    np.testing.assert_array_equal(read_scan(inverted).voxels[0], (4095 - pixels) * 2.0 - 1024)
    signed = np.array([[-128, 127], [0, 5]], np.int8)
    inverted = _save(tmp_path / "c.dcm", signed, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_scan(inverted).voxels[0], -1 - signed.astype(float))
    rgb = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_scan(_save(tmp_path / "d.dcm", rgb)).voxels, rgb.transpose(2, 0, 1))


def test_a_radiograph_without_an_ending_is_a_picture_and_one_slice_has_a_place(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)
    scan = read_scan(_save(tmp_path / "IM0001", pixels))
    assert scan.affine is None
    np.testing.assert_array_equal(scan.voxels[0], pixels)
    assert read_grid(tmp_path / "IM0001") == ((4, 6), None)
    slice_ = _save(tmp_path / "slice.dcm", pixels, SliceThickness="7", **_place(AXIAL, np.array([10, -20, 30])))
    scan = read_scan(slice_)
    np.testing.assert_array_equal(scan.voxels[0], pixels[::-1].T)
    hand = [[-0.75, 0, 0, -10], [0, 0.5, 0, 18.5], [0, 0, 7, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(scan.affine, hand)  # type: ignore[arg-type]
    assert read_grid(slice_)[0] == (6, 4)


def _functional(values: dict[str, dict[str, Any]]) -> Dataset:
    group = Dataset()
    for sequence, pairs in values.items():
        item = Dataset()
        for name, value in pairs.items():
            setattr(item, name, value)
        setattr(group, sequence, Items([item]))
    return group


def _enhanced(path: Path, pixels: NDArray[Any], heights: Sequence[float]) -> Path:
    """A multi-frame file whose frames say their own place and slope."""
    shared: dict[str, dict[str, Any]] = {"PlaneOrientationSequence": {"ImageOrientationPatient": AXIAL}}
    shared["PixelMeasuresSequence"] = {"PixelSpacing": ["0.5", "0.75"], "SliceThickness": "9"}
    frames = [
        _functional({
            "PlanePositionSequence": {"ImagePositionPatient": [10, -20, z]},
            "PixelValueTransformationSequence": {"RescaleSlope": str(k + 1), "RescaleIntercept": "-5"},
        })
        for k, z in enumerate(heights)
    ]  # fmt: skip
    groups = {"PerFrameFunctionalGroupsSequence": Items(frames)}
    groups["SharedFunctionalGroupsSequence"] = Items([_functional(shared)])
    return _save(path, pixels, **groups)


def test_frames_with_places_are_a_volume_and_others_are_chosen(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (3, 4, 6)).astype(np.uint16)
    path = _enhanced(tmp_path / "e.dcm", pixels, [34, 30, 32])
    scan = read_scan(path)
    for k, stored in enumerate([1, 2, 0]):
        np.testing.assert_array_equal(scan.voxels[0, ..., k], (pixels[stored] * (stored + 1.0) - 5)[::-1].T)
    hand = [[-0.75, 0, 0, -10], [0, 0.5, 0, 18.5], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(scan.affine, hand)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_scan(tmp_path / "e.dcm#2").voxels[0], (pixels[2] * 3.0 - 5)[::-1].T)
    film = _save(tmp_path / "film.dcm", pixels)
    with pytest.raises(InputError, match=r"its 3 frames lie nowhere in space.* as film.dcm#0"):
        read_scan(film)
    np.testing.assert_array_equal(read_scan(tmp_path / "film.dcm#1").voxels[0], pixels[1])
    with pytest.raises(InputError, match="has no frame #3"):
        read_scan(tmp_path / "film.dcm#3")


def test_what_is_not_one_evenly_spaced_stack_is_refused(tmp_path: Path) -> None:
    _series(tmp_path / "rounded", AXIAL, [0, 0.6, 1.3, 1.9, 2.5])  # of 0.625 mm, written to a tenth
    assert read_scan(tmp_path / "rounded").voxels.shape == (1, 6, 4, 5)
    report = _dataset(np.zeros((4, 6), np.int16), SeriesInstanceUID=generate_uid())
    del report.PixelData, report.Rows
    report.save_as(tmp_path / "rounded/DICOMDIR")
    assert read_scan(tmp_path / "rounded").voxels.shape == (1, 6, 4, 5)  # it is passed over
    _series(tmp_path / "gap", AXIAL, [0, 2, 4, 8, 10])
    _series(tmp_path / "echoes", AXIAL, [0, 2, 2, 4])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("nothing here")
    for name in ("two", "sizes", "spacings"):
        _series(tmp_path / name, AXIAL, [0, 2])
    pixels, further = np.zeros((4, 6), np.int16), _place(AXIAL, np.array([10, -20, 34]))
    _save(tmp_path / "two/x", pixels, SeriesInstanceUID=generate_uid(), SeriesDescription="T2 axial", **further)
    _save(tmp_path / "sizes/x", pixels[:3], **further)
    _save(tmp_path / "spacings/x", pixels, **{**further, "PixelSpacing": ["1", "1"]})
    for name, words in {
        "gap": "its 5 slices are 2 to 4 mm apart: some are missing",
        "echoes": "several slices lie at one place",
        "empty": "is a folder without DICOM files",
        "two": "holds 2 series, .*'T2 axial'",
        "sizes": "differ in size, spacing or orientation",
        "spacings": "differ in size, spacing or orientation",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_scan(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_compressed_files_are_read_or_name_what_is_missing(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    packed = _dataset(pixels)
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(read_scan(tmp_path / "rle.dcm").voxels[0], pixels)
    packed.file_meta.TransferSyntaxUID = JPEG2000Lossless
    packed.save_as(tmp_path / "j2k.dcm")
    # A decoder may be installed where the tests run; then the bytes, which are none, are damage.
    with pytest.raises(
        InputError, match=r"is compressed as JPEG 2000.*no decoder is installed|may be damaged"
    ) as caught:
        read_scan(tmp_path / "j2k.dcm")
    assert "\n" not in str(caught.value)


def test_hostile_dicom_ends_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)
    place = _place(AXIAL, np.array([10, -20, 34]))
    whole = _save(tmp_path / "whole.dcm", pixels, **place)
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "text.dcm").write_text("hello")
    (tmp_path / "zero.dcm").touch()
    _save(tmp_path / "claims.dcm", pixels, Rows=65535, Columns=65535)
    _save(tmp_path / "still.dcm", pixels, **{**place, "PixelSpacing": ["0", "1"]})
    _save(tmp_path / "bent.dcm", pixels, **{**place, "ImageOrientationPatient": [1, 0, 0, 1, 0, 0]})
    _save(tmp_path / "table.dcm", pixels, PhotometricInterpretation="PALETTE COLOR")
    report = _dataset(pixels)
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "report.dcm")
    for name, words in {
        "cut.dcm": "claims 48 bytes of voxels|may be damaged",
        "text.dcm": "may be damaged",
        "zero.dcm": "may be damaged",
        "claims.dcm": r"claims 8,589,672,450 bytes of voxels",
        "still.dcm": "spacing not > 0",
        "bent.dcm": "no pair of directions at right angles",
        "table.dcm": "through a table of their own",
        "report.dcm": "without an image, as a report or a directory; leave it out",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_scan(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    rng, bytes_ = np.random.default_rng(0), whole.read_bytes()
    refused = 0
    for _ in range(150):  # whatever byte is wrong
        damaged = bytearray(bytes_)
        damaged[int(rng.integers(128, len(bytes_)))] = int(rng.integers(0, 256))
        (tmp_path / "d.dcm").write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's own, of odd values
                read_scan(tmp_path / "d.dcm")
        except InputError:
            refused += 1
    assert refused > 10
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'hrcam-lightning\[dicom\]'"):
        read_scan(whole)
