"""Decoders: a pyramid of features to class score maps."""

from hrcam_lightning.decoders.decoder import Decoder
from hrcam_lightning.decoders.deeplab import DeepLabV3Plus
from hrcam_lightning.decoders.fpn import FPN
from hrcam_lightning.decoders.hrcam import CAM, HRCAM
from hrcam_lightning.decoders.li2018 import Li2018
from hrcam_lightning.decoders.pan import PAN
from hrcam_lightning.decoders.pylon import PYLON
from hrcam_lightning.decoders.unet import UNet

__all__ = ["CAM", "FPN", "HRCAM", "PAN", "PYLON", "Decoder", "DeepLabV3Plus", "Li2018", "UNet"]
