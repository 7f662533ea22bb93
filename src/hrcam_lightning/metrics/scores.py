"""What is kept of each case: a few numbers, whatever the size of its image."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hrcam_lightning.metrics.boxes import box_overlaps
from hrcam_lightning.metrics.detection import component_peaks, local_maxima
from hrcam_lightning.metrics.displacement import peak_displacements
from hrcam_lightning.metrics.lesions import label_lesions, lesion_peaks
from hrcam_lightning.metrics.localization import (
    overlaps,
    peak_distances,
    pixel_average_precision,
    pointing_hits,
    relevance_mass,
    relevance_rank,
)
from hrcam_lightning.metrics.pooled import BINS, COLUMNS, GROUPS, histogram, merge
from hrcam_lightning.metrics.table import ScoreTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CASE_COLUMNS = ("case", "subject", "label", "probability", "peak", "finite", "pointing", "peak_distance", "pixel_ap",
                "relevance_mass", "relevance_rank", "dice", "iou", "iobb", "cue_mass", "box_largest", "box_every",
                "displacement")  # fmt: skip
LESION_COLUMNS = ("lesion_case", "lesion_class", "lesion_number", "lesion_voxels", "lesion_centre", "lesion_peak")
PIXEL_COLUMNS = ("pixel_code", "pixel_rows")
FIRST_COLUMNS = ("first_case", "first_code", "first_rows")
MANY = 32  # batches of histograms before they are added up


class CaseScores(Metric):
    """Collects all scores of a map in one pass, and reduces over processes.

    Memory: some sixty numbers a case and class, seven a lesion, and one sparse histogram of all pixels (see `pooled`).
    Scores are worked out on the CPU, where connected parts are found.

    Args:
        thresholds: (K,) at which Dice, IoU, IoBB and connected parts are scored, found on other cases
            (`ScoreTable.operating_points`); without them these have no score.
        tolerance: Pixels by which the peak may miss in ``pointing@…px``.
        radius: Pixels that two detections are apart at least.
    """

    full_state_update = False
    higher_is_better = True
    pixel_code: list[Tensor]
    pixel_rows: list[Tensor]
    first_case: list[Tensor]
    first_code: list[Tensor]
    first_rows: list[Tensor]

    def __init__(self, thresholds: Sequence[float] | None = None, tolerance: float = 5.0, radius: int = 3) -> None:
        super().__init__()
        self.thresholds, self.tolerance, self.radius = thresholds, tolerance, radius
        for name in (*CASE_COLUMNS, *LESION_COLUMNS, *PIXEL_COLUMNS, *FIRST_COLUMNS):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._seen: dict[int, None] = {}

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self._seen = {}

    def update(
        self,
        cases: Sequence[str],
        labels: Tensor,
        probabilities: Tensor,
        maps: Tensor,
        masks: Tensor,
        subjects: Sequence[str] | None = None,
        cues: Tensor | None = None,
    ) -> None:
        """Take in a batch. A case that was taken in before is left out.

        Args:
            cases: B names.
            labels: (B, K), 0 or 1.
            probabilities: (B, K).
            maps: (B, K, *S).
            masks: bool (B, K, *S).
            subjects: B names of who was imaged; the cases' own if not given.
            cues: bool (B, *S), where a spurious cue is.
        """
        numbers = [case_number(case) for case in cases]
        new = [
            index for index, number in enumerate(numbers) if number not in self._seen and number not in numbers[:index]
        ]
        if not new:
            return
        self._seen |= dict.fromkeys(numbers)
        case = torch.tensor([numbers[index] for index in new])
        subject = torch.tensor([case_number((subjects or cases)[index]) for index in new])
        labels, probabilities, maps, masks = (
            whole.detach()[new].cpu() for whole in (labels, probabilities, maps.float(), masks)
        )
        lesions = label_lesions(masks)
        cue = torch.zeros_like(masks[:, 0]) if cues is None else cues[new].cpu()
        flat = maps.flatten(2)
        columns = {
            "case": case,
            "subject": subject,
            "label": labels,
            "probability": probabilities,
            "peak": flat.amax(-1),
            "finite": flat.isfinite().all(-1),
            **_mask_columns(maps, masks, lesions, self._limits(maps)),
            "cue_mass": relevance_mass(maps, cue.unsqueeze(1).expand_as(masks)),
            **_lesion_columns(case, maps, masks, lesions),
        }
        for name, values in columns.items():
            whole = values if values.dtype == torch.long and name != "label" else values.double()
            getattr(self, name).append(whole.to(self.device))
        self._add_pixels(case, subject, labels, maps, lesions)

    def _limits(self, maps: Tensor) -> Tensor:
        return torch.tensor(self.thresholds or [torch.nan] * maps.shape[1])

    def _add_pixels(self, case: Tensor, subject: Tensor, labels: Tensor, maps: Tensor, lesions: Tensor) -> None:
        """Add the histograms of maps whose truth is known: a positive without a mask is neither right nor wrong."""
        classes = maps.shape[1]
        finite = maps.flatten(2).isfinite().all(-1)
        known = finite & (lesions.flatten(2).any(-1) | (labels == 0))
        peaks, limits = local_maxima(maps, self.radius), self._limits(maps)
        parts = component_peaks(maps, limits)
        first = next(iter(self._seen))  # held apart: where a sampler repeats cases, it is the first of each process
        for b, number in enumerate(case.tolist()):
            codes, rows = [torch.zeros(1, dtype=torch.long)], [torch.zeros(1, len(COLUMNS), dtype=torch.float64)]
            for k in known[b].nonzero()[:, 0].tolist():
                by_parts = parts[b, k] if limits[k].isfinite() else None
                bins, counts = histogram(maps[b, k], lesions[b, k], peaks[b, k], by_parts)
                codes.append(torch.from_numpy(bins + (int(subject[b]) % GROUPS * classes + k) * BINS))
                rows.append(torch.from_numpy(counts))
            code, total = torch.cat(codes).to(self.device), torch.cat(rows).to(self.device)
            self.pixel_code.append(code)
            self.pixel_rows.append(total)
            if number == first:
                self.first_case.append(case[b].expand(len(code)).to(self.device))
                self.first_code.append(code)
                self.first_rows.append(total)
        if len(self.pixel_code) > MANY:
            code, total = merge(torch.cat(self.pixel_code), torch.cat(self.pixel_rows))
            self.pixel_code, self.pixel_rows = [code], [total]

    def compute(self) -> ScoreTable:
        """The table, in the order of the case numbers; a case that a distributed sampler repeated counts once."""
        state = {name: dim_zero_cat(getattr(self, name)).cpu() for name in self._defaults}
        column = {name: values.numpy() for name, values in state.items()}
        _, first, times = np.unique(column["case"], return_index=True, return_counts=True)
        lesions = np.stack([column[name] for name in LESION_COLUMNS[:3]])
        _, first_lesion = np.unique(lesions, axis=1, return_index=True)
        # What was pooled too often is known, if it was the first case of some process.
        codes, rows, pooled_once = [state["pixel_code"]], [state["pixel_rows"]], True
        for row in np.flatnonzero(times > 1):
            apart = state["first_case"] == int(column["case"][first[row]])
            _, once = np.unique(state["first_code"][apart].numpy(), return_index=True)
            codes.append(state["first_code"][apart][once])
            rows.append(-(int(times[row]) - 1) * state["first_rows"][apart][once])
            pooled_once &= len(once) > 0
        code, total = merge(torch.cat(codes), torch.cat(rows))
        used = (total.abs() > 1e-9).any(1)
        return ScoreTable(
            **{name: column[name][first] for name in CASE_COLUMNS},
            **{name: column[name][first_lesion] for name in LESION_COLUMNS},
            pixel_code=code[used].numpy(),
            pixel_rows=total[used].numpy(),
            pooled_once=pooled_once,
            tolerance=self.tolerance,
        )


def case_number(name: str) -> int:
    """A number for a name, the same in every process: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1


