"""Families of lesions: a file each, with what the specification says of it and how it is drawn.

A family has a ``kind`` and three questions: ``shape(frame, rng)`` draws what is random in it,
``reach`` is how far it spreads, in semi-axes of its frame, and ``finest_mm(shortest)`` the smallest half-width
in it.
"""

from __future__ import annotations

from synth.families.cluster import ClusterFamily
from synth.families.ellipsoid import EllipsoidFamily
from synth.families.gaussian import GaussianFamily
from synth.families.ring import RingFamily
from synth.families.spiculated import SpiculatedFamily
from synth.families.structure_loss import StructureLossFamily
from synth.families.texture import TextureFamily

Family = (
    EllipsoidFamily
    | GaussianFamily
    | RingFamily
    | SpiculatedFamily
    | TextureFamily
    | StructureLossFamily
    | ClusterFamily
)
__all__ = ["EllipsoidFamily", "Family", "StructureLossFamily"]
