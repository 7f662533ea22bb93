"""The scores of all cases, and the figures that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hrcam_lightning.metrics.boxes import OVERLAPS, THRESHOLDS, best_threshold
from hrcam_lightning.metrics.curves import FROC_RATES, lroc_curve
from hrcam_lightning.metrics.displacement import displacement_estimates
from hrcam_lightning.metrics.estimate import Estimate, Floats, Ints, mean_estimate, undefined
from hrcam_lightning.metrics.paired import paired_difference
from hrcam_lightning.metrics.pooled import NO_THRESHOLD, PooledScores
from hrcam_lightning.metrics.predicted import predicted_estimates
from hrcam_lightning.metrics.roc import auroc_estimate, lroc_estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_MASK = "no positive case has a mask"
COMPARED = ("pointing", "pixel_ap", "relevance_mass", "relevance_rank", "dice", "iou", "iobb")
"""Scores that each case with a mask has, so that two maps are compared case by case."""
CUE = "cue/relevance_mass"
"""The same of cases with a spurious cue, where there are any."""


@dataclass  # not frozen: torchmetrics walks through what compute returns
class ScoreTable:
    """Scores of n cases and their m lesions, for K classes.

    Attributes:
        case: (n,) numbers made of the cases' names by `case_number`.
        subject: (n,) numbers of who was imaged.
        label: (n, K), 1 where the case is of the class.
        probability: (n, K).
        peak: (n, K) highest map value.
        finite: (n, K), 1 where the map holds no NaN or infinity.
        pointing: (n, K) hit or miss; as all that follow, NaN without a mask.
        peak_distance: (n, K) from the peak to the mask, pixels.
        pixel_ap: (n, K) average precision.
        relevance_mass: (n, K) share of the relevance on the lesion.
        relevance_rank: (n, K) share of the lesion among as many highest pixels.
        dice: (n, K) at the thresholds of `operating_points`, as are the next two.
        iou: (n, K).
        iobb: (n, K).
        cue_mass: (n, K) share of the relevance on the spurious cue; NaN where there is none.
        box_largest: (n, K, T) IoU of the largest part's box at each of `boxes.THRESHOLDS`.
        box_every: (n, K, T) that of the best part's box.
        displacement: (n, K, D) from lesion to peak in pixels, NaN without a mask or a peak.
        lesion_case: (m,) case of each lesion.
        lesion_class: (m,) its class.
        lesion_number: (m,) which of the case and class, from 1.
        lesion_voxels: (m,) its size.
        lesion_centre: (m, D) its centre of mass in voxels.
        lesion_peak: (m,) highest map value on it.
        pixel_code: (r,) and
        pixel_rows: (r, 11) histogram of all pixels, see `pooled`.
        pooled_once: Whether no case is in the histogram twice.
        tolerance: Pixels by which the peak may miss in ``pointing@…px``.
    """

    case: Ints
    subject: Ints
    label: Floats
    probability: Floats
    peak: Floats
    finite: Floats
    pointing: Floats
    peak_distance: Floats
    pixel_ap: Floats
    relevance_mass: Floats
    relevance_rank: Floats
    dice: Floats
    iou: Floats
    iobb: Floats
    cue_mass: Floats
    box_largest: Floats
    box_every: Floats
    displacement: Floats
    lesion_case: Ints
    lesion_class: Ints
    lesion_number: Ints
    lesion_voxels: Ints
    lesion_centre: Floats
    lesion_peak: Floats
    pixel_code: Ints
    pixel_rows: Floats
    pooled_once: bool
    tolerance: float

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

    def operating_points(self) -> dict[str, list[float]]:
        """Thresholds that suit these cases best; to be found on validation cases, and used on others.

        Returns:
            ``overlap``: (K,) of the highest mean Dice; ``box``: of the most boxes that are right, for MaxBoxAcc and for
            each IoU of MaxBoxAccV2. NaN without masks.
        """
        if self._broken():
            nothing = [math.nan] * self.label.shape[1]
            return {"overlap": nothing, "box": [math.nan] * len(BOX_KINDS)}
        return {"overlap": self._pooled().dice_thresholds(), "box": self._best_boxes()}

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
            return {name: auroc_estimate(self.probability, self.label, resamples, self.subject)}
        right = (self.probability.argmax(1) == self.label.argmax(1)).astype(np.float64)
        return {name: mean_estimate(right, np.ones(len(right)), "there are no cases", resamples, self.subject)}

    def localization(
        self,
        thresholds: Sequence[float] | None,
        normal_class: int | None = None,
        resamples: int = 1000,
        operating_points: Mapping[str, Sequence[float]] | None = None,
        called: Floats | None = None,
    ) -> dict[str, Estimate]:
        """Every figure of the maps by name; docs/metrics.md says what each is.

        Args:
            thresholds: One a class, found on validation cases; None if there are none.
            normal_class: Which class means "no finding", in a multiclass task that has one. Elsewhere a normal image is
                one that is of no class.
            resamples: Of the intervals; 0 for none.
            operating_points: What `operating_points` found on validation cases; None if there are none.
            called: (n, K) of `predicted_classes`: which classes the network calls; None if that is not known.
        """
        broken = self._broken()
        found = self._per_case(resamples)
        found |= {
            "normal/false_activation": self._false_activation(thresholds, normal_class, resamples),
            "lesion/recall": self._recall(thresholds, resamples),
            "lroc": self._lroc(resamples),
            **self._predicted(called, resamples),
            **self._pooled_estimates(resamples),
            **self._boxes((operating_points or {}).get("box"), resamples),
            **displacement_estimates(self.displacement, 0 if broken else resamples, self.subject),
        }
        if broken:
            because = undefined(len(self.case), f"{broken} of {len(self.case)} cases have maps with NaN or infinity")
            return dict.fromkeys(found, because)
        return found

    def differences(self, other: ScoreTable, resamples: int = 1000) -> dict[str, Estimate]:
        """How much higher these scores are than another explainer's or model's of the same cases, case by case.

        Args:
            other: Its table.
            resamples: Of the intervals; 0 for none.

        Raises:
            ValueError: If the tables are not of the same cases.
        """
        if not np.array_equal(self.case, other.case):
            raise ValueError(f"the tables hold {len(self.case)} and {len(other.case)} cases, and not the same")
        if broken := max(self._broken(), other._broken()):
            because = undefined(len(self.case), f"{broken} of {len(self.case)} cases have maps with NaN or infinity")
            return dict.fromkeys(self.compared(), because)
        return {
            name: paired_difference(own, others, self.subject, resamples)
            for (name, own), others in zip(self.compared().items(), other.compared().values(), strict=True)
        }

    def compared(self) -> dict[str, Floats]:
        """Scores by which maps are compared case by case, (n, K) each: `COMPARED`, and `CUE` where a case has one."""
        found: dict[str, Floats] = {name: getattr(self, name) for name in COMPARED}
        return found | ({CUE: self.cue_mass} if np.isfinite(self.cue_mass).any() else {})

    def found(self, thresholds: Sequence[float] | None) -> Floats:
        """Whether each lesion's peak reaches its class's threshold, (m,); NaN without a threshold."""
        limits = np.asarray(thresholds if thresholds is not None else [math.nan] * self.label.shape[1])
        limit = limits[self.lesion_class]
        return np.where(np.isfinite(limit), self.lesion_peak >= limit, math.nan)

    def _broken(self) -> int:
        return int((self.finite.min(1) == 0).sum())

    def _mean(self, values: Floats, reason: str, resamples: int) -> Estimate:
        known = np.isfinite(values)
        total = np.where(known, values, 0).sum(1)
        return mean_estimate(total, known.sum(1).astype(np.float64), reason, resamples, self.subject)

    def _per_case(self, resamples: int) -> dict[str, Estimate]:
        near = np.where(np.isnan(self.peak_distance), math.nan, self.peak_distance <= self.tolerance)
        columns = {
            "pointing": self.pointing,
            f"pointing@{self.tolerance:g}px": near,
            **{name: values for name, values in self.compared().items() if name != "pointing"},
        }
        masks = bool(np.isfinite(self.pointing).any())
        return {
            name: self._mean(values, NO_THRESHOLD if masks else NO_MASK, resamples) for name, values in columns.items()
        }

    def _false_activation(
        self, thresholds: Sequence[float] | None, normal_class: int | None, resamples: int
    ) -> Estimate:
        """Share of normal images on which any class's map reaches its threshold."""
        limits = np.asarray(thresholds if thresholds is not None else [math.nan] * self.label.shape[1])
        findings = np.arange(len(limits)) != (-1 if normal_class is None else normal_class)
        if not np.isfinite(limits[findings]).any():
            return undefined(0, NO_THRESHOLD)
        normal = (self.label[:, findings].sum(1) == 0).astype(np.float64)
        above = (self.peak >= limits)[:, findings].any(1)  # a class without threshold, NaN, is never reached
        return mean_estimate(normal * above, normal, "there are no normal cases", resamples, self.subject)

    def _recall(self, thresholds: Sequence[float] | None, resamples: int) -> Estimate:
        """Share of lesions whose peak reaches the threshold."""
        if not len(self.lesion_case):
            return undefined(0, NO_MASK)
        found = self.found(thresholds)
        known = np.isfinite(found)
        subject = self.subject[np.searchsorted(self.case, self.lesion_case)]
        return mean_estimate(np.where(known, found, 0), known.astype(np.float64), NO_THRESHOLD, resamples, subject)

    def _lroc(self, resamples: int) -> Estimate:
        """LROC area: the network's probability rates the case, the map's peak locates."""
        broken = int((~np.isfinite(self.probability)).any(1).sum())
        if broken:
            return undefined(len(self.case), f"{broken} of {len(self.case)} cases have no finite probability")
        return lroc_estimate(self.probability, self.label, self.pointing, resamples, self.subject)

    def _predicted(self, called: Floats | None, resamples: int) -> dict[str, Estimate]:
        """By the map of the class that the network calls."""
        called = np.full_like(self.label, math.nan) if called is None else called
        masked = np.isfinite(self.pointing)
        found = predicted_estimates(called, self.pointing, self.pixel_ap, NO_MASK, resamples, self.subject)
        broken = int((~np.isfinite(self.probability) & masked).any(1).sum())
        if broken:
            because = undefined(len(self.case), f"{broken} of {len(self.case)} cases have no finite probability")
            return dict.fromkeys(found, because)
        return found

    def froc_curve(self, ending: str = "") -> Floats:
        """Sensitivity at `curves.FROC_RATES`; NaN where it is not defined.

        Args:
            ending: ``_by_parts`` for detections by connected parts.
        """
        if self._broken() or not self.pooled_once:
            return np.full(len(FROC_RATES), math.nan)
        return self._pooled().froc_curve(FROC_RATES, ending)

    def lroc_curve(self) -> Floats:
        """Positives rated and located right, at `curves.LROC_RATES`; NaN where it is not defined."""
        known = not self._broken() and np.isfinite(self.probability).all()
        located = self.pointing if known else np.full_like(self.pointing, math.nan)
        return lroc_curve(self.probability, self.label, located)

    def _pooled(self) -> PooledScores:
        return PooledScores(self.pixel_code, self.pixel_rows, self.label.shape[1])

    def _pooled_estimates(self, resamples: int) -> dict[str, Estimate]:
        found = self._pooled().estimates(intervals=resamples > 0)
        if self.pooled_once:
            return found
        return dict.fromkeys(found, undefined(len(self.case), "a case was pooled twice, by two processes"))

    def _box_overlaps(self) -> list[tuple[Floats, float]]:
        """For each of `BOX_KINDS` the overlaps (n, K, T), and the IoU that is wanted."""
        return [(getattr(self, name), wanted) for name, wanted in BOX_KINDS]

    def _best_boxes(self) -> list[float]:
        known = np.isfinite(self.box_every).all(-1)
        if not known.any():
            return [math.nan] * len(BOX_KINDS)
        return [THRESHOLDS[best_threshold(overlaps[known], wanted)] for overlaps, wanted in self._box_overlaps()]

    def _boxes(self, thresholds: Sequence[float] | None, resamples: int) -> dict[str, Estimate]:
        """MaxBoxAcc and V2, at the thresholds of validation and at these cases' own best ones, the oracle's."""
        found: dict[str, Estimate] = {}
        masks = bool(np.isfinite(self.box_every).any())
        for prefix, limits in (("box_acc", thresholds), ("oracle/max_box_acc", self._best_boxes())):
            if not masks or limits is None or not np.isfinite(limits).all():
                because = undefined(0, NO_THRESHOLD if masks else NO_MASK)
                found |= dict.fromkeys((prefix, f"{prefix}_v2"), because)
                continue
            right = []
            for (overlaps, wanted), limit in zip(self._box_overlaps(), limits, strict=True):
                at = overlaps[..., int(np.abs(np.subtract(THRESHOLDS, limit)).argmin())]
                right.append(np.where(np.isnan(at), math.nan, at >= wanted))
            found[prefix] = self._mean(right[0], NO_MASK, resamples)
            found[f"{prefix}_v2"] = self._mean(np.mean(right[1:], axis=0), NO_MASK, resamples)
        return found


BOX_KINDS = (("box_largest", 0.5), *(("box_every", wanted) for wanted in OVERLAPS))