def _mask_columns(maps: Tensor, masks: Tensor, lesions: Tensor, thresholds: Tensor) -> dict[str, Tensor]:
    """Scores of the maps that have a mask; NaN for the others, which are not looked at."""
    known = masks.flatten(2).any(-1)
    maps, masks, lesions = (whole[known].unsqueeze(1) for whole in (maps, masks, lesions))
    boxes = box_overlaps(maps, masks)
    scores = {
        "pointing": pointing_hits(maps, masks),
        "peak_distance": peak_distances(maps, masks),
        "pixel_ap": pixel_average_precision(maps, masks),
        "relevance_mass": relevance_mass(maps, masks),
        "relevance_rank": relevance_rank(maps, masks),
        **overlaps(maps, masks, thresholds.expand(known.shape)[known][:, None]),
        "box_largest": boxes.largest,
        "box_every": boxes.every,
        "displacement": peak_displacements(maps, masks, lesions),
    }
    columns = {}
    for name, values in scores.items():
        columns[name] = torch.full((*known.shape, *values.shape[2:]), torch.nan, dtype=torch.float64)
        columns[name][known] = values[:, 0].double()
    return columns


def _lesion_columns(case: Tensor, maps: Tensor, masks: Tensor, lesions: Tensor) -> dict[str, Tensor]:
    peaks = lesion_peaks(maps, masks, lesions)
    return {
        "lesion_case": case[peaks.row],
        "lesion_class": peaks.column,
        "lesion_number": peaks.number,
        "lesion_voxels": peaks.voxels,
        "lesion_centre": peaks.centre,
        "lesion_peak": peaks.peak,
    }
