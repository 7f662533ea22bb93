"""Callbacks: what comes out of a run."""

from hrcam_lightning.callbacks.curriculum import SubtletyCurriculum
from hrcam_lightning.callbacks.faithfulness import FaithfulnessMetrics
from hrcam_lightning.callbacks.localization import LocalizationMetrics
from hrcam_lightning.callbacks.metrics_file import MetricsFile
from hrcam_lightning.callbacks.panels import FusedMapPanels
from hrcam_lightning.callbacks.predictions import PredictionWriter

__all__ = [
    "FaithfulnessMetrics",
    "FusedMapPanels",
    "LocalizationMetrics",
    "MetricsFile",
    "PredictionWriter",
    "SubtletyCurriculum",
]
