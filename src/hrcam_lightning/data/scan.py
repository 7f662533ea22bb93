"""An image in memory, and what every format checks before it reads one."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image, UnidentifiedImageError

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Affine = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

# What nibabel, Pillow and pydicom raise on files that are cut short, overwritten, or claim more than they hold.
DAMAGED = (
    ImageFileError, HeaderDataError, WrapStructError, UnidentifiedImageError, Image.DecompressionBombError, EOFError,
    OSError, SyntaxError, ValueError, OverflowError, MemoryError, zlib.error,
)  # fmt: skip
DEFLATE = 1032  # a byte of a deflated file holds at most so many, so a header that claims more lies


@dataclass(frozen=True)
class Scan:
    """An image in memory.

    Attributes:
        voxels: (C, *S) float32.
        affine: Voxel to millimetres, (4, 4); None for a picture.
    """

    voxels: Floats
    affine: Affine | None


def check_claim(path: Path, claimed: int, *, packed: bool) -> None:
    """Look at what a header claims before memory is asked for.

    Args:
        path: The file.
        claimed: Bytes of voxels that its header speaks of.
        packed: The voxels are compressed.

    Raises:
        InputError: If so much cannot be in a file of this size.
    """
    size = path.stat().st_size
    if claimed > size * (DEFLATE if packed else 1):
        raise InputError(
            f"{path}: its header claims {claimed:,} bytes of voxels, which a file of {size:,} bytes cannot hold; "
            "it is damaged or cut short, so copy it again"
        )


def checked_affine(path: Path, affine: Affine, dims: int) -> Affine:
    """An affine that can be inverted; a 2D image's unused third column is set at a right angle to its plane.

    Raises:
        InputError: If it is not finite, or a voxel has no size along an axis of the image, or two axes are parallel.
    """
    affine = np.array(affine, dtype=np.float64)
    axes = affine[:3, :dims]
    lengths = np.sqrt((axes**2).sum(0))
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        raise InputError(f"{path}: its affine is not finite, or a voxel has no size; mend the spacing in the header")
    if np.linalg.svd(axes / lengths, compute_uv=False)[-1] < 1e-4:
        raise InputError(f"{path}: its affine is singular, two axes run the same way; mend the header")
    if dims == 2 and np.linalg.matrix_rank(affine[:3, :3]) < 3:
        normal = np.cross(axes[:, 0], axes[:, 1])
        affine[:3, 2] = normal / np.sqrt((normal**2).sum())
    return affine


def size_of(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return " x ".join(str(n) for n in shape)


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
