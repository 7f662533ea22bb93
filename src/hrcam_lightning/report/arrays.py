"""Arrays as text that a browser reads back: few levels of grey, differences of neighbours, deflated, base64."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from hrcam_lightning.errors import InputError

Floats = np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Packed = dict[str, Any]

FINE, GREY, COARSE = 255, 127, 63
"""Steps between an array's lowest and highest value: of maps, of images, and of maps that are only looked at."""


def pack(values: Floats | Bools, where: str, steps: int = FINE) -> Packed:
    """Quantise linearly between the array's own lowest and highest value, and compress.

    A value is ``low + (high - low) * byte / steps``, at most half a step off; ``peak`` is the index of the highest one,
    which the steps alone do not tell from those near it. The bytes are differences to the
    neighbour along each axis, modulo steps + 1, in C order: maps are smooth, and that halves them.

    Args:
        values: (*S).
        where: What the array is, for the message.
        steps: At most 255.

    Raises:
        InputError: If a value is not finite.
    """
    plain = np.asarray(values, dtype=np.float64)
    if not np.isfinite(plain).all():
        raise InputError(f"{where} holds values that are not finite, which cannot be shown; leave this map out")
    low, high = float(plain.min()), float(plain.max())
    coded = np.rint((plain - low) * (steps / ((high - low) or 1.0))).astype(np.int16)
    for axis in range(coded.ndim):
        coded = np.diff(coded, axis=axis, prepend=np.zeros_like(coded.take([0], axis))) % (steps + 1)
    text = squeeze(coded.astype(np.uint8).tobytes())
    told = {"low": _short(low), "high": _short(high), "steps": steps, "peak": int(plain.argmax())}
    return {"shape": list(plain.shape), **told, "bytes": text}


def _short(value: float) -> float:
    """The same number to nine digits, which are all that a float32 has."""
    return float(f"{value:.9g}")


def squeeze(content: bytes) -> str:
    """Deflate (zlib) and write as base64, for the page's DecompressionStream."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


class Store:
    """Packed arrays, each kept once: many cases share an empty mask, and the map of a floor."""

    def __init__(self) -> None:
        self.arrays: list[Packed] = []
        self._places: dict[str, int] = {}

    def add(self, packed: Packed) -> int:
        """Which of `arrays` it is."""
        key = repr(packed)
        if key not in self._places:
            self._places[key] = len(self.arrays)
            self.arrays.append(packed)
        return self._places[key]
