"""What is known of lesions beyond their masks: ``lesions.csv`` beside the table of cases."""

from __future__ import annotations

import csv
import io
import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TABLE = "lesions.csv"


class KnownLesion(NamedTuple):
    """A lesion as whoever drew or measured it knows it; NaN where that is not known.

    Attributes:
        class_name: Its class; empty where there is only one.
        centre_mm: Its middle in the space of the image's affine; None if not known.
        centre_voxel: The same along the stored axes, in voxels.
        family: Its shape.
        size_mm: Diameter: twice the geometric mean of the semi-axes.
        volume_mm3: Volume.
        contrast: Peak change of intensity.
        cnr: Contrast over the standard deviation of the background.
        dprime: Detectability of the lesion known exactly.
    """

    class_name: str
    centre_mm: tuple[float, ...] | None
    centre_voxel: tuple[float, ...] | None
    family: str = ""
    size_mm: float = math.nan
    volume_mm3: float = math.nan
    contrast: float = math.nan
    cnr: float = math.nan
    dprime: float = math.nan


KnownLesions = dict[str, list[KnownLesion]]
"""By case."""


def read_lesions(path: Path) -> KnownLesions:
    """Read what is known of the lesions of a table of cases; nothing if there is no such file.

    Columns: ``case`` and ``centre_mm_x``, ``centre_mm_y`` (and ``_z``) or ``centre_voxel_x`` and so on; where there are
    any ``class``, ``family``, ``size_mm`` (else from ``radius_mm_1``, ``radius_mm_2``, ...), ``volume_mm3``, ``delta``
    (the contrast), ``cnr``, ``dprime``. A table of that name with other columns is left out, with a warning.

    Args:
        path: The file, as ``hrcam-synth generate`` writes it or a user's own.

    Raises:
        InputError: If it cannot be read, or a number is none.
    """
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({error}); mend or remove it") from error
    columns = list(rows[0]) if rows else []
    if rows and not ("case" in columns and {"centre_mm_x", "centre_voxel_x"} & set(columns)):
        wanted = "'case' and 'centre_mm_x', ... or 'centre_voxel_x', ..."
        warnings.warn(f"{path} is left out: it has no columns {wanted}", stacklevel=2)
        return {}
    found: KnownLesions = {}
    for line, row in enumerate(rows, 2):
        try:
            found.setdefault(row["case"].strip(), []).append(_lesion(row))
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}; write a number, or nothing") from None
    return found


def diameter(radii_mm: Sequence[float]) -> float:
    """Of the disc or ball with the area or volume of an ellipsoid with those semi-axes; NaN without any."""
    return 2 * math.prod(radii_mm) ** (1 / len(radii_mm)) if radii_mm else math.nan


def _lesion(row: dict[str, str]) -> KnownLesion:
    radii = _numbers(row, [f"radius_mm_{axis}" for axis in (1, 2, 3)])
    return KnownLesion(
        class_name=(row.get("class") or "").strip(),
        centre_mm=_numbers(row, [f"centre_mm_{axis}" for axis in "xyz"]) or None,
        centre_voxel=_numbers(row, [f"centre_voxel_{axis}" for axis in "xyz"]) or None,
        family=(row.get("family") or "").strip(),
        size_mm=_number(row, "size_mm") if row.get("size_mm") else diameter(radii),
        volume_mm3=_number(row, "volume_mm3"),
        contrast=_number(row, "delta"),
        cnr=_number(row, "cnr"),
        dprime=_number(row, "dprime"),
    )


def _numbers(row: dict[str, str], columns: Sequence[str]) -> tuple[float, ...]:
    return tuple(_number(row, name) for name in columns if row.get(name))


def _number(row: dict[str, str], column: str) -> float:
    text = (row.get(column) or "").strip()
    return float(text) if text else math.nan
