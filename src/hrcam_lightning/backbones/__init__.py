"""Backbones: image (B, C, *S) to a pyramid of features with their geometry."""

from hrcam_lightning.backbones.backbone import Backbone
from hrcam_lightning.backbones.pyramid import ConvPyramid

__all__ = ["Backbone", "ConvPyramid"]
