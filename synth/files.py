"""Single files of a set: written whole or not at all, the same bytes for the same content."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PART = ".part"
GZIP = (
    16 + zlib.MAX_WBITS
)  # what zlib calls a gzip file; without name and time, so that the bytes are those of the content
Voxels = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


class DatasetError(ValueError):
    """A folder that is not, or not yet, the set that was asked for; the text is one sentence."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a passing name, then rename it, so that ``path`` is never half-written.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    # By thread too: a worker of a cluster may still be at what a killed run had asked of it.
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed left under passing names."""
    for part in folder.rglob(f"*{PART}"):
        part.unlink(missing_ok=True)  # its writer may be alive after all


def nifti_bytes(voxels: Voxels, affine: npt.NDArray[np.float64]) -> bytes:
    """Return a compressed NIfTI file of ``voxels`` ``(*S)``; a 2D picture becomes one slice.

    Noise repeats nothing and a mask repeats one value: runs alone are smaller than level 1 and twice as fast.
    """
    volume = as_volume(voxels)
    header = _header(volume.shape, volume.dtype.str, np.asarray(affine, np.float64).tobytes())
    gzip = zlib.compressobj(1, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return gzip.compress(header + volume.tobytes("F")) + gzip.flush()


@lru_cache(maxsize=64)
def _header(shape: tuple[int, ...], dtype: str, affine: bytes) -> bytes:
    """Return what stands before the voxels: the same for all files of a set, and slower to make than to compress."""
    blank = nib.Nifti1Image(np.zeros(shape, dtype), np.frombuffer(affine).reshape(4, 4))  # type: ignore[no-untyped-call]
    blank.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    content: bytes = blank.to_bytes()
    return content[: len(content) - np.dtype(dtype).itemsize * math.prod(shape)]


def as_volume(voxels: Voxels) -> Voxels:
    """Return ``voxels`` with three axes, the shape that they have on disk."""
    return voxels if voxels.ndim == 3 else voxels[..., np.newaxis]


def read_nifti(path: Path) -> tuple[Voxels, npt.NDArray[np.float64]]:
    """Read voxels, in the type that they are stored in, and affine.

    Raises:
        DatasetError: the file is missing or broken.
    """
    try:
        volume = nib.Nifti1Image.from_filename(path)
        return np.asarray(volume.dataobj), np.asarray(volume.affine)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read as NIfTI: {' '.join(str(error).split())}") from None


def case_hash(image: Voxels, masks: Mapping[str, Voxels], affine: npt.NDArray[np.float64]) -> str:
    """Return the SHA-256 of a case.

    It covers shape, dtype, affine and voxels of the image and of each mask, by class name. It is taken over
    content, not files, and so does not depend on the compressor.
    """
    digest = hashlib.sha256(np.asarray(affine, "<f4").tobytes())  # single precision is what NIfTI keeps
    for name, voxels in [("", image), *sorted(masks.items())]:
        volume = as_volume(voxels)
        little = np.ascontiguousarray(volume.astype(volume.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name}|{little.dtype.name}|{little.shape}|".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
