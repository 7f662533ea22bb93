"""Images and masks from files: NIfTI, PNG, JPEG, TIFF, DICOM."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from hrcam_lightning.data.dicom import dicom_grid, is_dicom, read_dicom
from hrcam_lightning.data.nifti import nifti_grid, read_nifti
from hrcam_lightning.data.pictures import read_picture
from hrcam_lightning.data.scan import Affine, Bools, Scan, size_of
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
DICOM = (".dcm", ".dicom")


def split_number(path: Path) -> tuple[Path, int | None]:
    """The file of ``scan.nii.gz#3`` and which of its volumes, pages or frames is meant; None if it does not say."""
    found = re.fullmatch(r"(.+)#(\d+)", path.name)
    if found is None or path.exists():  # a file may be called so
        return path, None
    return path.with_name(found[1]), int(found[2])


def read_scan(path: Path, *, palette: bool = False) -> Scan:
    """Read an image.

    NIfTI gives one channel, (1, *S), with a trailing axis of one slice dropped; a picture gives (1, H, W) if grey
    and (3, H, W) if in colour, transparency dropped; a DICOM file or the folder of a series as `read_dicom` says.

    Args:
        path: The file, or the folder of a DICOM series; of a file of several volumes, pages or frames one is chosen
            by its number, counted from 0: ``scan.nii.gz#3``.
        palette: Take the numbers of a palette picture, not its colours.

    Raises:
        InputError: If the file is missing, damaged, of an unknown kind, holds several images and none is chosen, or
            holds NaN.
    """
    file, number = _find(path)
    kind = _kind(file)
    if kind == "nifti":
        scan = read_nifti(file, number)
    elif kind == "picture":
        scan = read_picture(file, number, palette=palette)
    else:
        scan = read_dicom(file, number)
    if not np.isfinite(scan.voxels).all():
        bad = int((~np.isfinite(scan.voxels)).sum())
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; replace them or leave the case out")
    return scan


def read_grid(path: Path) -> tuple[tuple[int, ...], Affine | None]:
    """Shape and affine of an image, where the format allows it from its header alone.

    Raises:
        InputError: As `read_scan`.
    """
    file, number = _find(path)
    kind = _kind(file)
    if kind == "nifti":
        return nifti_grid(file, number)
    if kind == "dicom":
        return dicom_grid(file, number)
    return read_picture(file, number).voxels.shape[1:], None


def read_image(paths: Sequence[Path]) -> Scan:
    """Read an image of one file, or of several on one grid, which become channels in their order.

    Raises:
        InputError: If a file cannot be read, is not on the grid of the first, or is in colour beside others.
    """
    scans = [read_scan(path) for path in paths]
    first = scans[0]
    for path, scan in zip(paths[1:], scans[1:], strict=True):
        if scan.voxels.shape[1:] != first.voxels.shape[1:]:
            raise InputError(f"{path} is {_size(scan)}, but {paths[0]} is {_size(first)}: bring channels to one grid")
        if not _same_affine(scan, first):
            raise InputError(f"{path} has another affine than {paths[0]}: resample channels to one grid")
    if len(scans) > 1:
        for path, scan in zip(paths, scans, strict=True):
            if len(scan.voxels) > 1:
                raise InputError(f"{path}: is in colour and joined with others; only grey images can be joined")
    return Scan(np.concatenate([scan.voxels for scan in scans]), first.affine) if len(scans) > 1 else first


def read_mask(path: Path, image_path: Path, scan: Scan, values: Sequence[int] = ()) -> Bools:
    """Read the mask of an image; of a palette picture the numbers count.

    Args:
        path: The mask.
        image_path: Its image, for messages.
        scan: The image as read.
        values: Numbers that are inside; without any the mask must hold 0 and 1, or 0 and 255, alone.

    Raises:
        InputError: If it cannot be read, is not on the grid of its image, is a JPEG, whose values are not exact, is
            in colour, or holds other numbers.
    """
    if path.name.lower().endswith((".jpg", ".jpeg")):
        raise InputError(f"{path}: a JPEG cannot hold a mask, for it changes values; save the mask as PNG or NIfTI")
    mask = read_scan(path, palette=True)
    if mask.voxels.shape[1:] != scan.voxels.shape[1:]:
        raise InputError(
            f"{path}: the mask is {_size(mask)}, but its image {image_path} is {_size(scan)}; resample it to the image"
        )
    if mask.affine is not None and scan.affine is not None and not _same_affine(mask, scan):
        raise InputError(
            f"{path}: the mask has another affine than its image {image_path}; resample it, or mend the header"
        )
    numbers = mask.voxels[0]
    if (mask.voxels != numbers).any():
        raise InputError(f"{path}: the mask is in colour; save it in grey, 0 outside and 1 or 255 inside")
    if values:
        return np.isin(numbers, np.asarray(values, dtype=np.float32))
    found = np.unique(numbers)
    if not (set(found) <= {0, 1} or set(found) <= {0, 255}):
        shown = ", ".join(f"{value:g}" for value in found[:6]) + (", ..." if len(found) > 6 else "")
        raise InputError(
            f"{path}: the mask holds {shown}, not 0 and 1 alone; say which number is the class, as {path.name}=2"
        )
    return np.asarray(numbers != 0)


def _find(path: Path) -> tuple[Path, int | None]:
    file, number = split_number(path)
    if not file.exists():
        raise InputError(f"{path}: no such file")
    return file, number


def _kind(path: Path) -> Literal["nifti", "picture", "dicom"]:
    name = path.name.lower()
    if path.is_dir() or name.endswith(DICOM):
        return "dicom"
    if name.endswith(NIFTI):
        return "nifti"
    if name.endswith(PICTURES):
        return "picture"
    if is_dicom(path):  # most have no ending at all
        return "dicom"
    raise InputError(f"{path}: not a known kind of image; {', '.join(NIFTI + PICTURES + DICOM)} can be read")


def _same_affine(one: Scan, other: Scan) -> bool:
    if one.affine is None or other.affine is None:
        return one.affine is other.affine
    return np.allclose(one.affine, other.affine, atol=1e-3)


def _size(scan: Scan) -> str:
    return size_of(scan.voxels.shape[1:])
