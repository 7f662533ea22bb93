"""What an anatomy hands on: its picture, where texture lies, where lesions may, and what may fade."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synth.grid import Array32


@dataclass(frozen=True)
class Background:
    """A rendered anatomy.

    Attributes:
        image: intensities, float32 ``(*S)``.
        texture: weight of the texture, 0 to 1, float32 ``(*S)``.
        tissue: where lesions may lie, bool ``(*S)``.
        parts: named parts of the tissue, bool ``(*S)`` each.
        structures: named normal structures that may fade, by what they add to ``image``: float32 ``(*S)`` each.
    """

    image: Array32
    texture: Array32
    tissue: npt.NDArray[np.bool_]
    parts: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    structures: Mapping[str, Array32] = field(default_factory=dict)

    def region(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a named part of the tissue, or all of it: ``tissue``."""
        return self.tissue if name == "tissue" else self.parts[name]


def inside(radius: Array32, surface: float, sharpness: np.float32 | Array32) -> Array32:
    """Return the share of each voxel inside a surface; ``sharpness`` is in voxels per unit of radius."""
    share = (np.float32(surface) - radius) * sharpness
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def ellipse(x: Array32, y: Array32, place: tuple[float, float, float, float], sharpness: np.float32) -> Array32:
    """Return the share of each voxel in an ellipse of ``place``, its middle and semi-axes in the units of x and y."""
    middle_x, middle_y, width, length = map(np.float32, place)
    radius = np.sqrt(((x - middle_x) / width) ** 2 + ((y - middle_y) / length) ** 2)
    return inside(radius, 1.0, sharpness * min(width, length))
