"""NIfTI files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from hrcam_lightning.data.scan import DAMAGED, Affine, Scan, check_claim, checked_affine, one_line, size_of
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def read_nifti(path: Path, number: int | None = None) -> Scan:
    """Read a volume of a NIfTI file, (1, *S), slope and intercept applied; a trailing axis of one is dropped.

    Args:
        path: The file.
        number: Which volume of a 4D file, counted from 0; of a 3D file it can only be 0.

    Raises:
        InputError: If it is damaged, holds no numbers on a scale, or holds several volumes and none is chosen.
    """
    image, shape, affine = _open(path, number)
    rest = (0, number or 0, 0, 0, 0)[len(shape) - 2 : len(image.shape) - 2]  # the indices of what is not read whole
    try:
        voxels = np.asarray(image.dataobj[(*(slice(None),) * len(shape), *rest)], dtype=np.float32)
    except DAMAGED as error:
        raise _damaged(path, error) from error
    return Scan(np.ascontiguousarray(voxels)[None], affine)


def nifti_grid(path: Path, number: int | None = None) -> tuple[tuple[int, ...], Affine]:
    """Shape and affine that `read_nifti` would give, from the header alone.

    Raises:
        InputError: As `read_nifti`, but for damage to the voxels.
    """
    return _open(path, number)[1:]


def _open(path: Path, number: int | None) -> tuple[SpatialImage, tuple[int, ...], Affine]:
    try:
        image = nib.load(path)
        assert isinstance(image, SpatialImage)  # every kind that the two endings stand for
        shape, kind = tuple(int(n) for n in image.shape), np.dtype(image.get_data_dtype())
        claimed = math.prod(shape) * kind.itemsize
        affine = np.asarray(image.affine, dtype=np.float64)
        with image.file_map["image"].get_prepare_fileobj("rb") as file:
            # Its check would take a spacing of 0 for 1.
            raw: Any = type(image.header).from_fileobj(file, check=False)  # type: ignore[call-arg, arg-type]
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if kind.kind not in "iufb":
        raise InputError(f"{path}: voxels of type {kind} are not numbers on a scale; convert the image to float")
    if not claimed:
        raise InputError(f"{path}: has no voxels; leave the case out")
    check_claim(path, claimed, packed=path.name.lower().endswith(".gz"))
    spatial = shape[:2] if shape[2:3] in ((), (1,)) else shape[:3]
    if len(shape) < 2 or math.prod(shape[4:]) > 1:
        raise InputError(f"{path}: has shape {size_of(shape)}; 2D, 3D and 4D images can be read")
    volumes = shape[3] if len(shape) > 3 else 1
    if number is None and volumes > 1:
        raise InputError(
            f"{path}: has shape {size_of(shape)}, {volumes} volumes; choose one, counted from 0, as {path.name}#0"
        )
    if (number or 0) >= volumes:
        raise InputError(f"{path}: has no volume #{number}; its {volumes} volumes are counted from 0")
    if not raw["sform_code"] and not raw["pixdim"][1 : 1 + len(spatial)].all():
        raise InputError(f"{path}: a voxel has no size, its spacing is 0; mend the spacing in the header")
    return image, spatial, checked_affine(path, affine, len(spatial))


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: cannot be read as NIfTI, it may be damaged ({one_line(error)})")
