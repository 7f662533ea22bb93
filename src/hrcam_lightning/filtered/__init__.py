"""Heatmaps as segmentations, and retraining on what they show (Guan and Loew, arXiv 2201.02771)."""

from hrcam_lightning.filtered.trainer import StudyTrainer

__all__ = ["StudyTrainer"]
