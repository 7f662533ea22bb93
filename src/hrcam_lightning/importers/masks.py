"""Masks drawn from boxes or from pictures of class numbers, as PNG of 0 and 255 on the image's grid."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from hrcam_lightning.data.readers import PICTURES, read_grid
from hrcam_lightning.data.scan import DAMAGED, Bools
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing, safe_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge: the box of the first pixel alone is (0, 0, 1, 1)."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of one class in one image.

    Attributes:
        image: The image, whose size the mask has.
        boxes: Boxes, in pixels of `drawn_on`.
        drawn_on: Height and width of the picture that the boxes were drawn on; the image's own if None.
        source: Where the boxes stand, for sentences.
    """

    image: Path
    boxes: tuple[Box, ...]
    drawn_on: tuple[float, float] | None
    source: Path

    def pixels(self) -> Bools:
        """Pixels whose centre lies in a box, (H, W); of a box thinner than a pixel, the one at its centre.

        A box that juts out is clipped, as long as half of it lies in the image: annotators draw over the edge.

        Raises:
            InputError: If a box is empty, or lies mostly outside.
        """
        height, width = size_of(self.image)
        down, across = (1.0, 1.0) if self.drawn_on is None else (height / self.drawn_on[0], width / self.drawn_on[1])
        mask = np.zeros((height, width), dtype=bool)
        for left, top, right, bottom in self.boxes:
            rows, columns = (top * down, bottom * down), (left * across, right * across)
            inside = _within(rows, height) * _within(columns, width)
            if not inside >= 0.5:  # not so for NaN either
                text = ", ".join(f"{value:g}" for value in (left, top, right, bottom))
                on = f"{width} x {height} pixels" + ("" if self.drawn_on is None else ", to which it was scaled")
                raise InputError(
                    f"{self.source}: the box {text} (left, top, right, bottom) of {self.image} is empty or lies mostly "
                    f"outside of the image of {on}; mend the box, or say what size it was drawn on"
                )
            mask[_span(rows, height), _span(columns, width)] = True
        return mask


@dataclass(frozen=True)
class Numbers:
    """One class of a picture whose pixels are class numbers, such as those of Pascal VOC.

    Attributes:
        file: The picture.
        number: The class.
    """

    file: Path
    number: int

    def pixels(self) -> Bools:
        """Pixels of the class, (H, W).

        Raises:
            InputError: If the picture cannot be read, or is in colour.
        """
        try:
            with Image.open(self.file) as picture:
                if picture.mode not in ("P", "L"):
                    raise InputError(f"{self.file}: is not a picture of class numbers, but in mode {picture.mode}")
                return np.asarray(np.asarray(picture) == self.number)
        except DAMAGED as error:
            raise InputError(f"{self.file}: cannot be read as a picture, it may be damaged ({error})") from error


Mask = Path | Boxes | Numbers


def save_masks(folder: Path, wanted: Mapping[str, Mapping[str, Mask]]) -> dict[str, dict[str, Path]]:
    """Draw what is not a file yet as ``<case>_<class>_mask.png``.

    Args:
        folder: Where to.
        wanted: For each case, by class, a file or what to draw.

    Returns:
        For each case, by class, the file.

    Raises:
        InputError: If two masks would have one name.
    """
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    drawn: dict[Path, Boxes | Numbers] = {}
    for case, masks in wanted.items():
        for name, mask in masks.items():
            if isinstance(mask, (Boxes, Numbers)):
                path = folder / f"{safe_name(case)}_{safe_name(name)}_mask.png"
                if path in drawn:
                    raise InputError(f"{path}: two masks would be written there; rename the image of case '{case}'")
                drawn[path], mask = mask, path
            found[case][name] = mask
    console = Console(stderr=True)
    shown = drawn and console.is_terminal
    for path, mask in track(drawn.items(), "masks", len(drawn), console=console, disable=not shown):
        with replacing(path) as part:
            Image.fromarray(mask.pixels().astype(np.uint8) * 255).save(part)
    return found


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a picture or radiograph, by its header.

    Raises:
        InputError: If it cannot be read, or lies in space, where a box of pixels is no place.
    """
    if not path.name.lower().endswith(PICTURES):
        shape, affine = read_grid(path)
        if affine is not None or len(shape) != 2:
            raise InputError(f"{path}: boxes are for pictures and radiographs, and this is a scan that lies in space")
        return shape[0], shape[1]
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read as a picture, it may be damaged ({error})") from error


def _within(edges: tuple[float, float], size: int) -> float:
    """Share of an interval that lies from 0 to `size`; 0 if it is empty."""
    low, high = edges
    return max(min(high, size) - max(low, 0), 0) / (high - low) if high > low else 0.0


def _span(edges: tuple[float, float], size: int) -> slice:
    first, last = (min(max(math.ceil(edge - 0.5), 0), size) for edge in edges)
    if first >= last:
        first = min(max(math.floor(sum(edges) / 2), 0), size - 1)
        last = first + 1
    return slice(first, last)
