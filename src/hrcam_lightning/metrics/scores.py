"""What is kept of each case, and the figures that follow from it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hrcam_lightning.metrics.displacement import displacement_estimates, peak_displacements
from hrcam_lightning.metrics.estimate import Estimate, auroc_estimate, mean_estimate, undefined
from hrcam_lightning.metrics.localization import lesion_peaks, pixel_average_precision, pointing_hits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass  # not frozen: torchmetrics walks through what compute returns
class ScoreTable:
    """Scores of n cases and their m lesions, for K classes.

    Attributes:
        case: (n,) numbers made of the cases' names by `case_number`.
        label: (n, K), 1 where the case is of the class.
        probability: (n, K).
        peak: (n, K) highest map value.
        finite: (n, K), 1 where the map holds no NaN or infinity.
        pointing: (n, K) hit or miss, NaN without a mask.
        pixel_ap: (n, K) average precision, NaN without a mask.
        displacement: (n, K, D) from lesion to peak in pixels, NaN without a mask or a peak.
        lesion_class: (m,) class of each lesion.
        lesion_peak: (m,) highest map value on each lesion.
    """

    case: np.ndarray[tuple[int], np.dtype[np.int64]]
    label: Floats
    probability: Floats
    peak: Floats
    finite: Floats
    pointing: Floats
    pixel_ap: Floats
    displacement: Floats
    lesion_class: Floats
    lesion_peak: Floats

    def thresholds(self, recall: float = 0.8) -> list[float]:
        """For each class the highest threshold that finds the share `recall` of its lesions.

        NaN for a class without lesions, or with a map that is not finite on one.
        """
        found = []
        for k in range(self.label.shape[1]):
            peaks = np.sort(self.lesion_peak[self.lesion_class == k])[::-1]
            known = len(peaks) > 0 and np.isfinite(peaks).all()
            found.append(float(peaks[math.ceil(recall * len(peaks)) - 1]) if known else math.nan)
        return found

    def classification(
        self, task: Literal["binary", "multiclass", "multilabel"], resamples: int = 1000
    ) -> dict[str, Estimate]:
        """``auroc``, averaged over the classes, or ``accuracy`` for a multiclass task.

        Args:
            task: Kind of label.
            resamples: Of the intervals; 0 for none.
        """
        name = "accuracy" if task == "multiclass" else "auroc"
        broken = int((~np.isfinite(self.probability)).any(1).sum())
        if broken:
            reason = f"{broken} of {len(self.case)} cases have no finite probability"
            return {name: undefined(len(self.case), reason)}
        if task != "multiclass":
            return {name: auroc_estimate(self.probability, self.label, resamples)}
        right = (self.probability.argmax(1) == self.label.argmax(1)).astype(np.float64)
        return {name: mean_estimate(right, np.ones(len(right)), "there are no cases", resamples)}

    def localization(
        self, thresholds: Sequence[float] | None, normal_class: int | None = None, resamples: int = 1000
    ) -> dict[str, Estimate]:
        """``pointing``, ``pixel_ap``, ``normal/false_activation`` and the peak's ``displacement_px``.

        Args:
            thresholds: One a class, found on validation cases; None if there are none.
            normal_class: Which class means "no finding", in a multiclass task that has one. Elsewhere a normal image is
                one that is of no class.
            resamples: Of the intervals; 0 for none.
        """
        broken = int((self.finite.min(1) == 0).sum())
        displacement = displacement_estimates(self.displacement, 0 if broken else resamples)
        if broken:
            because = undefined(len(self.case), f"{broken} of {len(self.case)} cases have maps with NaN or infinity")
            return dict.fromkeys(("pointing", "pixel_ap", "normal/false_activation", *displacement), because)
        no_mask = "no positive case has a mask"
        return {
            "pointing": _mean_known(self.pointing, no_mask, resamples),
            "pixel_ap": _mean_known(self.pixel_ap, no_mask, resamples),
            "normal/false_activation": self._false_activation(thresholds, normal_class, resamples),
            **displacement,
        }

    def _false_activation(
        self, thresholds: Sequence[float] | None, normal_class: int | None, resamples: int
    ) -> Estimate:
        """Share of normal images on which any class's map reaches its threshold."""
        limits = np.asarray(thresholds if thresholds is not None else [math.nan] * self.label.shape[1])
        findings = np.arange(len(limits)) != (-1 if normal_class is None else normal_class)
        if not np.isfinite(limits[findings]).any():
            return undefined(0, "no threshold: it is set on validation cases with masks, by maps of the same kind")
        normal = (self.label[:, findings].sum(1) == 0).astype(np.float64)
        above = (self.peak >= limits)[:, findings].any(1)  # a class without threshold, NaN, is never reached
        return mean_estimate(normal * above, normal, "there are no normal cases", resamples)


class CaseScores(Metric):
    """Collects a few numbers a case, so that memory does not grow with the images, and reduces over processes."""

    full_state_update = False
    higher_is_better = True
    _columns = ("case", "label", "probability", "peak", "finite", "pointing", "pixel_ap", "displacement")
    _lesion_columns = ("lesion_case", "lesion_class", "lesion_number", "lesion_peak")

    def __init__(self) -> None:
        super().__init__()
        for name in (*self._columns, *self._lesion_columns):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, cases: Sequence[str], labels: Tensor, probabilities: Tensor, maps: Tensor, masks: Tensor) -> None:
        """Take in a batch.

        Args:
            cases: B names.
            labels: (B, K), 0 or 1.
            probabilities: (B, K).
            maps: (B, K, *S).
            masks: bool (B, K, *S).
        """
        numbers = torch.tensor([case_number(case) for case in cases], device=maps.device)
        flat = maps.flatten(2)
        peaks = lesion_peaks(maps, masks)
        columns = {
            "case": numbers,
            "label": labels.double(),
            "probability": probabilities.double(),
            "peak": flat.amax(-1).double(),
            "finite": flat.isfinite().all(-1).double(),
            "pointing": pointing_hits(maps, masks).double(),
            "pixel_ap": pixel_average_precision(maps, masks).double(),
            "displacement": peak_displacements(maps, masks).double(),
            "lesion_case": numbers[peaks.row],
            "lesion_class": peaks.column,
            "lesion_number": peaks.number,
            "lesion_peak": peaks.peak.double(),
        }
        for name, values in columns.items():
            getattr(self, name).append(values)

    def compute(self) -> ScoreTable:
        """The table, in the order of the case numbers; a case that a distributed sampler repeated counts once."""
        column = {
            name: dim_zero_cat(getattr(self, name)).cpu().numpy() for name in (*self._columns, *self._lesion_columns)
        }
        _, first = np.unique(column["case"], return_index=True)
        lesions = np.stack([column[name] for name in self._lesion_columns[:3]])
        _, first_lesion = np.unique(lesions, axis=1, return_index=True)
        return ScoreTable(
            **{name: column[name][first] for name in self._columns},
            lesion_class=column["lesion_class"][first_lesion],
            lesion_peak=column["lesion_peak"][first_lesion],
        )


def case_number(name: str) -> int:
    """A number for a name, the same in every process: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1


def _mean_known(values: Floats, reason: str, resamples: int) -> Estimate:
    known = np.isfinite(values)
    return mean_estimate(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64), reason, resamples)
