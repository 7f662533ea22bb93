"""Backbones: image (B, C, *S) to a pyramid of features with their geometry."""

from hrcam_lightning.backbones.backbone import Backbone
from hrcam_lightning.backbones.measure import measure_levels
from hrcam_lightning.backbones.monai import MonaiBackbone
from hrcam_lightning.backbones.pyramid import ConvPyramid
from hrcam_lightning.backbones.tapped import TappedBackbone
from hrcam_lightning.backbones.timm import TimmBackbone

__all__ = ["Backbone", "ConvPyramid", "MonaiBackbone", "TappedBackbone", "TimmBackbone", "measure_levels"]
