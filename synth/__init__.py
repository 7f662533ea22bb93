"""Phantoms whose lesions, masks and detectability are known exactly."""

from synth.lesion import Lesion
from synth.phantom import PhantomCase, Phantoms
from synth.reading import SpecError
from synth.spec import PhantomSpec

__all__ = ["Lesion", "PhantomCase", "PhantomSpec", "Phantoms", "SpecError"]
