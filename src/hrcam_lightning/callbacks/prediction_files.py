"""What `predict` writes of one case."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

from hrcam_lightning.callbacks.drawing import pixels
from hrcam_lightning.callbacks.planes import draw_planes, overlay_volume
from hrcam_lightning.files import replacing, safe_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.callbacks.drawing import Limits
    from hrcam_lightning.data.frame import Frame

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

COLUMNS = (
    "case", "class", "probability", "peak", "peak_i", "peak_j", "peak_k", "peak_x_mm", "peak_y_mm", "peak_z_mm",
    "lesions", "lesion_voxels", "lesion_mm3",
)  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """What is known of one case, on the network's grid.

    Attributes:
        case: Its name.
        image: (*S), channels averaged.
        maps: (K, *S) raw logits.
        bias: (K,), what the evidence has beyond the maps.
        probabilities: (K,).
        frame: The way to the file's grid.
    """

    case: str
    image: Array
    maps: Array
    bias: Array
    probabilities: Array
    frame: Frame


def write_prediction(
    folder: Path, found: Prediction, classes: Sequence[str], thresholds: Sequence[float], limits: Limits
) -> list[dict[str, Any]]:
    """Write maps, masks and pictures of a case, on the grid of its file.

    Args:
        folder: Where to.
        found: The case.
        classes: Names of the K maps.
        thresholds: Map values from which a lesion counts as found, one a class; NaN where none is known.
        limits: Logits at the two ends of the colour scale.

    Returns:
        A row a class for ``predictions.csv``.
    """
    base = folder / safe_name(found.case)
    maps = found.frame.back(found.maps)
    image = found.frame.back(found.image[None])[0]
    known = np.isfinite(np.asarray(thresholds, dtype=np.float64))
    masks = np.stack([one >= limit for one, limit in zip(maps, thresholds, strict=True)])  # NaN is never a lesion
    affine = found.frame.stored.affine
    if affine is not None:
        write_nifti(base.with_name(f"{base.name}_map.nii.gz"), maps, affine)
        if known.any():  # of a class without a threshold it is 0 throughout; its row says nothing of lesions
            write_nifti(base.with_name(f"{base.name}_mask.nii.gz"), masks.astype(np.uint8), affine)
    else:
        with replacing(base.with_name(f"{base.name}_map.npy")) as part:
            np.save(part, maps)
    for k, name in enumerate(classes):
        evidence = maps[k] + found.bias[k]
        if affine is None and known[k]:
            _save(base.with_name(f"{base.name}_{safe_name(name)}_mask.png"), np.asarray(255 * masks[k], dtype=np.uint8))
        if affine is not None and maps.ndim == 4:
            title = f"{found.case}: P({name}) = {found.probabilities[k]:.2f}"
            picture: np.ndarray[Any, Any] = pixels(draw_planes(title, image, evidence, affine, limits))
        else:
            grey = np.nan_to_num(image, nan=float(np.nanmin(image)))
            picture = overlay_volume(grey, evidence, limits)
            if affine is not None:  # the first axis to the right, the second upwards
                picture = picture.swapaxes(0, 1)[::-1]
        _save(base.with_name(f"{base.name}_{safe_name(name)}.png"), picture)
    return [
        _row(found, name, k, maps[k], masks[k] if known[k] else None, affine) for k, name in enumerate(classes)
    ]  # fmt: skip


def write_nifti(path: Path, maps: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """Write maps (K, *S) as NIfTI in millimetres; 2D ones as one slice, several classes as a fourth axis."""
    voxels = maps if maps.ndim == 4 else maps[..., None]
    data = voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1)
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    with replacing(path) as part:  # at once, for nibabel compresses row by row
        part.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _save(path: Path, picture: np.ndarray[Any, Any]) -> None:
    with replacing(path) as part:
        Image.fromarray(np.ascontiguousarray(picture)).save(part, compress_level=1)


def _row(
    found: Prediction,
    name: str,
    k: int,
    class_map: Array,
    mask: np.ndarray[Any, Any] | None,
    affine: np.ndarray[Any, Any] | None,
) -> dict[str, Any]:
    peak = np.unravel_index(int(np.nanargmax(class_map)), class_map.shape)
    row: dict[str, Any] = {
        "case": found.case,
        "class": name,
        "probability": f"{found.probabilities[k]:.6g}",
        "peak": f"{np.nanmax(class_map):.6g}",
        **{f"peak_{axis}": int(position) for axis, position in zip("ijk", peak, strict=False)},
    }
    if affine is not None:
        place = affine @ [*peak, *[0] * (3 - len(peak)), 1.0]
        row |= {f"peak_{axis}_mm": f"{mm:.6g}" for axis, mm in zip("xyz", place[:3], strict=True)}
    if mask is not None:
        row["lesions"] = int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])
        row["lesion_voxels"] = int(mask.sum())
        if affine is not None:
            row["lesion_mm3"] = f"{mask.sum() * abs(np.linalg.det(affine[:3, :3])):.6g}"
    return row
