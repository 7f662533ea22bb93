"""Decoders: a pyramid of features to class score maps."""

from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.decoders.hrcam import CAM, HRCAM

__all__ = ["CAM", "HRCAM", "Decoder"]
