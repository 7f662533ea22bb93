"""Metrics: a functional core, a torchmetrics shell, estimates with intervals. Imports nothing else of ours."""

from hrcam_lightning.metrics.boxes import BoxOverlaps, best_threshold, box_overlaps
from hrcam_lightning.metrics.calibration import ReliabilityBin, brier_score, calibration_error, reliability
from hrcam_lightning.metrics.detection import component_peaks, froc, local_maxima
from hrcam_lightning.metrics.displacement import peak_displacements
from hrcam_lightning.metrics.estimate import Estimate, bootstrap, wilson
from hrcam_lightning.metrics.lesions import label_lesions, lesion_peaks, recall_by_size_and_dprime
from hrcam_lightning.metrics.localization import (
    overlaps,
    peak_distances,
    pixel_average_precision,
    pointing_hits,
    relevance_mass,
    relevance_rank,
)
from hrcam_lightning.metrics.paired import paired_difference
from hrcam_lightning.metrics.pooled import aupro, exact_columns, pooled_pixel_ap
from hrcam_lightning.metrics.roc import auroc, auroc_difference, auroc_estimate, delong, lroc_estimate
from hrcam_lightning.metrics.scores import CaseScores, case_number
from hrcam_lightning.metrics.table import ScoreTable

__all__ = [
    "BoxOverlaps",
    "CaseScores",
    "Estimate",
    "ReliabilityBin",
    "ScoreTable",
    "aupro",
    "auroc",
    "auroc_difference",
    "auroc_estimate",
    "best_threshold",
    "bootstrap",
    "box_overlaps",
    "brier_score",
    "calibration_error",
    "case_number",
    "component_peaks",
    "delong",
    "exact_columns",
    "froc",
    "label_lesions",
    "lesion_peaks",
    "local_maxima",
    "lroc_estimate",
    "overlaps",
    "paired_difference",
    "peak_displacements",
    "peak_distances",
    "pixel_average_precision",
    "pointing_hits",
    "pooled_pixel_ap",
    "recall_by_size_and_dprime",
    "relevance_mass",
    "relevance_rank",
    "reliability",
    "wilson",
]
