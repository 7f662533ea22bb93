"""Loss of structure: something that every normal case shows fades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synth.families.plain import PlainFamily


@dataclass(frozen=True, kw_only=True)
class StructureLossFamily(PlainFamily):
    """A bright structure of the anatomy fades within a soft ellipsoid; beside the structure nothing changes.

    ``delta`` is the largest loss of intensity, and cannot exceed what the structure has. Mask, centre and
    volume are those of the loss itself: where it is at least half its largest.
    Placing multiplies the frame by the structure.

    Attributes:
        structure: name of the structure, one that the anatomy offers.
    """

    structure: str
    kind: Literal["structure_loss"] = "structure_loss"
