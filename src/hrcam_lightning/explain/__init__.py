"""Explainers that stand beside the model's own map: the CAM family, methods that perturb, and null explainers."""

from hrcam_lightning.explain.methods import NAMES, explain
from hrcam_lightning.explain.null import FLOORS

__all__ = ["FLOORS", "NAMES", "explain"]
