"""Explainers that stand beside the model's own map."""

from hrcam_lightning.explain.null import center_maps, random_maps

__all__ = ["center_maps", "random_maps"]
