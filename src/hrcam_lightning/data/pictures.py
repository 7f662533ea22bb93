"""PNG, JPEG and TIFF: pictures without a place in space."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hrcam_lightning.data.scan import DAMAGED, Floats, Scan, check_claim, one_line
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def read_picture(path: Path, number: int | None = None, *, palette: bool = False) -> Scan:
    """Read a picture: (1, H, W) if grey, (3, H, W) if in colour, transparency dropped.

    Args:
        path: The file.
        number: Which page of a TIFF, counted from 0.
        palette: Take the numbers of a palette picture, not its colours.

    Raises:
        InputError: If it is damaged, or has several pages and none is chosen, or more than 8 bits a colour.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the claim is checked below
            pixels = _read(path, number, palette)
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read as a picture, it may be damaged ({one_line(error)})") from error
    return Scan(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)), None)


def _read(path: Path, number: int | None, palette: bool) -> Floats:
    with Image.open(path) as image:
        pages = getattr(image, "n_frames", 1)
        if number is None and pages > 1:
            raise InputError(f"{path}: holds {pages} pictures; choose one, counted from 0, as {path.name}#0")
        if (number or 0) >= pages:
            raise InputError(f"{path}: has no picture #{number}; its {pages} pictures are counted from 0")
        if number:
            image.seek(number)
        check_claim(path, image.width * image.height // 8, packed=True)
        if image.mode.startswith(("RGB", "P")) and _deep(path):
            raise InputError(f"{path}: has 16 bits a colour, of which 8 would be lost; save it in grey or in 8 bits")
        kept = (*GREY, "RGB", *(("P",) if palette else ()))
        mode = image.mode if image.mode in kept else "L" if image.mode in ("LA", "La") else "RGB"
        return np.asarray(image if mode == image.mode else image.convert(mode), dtype=np.float32)


def _deep(path: Path) -> bool:
    """Pillow reads a PNG of 16 bits a colour as one of 8, without a word."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and head[24] == 16
