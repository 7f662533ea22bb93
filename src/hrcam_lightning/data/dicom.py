"""DICOM files and folders of a series, by pydicom (extra `dicom`); the only file that imports it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hrcam_lightning.data.scan import DAMAGED, Affine, Floats, Scan, check_claim, checked_affine, one_line
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from pydicom import Dataset

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# pydicom raises almost anything on a damaged file.
BROKEN = (*DAMAGED, AttributeError, IndexError, KeyError, RuntimeError, TypeError, struct.error)
TAGS = [
    "BitsAllocated", "BitsStored", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ModalityLUTSequence",
    "NumberOfFrames", "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation", "PixelRepresentation",
    "PixelSpacing", "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel", "SeriesDescription",
    "SeriesInstanceUID", "SharedFunctionalGroupsSequence", "SliceThickness", "SpacingBetweenSlices",
]  # fmt: skip
TOLERANCE = 0.1  # of the distance of two slices: positions are often rounded to a tenth of a millimetre


@dataclass(frozen=True)
class _Plane:
    """One slice: a frame of a file, and where it lies (LPS, mm)."""

    path: Path
    header: Dataset
    frame: int
    position: Vector | None
    across: Vector  # from a column to the next, mm
    down: Vector  # from a row to the next, mm
    thickness: float  # of a slice that is alone, mm

    @property
    def rows(self) -> int:
        return int(self.header.Rows)

    @property
    def columns(self) -> int:
        return int(self.header.Columns)

    @property
    def normal(self) -> Vector:
        normal = np.cross(self.across, self.down)
        return np.asarray(normal / np.linalg.norm(normal))


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error


def read_dicom(path: Path, number: int | None = None) -> Scan:
    """Read a DICOM image: a file, a frame of a file, or the folder of one series.

    An image that lies in the patient is stored as other NIfTI converters would: columns, rows from the last to the
    first, slices along their normal, with an affine to R-A-S; one that does not (a radiograph, a photograph) is a
    picture, (C, H, W). Rescale slope and intercept are applied, MONOCHROME1 is inverted so that more is brighter,
    and the window is not applied, for it is a matter of display.

    Args:
        path: File or folder.
        number: Which frame of a file, counted from 0; needed where the frames lie nowhere in space.

    Raises:
        InputError: If it cannot be read, or is not one image: several series, missing or unequally spaced slices.
    """
    planes, affine = _arrange(path, number)
    first = planes[0]
    colours = int(first.header.get("SamplesPerPixel", 1))
    stack = np.empty((colours, len(planes), first.rows, first.columns), dtype=np.float32)
    opened: dict[Path, Dataset] = {}
    for k, plane in enumerate(planes):
        if plane.path not in opened:
            opened = {plane.path: _open(plane.path, pixels=True)}  # one file in memory at a time
        stack[:, k] = _pixels(plane, opened[plane.path])
    if affine is None:
        return Scan(stack[:, 0], None)
    voxels = stack[:, :, ::-1].transpose(0, 3, 2, 1)
    return Scan(np.ascontiguousarray(voxels if len(planes) > 1 else voxels[..., 0]), affine)


def dicom_grid(path: Path, number: int | None = None) -> tuple[tuple[int, ...], Affine | None]:
    """Shape and affine that `read_dicom` would give, from the headers alone.

    Raises:
        InputError: As `read_dicom`, but for damage to the pixels.
    """
    planes, affine = _arrange(path, number)
    first = planes[0]
    if affine is None:
        return (first.rows, first.columns), None
    return (first.columns, first.rows, len(planes))[: 2 if len(planes) == 1 else 3], affine


def _arrange(path: Path, number: int | None) -> tuple[list[_Plane], Affine | None]:
    """Slices in their order along the normal, and the affine of the volume that they make."""
    files = sorted(file for file in path.iterdir() if file.is_file() and is_dicom(file)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: is a folder without DICOM files; give an image file, or the folder of a series")
    headers = [_open(file) for file in files]
    if path.is_dir() and any("Rows" in header for header in headers):  # reports and directories may lie beside images
        pairs = [(file, header) for file, header in zip(files, headers, strict=True) if "Rows" in header]
        files, headers = [file for file, _ in pairs], [header for _, header in pairs]
    for file, header in zip(files, headers, strict=True):
        _check(file, header)
    _refuse_several_series(path, headers)
    planes = [
        _plane(file, header, frame)
        for file, header in zip(files, headers, strict=True)
        for frame in range(int(header.get("NumberOfFrames") or 1))
    ]
    if number is not None:
        if path.is_dir() or number >= len(planes):
            raise InputError(f"{path}: has no frame #{number}; frames of one file are counted from 0")
        planes = [planes[number]]
    if any(plane.position is None for plane in planes):
        if len(planes) > 1:
            raise InputError(
                f"{path}: its {len(planes)} frames lie nowhere in space, so they are no volume; "
                f"choose one, counted from 0, as {path.name}#0 of one file"
            )
        return planes, None
    return _sorted(path, planes)


def _sorted(path: Path, planes: list[_Plane]) -> tuple[list[_Plane], Affine]:
    first = planes[0]
    for plane in planes:
        same = np.allclose([plane.across, plane.down], [first.across, first.down], atol=1e-3)
        if (plane.rows, plane.columns) != (first.rows, first.columns) or not same:
            raise InputError(f"{path}: its slices differ in size, spacing or orientation; keep one stack in a folder")
    planes = sorted(planes, key=lambda plane: float(np.dot(_position(plane), first.normal)))
    places = np.stack([_position(plane) for plane in planes])
    if len(planes) == 1:
        step = first.normal * first.thickness
    else:
        step = (places[-1] - places[0]) / (len(planes) - 1)
        gap = float(np.dot(step, first.normal))
        if gap <= 1e-4 or (np.diff(places @ first.normal) < TOLERANCE * gap).any():
            raise InputError(f"{path}: several slices lie at one place, as of echoes or phases; keep one in a folder")
        # A tilted gantry moves slices sideways, but evenly: they still lie on a line, and the affine is sheared.
        off = np.linalg.norm(places - (places[0] + np.arange(len(planes))[:, None] * step), axis=1)
        if off.max() > TOLERANCE * gap:
            gaps = np.diff(places @ first.normal)
            raise InputError(
                f"{path}: its {len(planes)} slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart: "
                "some are missing, or they are unequally spaced; complete or resample the series"
            )
    corner = _position(planes[0]) + first.down * (first.rows - 1)
    affine = np.eye(4)
    affine[:3] = np.diag([-1, -1, 1]) @ np.stack([first.across, -first.down, step, corner], axis=1)  # LPS to RAS
    return planes, checked_affine(path, affine, 3)


def _plane(path: Path, header: Dataset, frame: int) -> _Plane:
    nowhere = np.zeros(3)
    try:
        position = _shared(header, frame, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _shared(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing, between, thick = (
            _shared(header, frame, "PixelMeasuresSequence", keyword)
            for keyword in ("PixelSpacing", "SpacingBetweenSlices", "SliceThickness")
        )
        if not position or not orientation:
            return _Plane(path, header, frame, None, nowhere, nowhere, 1)
        across, down = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
        between_rows, between_columns = np.asarray(spacing, dtype=np.float64)
        place = np.reshape(np.asarray(position, dtype=np.float64), 3)
        thickness = abs(float(between or thick or 1))
    except BROKEN as error:
        raise InputError(f"{path}: its position, orientation or pixel spacing is missing or damaged") from error
    unit = np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=1e-3)
    if not unit or not np.isfinite(place).all() or not (min(between_rows, between_columns) > 0):
        raise InputError(f"{path}: its orientation is no pair of directions at right angles, or its spacing not > 0")
    return _Plane(path, header, frame, place, across * between_columns, down * between_rows, thickness)


def _position(plane: _Plane) -> Vector:
    assert plane.position is not None
    return plane.position


def _shared(header: Dataset, frame: int, sequence: str, keyword: str) -> Any:  # noqa: ANN401 - as pydicom has it
    """A value of a frame: its own, that of all frames, or that of the file."""
    own: Sequence[Any] = header.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*own[frame : frame + 1], *(header.get("SharedFunctionalGroupsSequence") or [])[:1]]
    for group in groups:
        found = group.get(sequence)
        if found and found[0].get(keyword) is not None:
            return found[0].get(keyword)
    return header.get(keyword)


def _refuse_several_series(path: Path, headers: Sequence[Dataset]) -> None:
    series = {str(header.get("SeriesInstanceUID", "")): str(header.get("SeriesDescription", "")) for header in headers}
    if len(series) > 1:
        named = ", ".join(sorted(f"'{text or uid}'" for uid, text in series.items()))
        raise InputError(f"{path}: holds {len(series)} series, {named}; keep each in a folder of its own")


def _open(path: Path, *, pixels: bool = False) -> Dataset:
    pydicom = _pydicom()
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=None if pixels else TAGS)
        for _ in () if pixels else dataset.iterall():  # pydicom looks at a value when it is first asked for
            pass
    except (*BROKEN, pydicom.errors.InvalidDicomError) as error:
        raise _damaged(path, error) from error
    return dataset  # type: ignore[no-any-return]


def _check(path: Path, header: Dataset) -> None:
    """Look at what a header claims before pixels are read.

    Raises:
        InputError: If they cannot be there, or cannot be read.
    """
    if "Rows" not in header:
        raise InputError(f"{path}: is a DICOM file without an image, as a report or a directory; leave it out")
    try:
        samples, frames = int(header.get("SamplesPerPixel", 1)), int(header.get("NumberOfFrames") or 1)
        kind = str(header.PhotometricInterpretation)
        bits = int(header.BitsAllocated) * (2 if kind == "YBR_FULL_422" else samples)  # two pixels share their colour
        claimed = int(header.Rows) * int(header.Columns) * frames * bits // 8
        syntax = header.file_meta.TransferSyntaxUID
        packed = bool(syntax.is_compressed or syntax.is_deflated)
    except BROKEN as error:
        raise _damaged(path, error) from error
    if not claimed or frames < 1:
        raise InputError(f"{path}: has no pixels; leave it out")
    check_claim(path, claimed, packed=packed)
    if "ModalityLUTSequence" in header or not kind.startswith(("MONOCHROME", "RGB", "YBR")):
        raise InputError(f"{path}: its values go through a table of their own; convert it to plain grey or RGB")


def _pixels(plane: _Plane, dataset: Dataset) -> Floats:
    """Pixels (C, H, W) of a slice in the units that the file speaks of."""
    pydicom = _pydicom()
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    header = plane.header
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise InputError(
            f"{plane.path}: is compressed as {syntax.name}, for which no decoder is installed; "
            "install one (pip install 'pylibjpeg[all]'), or decompress the file first"
        )
    try:
        stored = pixel_array(dataset, index=plane.frame).astype(np.float32)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
            stored = (-1 if signed else 2**bits - 1) - stored
        transformation = "PixelValueTransformationSequence"
        slope = _shared(header, plane.frame, transformation, "RescaleSlope")
        intercept = _shared(header, plane.frame, transformation, "RescaleIntercept")
        scaled = stored * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
        if scaled.shape[:2] != (plane.rows, plane.columns):
            raise ValueError(f"pixels are {scaled.shape}")
    except (*BROKEN, pydicom.errors.InvalidDicomError) as error:
        raise _damaged(plane.path, error) from error
    return np.asarray(scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1), dtype=np.float32)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM files need pydicom: pip install 'hrcam-lightning[dicom]'") from error
    return pydicom


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: cannot be read as DICOM, it may be damaged ({one_line(error)})")


def series_of(path: Path) -> str:
    """The series that a file says it belongs to.

    Raises:
        InputError: If it cannot be read.
    """
    return str(_open(path).get("SeriesInstanceUID", ""))
