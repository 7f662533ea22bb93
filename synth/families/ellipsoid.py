"""A soft ellipsoid: plateau, edge, nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synth.families.plain import PlainFamily


@dataclass(frozen=True, kw_only=True)
class EllipsoidFamily(PlainFamily):
    """A soft ellipsoid, of which nothing is left to draw."""

    kind: Literal["ellipsoid"] = "ellipsoid"
