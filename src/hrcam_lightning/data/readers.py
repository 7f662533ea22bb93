"""Images and masks from files: NIfTI, PNG, JPEG."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError
from PIL import Image, UnidentifiedImageError

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Affine = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg")
# What nibabel and Pillow raise on files that are cut short, overwritten, or claim more voxels than they hold.
DAMAGED = (
    ImageFileError, HeaderDataError, WrapStructError, UnidentifiedImageError, EOFError, OSError, SyntaxError,
    ValueError, OverflowError, MemoryError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """An image in memory.

    Attributes:
        voxels: (C, *S) float32.
        affine: Voxel to millimetres, (4, 4); None for a picture.
    """

    voxels: Floats
    affine: Affine | None


def read_scan(path: Path, *, palette: bool = False) -> Scan:
    """Read an image.

    NIfTI gives one channel, (1, *S), with a trailing axis of one slice dropped; a picture gives (1, H, W) if grey
    and (3, H, W) if in colour, transparency dropped.

    Args:
        path: The file.
        palette: Take the numbers of a palette picture, not its colours.

    Raises:
        InputError: If the file is missing, damaged, of an unknown kind, of more than three axes, or holds NaN.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(NIFTI):
        scan = _read_nifti(path)
    elif name.endswith(PICTURES):
        scan = Scan(_read_picture(path, palette), None)
    else:
        raise InputError(f"{path}: not a known kind of image; {', '.join(NIFTI + PICTURES)} can be read")
    if not np.isfinite(scan.voxels).all():
        bad = int((~np.isfinite(scan.voxels)).sum())
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; replace them or leave the case out")
    return scan


def read_mask(path: Path, image_path: Path, scan: Scan) -> Bools:
    """Read the mask of an image: 0 is outside, anything else inside; of a palette picture the numbers count.

    Raises:
        InputError: If it cannot be read, is not on the grid of its image, or is a JPEG, whose values are not exact.
    """
    if path.name.lower().endswith((".jpg", ".jpeg")):
        raise InputError(f"{path}: a JPEG cannot hold a mask, for it changes values; save the mask as PNG or NIfTI")
    mask = read_scan(path, palette=True)
    if mask.voxels.shape[1:] != scan.voxels.shape[1:]:
        raise InputError(
            f"{path}: the mask is {_size(mask)}, but its image {image_path} is {_size(scan)}; resample it to the image"
        )
    both = mask.affine is not None and scan.affine is not None
    if both and not np.allclose(mask.affine, scan.affine, atol=1e-3):  # type: ignore[arg-type]
        raise InputError(
            f"{path}: the mask has another affine than its image {image_path}; resample it, or mend the header"
        )
    return np.asarray((mask.voxels != 0).any(0))


def _read_nifti(path: Path) -> Scan:
    try:
        image = nib.load(path)
        assert isinstance(image, SpatialImage)  # every kind that the two endings stand for
        data = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read as NIfTI, it may be damaged ({_one_line(error)})") from error
    affine = np.asarray(image.affine, dtype=np.float64)
    if data.dtype.kind not in "iufb":
        raise InputError(f"{path}: voxels of type {data.dtype} are not numbers on a scale; convert the image to float")
    if not data.size or not np.isfinite(affine).all():
        raise InputError(f"{path}: has no voxels, or an affine that is not finite; mend the header")
    while data.ndim > 2 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3):
        shape = " x ".join(str(n) for n in data.shape)
        raise InputError(f"{path}: has shape {shape}; 2D and 3D images can be read, so pick one volume of it first")
    return Scan(np.ascontiguousarray(data, dtype=np.float32)[None], affine)


def _read_picture(path: Path, palette: bool) -> Floats:
    kept = ("1", "L", "I", "F", "I;16", "I;16B", "RGB", *(("P",) if palette else ()))
    try:
        with Image.open(path) as image:
            mode = image.mode if image.mode in kept else "L" if image.mode in ("LA", "La") else "RGB"
            pixels = np.asarray(image if mode == image.mode else image.convert(mode), dtype=np.float32)
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read as a picture, it may be damaged ({_one_line(error)})") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(scan: Scan) -> str:
    return " x ".join(str(n) for n in scan.voxels.shape[1:])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
