"""Metrics: a functional core, a torchmetrics shell, estimates with intervals. Imports nothing else of ours."""

from hrcam_lightning.metrics.displacement import peak_displacements
from hrcam_lightning.metrics.estimate import Estimate, auroc, bootstrap
from hrcam_lightning.metrics.localization import lesion_peaks, pixel_average_precision, pointing_hits
from hrcam_lightning.metrics.scores import CaseScores, ScoreTable, case_number

__all__ = [
    "CaseScores",
    "Estimate",
    "ScoreTable",
    "auroc",
    "bootstrap",
    "case_number",
    "lesion_peaks",
    "peak_displacements",
    "pixel_average_precision",
    "pointing_hits",
]
