"""One colour scale for all maps of a data set, found on validation cases."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrcam_lightning.callbacks.processes import gather
from hrcam_lightning.geometry import resampled_mean
from hrcam_lightning.metrics import case_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.model import LocalizationModel, LocalizationOutput

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SHARE = 0.9
"""Share of the cases with a finding whose evidence stays within the scale."""
STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)
"""Ends of scales, and their decimal multiples: few, so that most epochs of a run have the same one."""
DEFAULT = 10.0
"""End of the scale where nothing is known of the maps."""


@dataclass(frozen=True)
class MapScale:
    """How maps are shown.

    White is no evidence either way: 0 in `LocalizationOutput.evidence`. What a level has everywhere in all images
    is no evidence, and nothing tells it from the bias. So each level is shown without its mean, and the
    mean of the fused map is shared equally: what is shown of the levels still adds up to the fused map.

    Attributes:
        limit: Logits at the upper end of the colours; the lower end is its negative.
        offsets: For each level and class, what is added to a level map to be shown.
    """

    limit: float
    offsets: list[list[float]]

    @property
    def limits(self) -> tuple[float, float]:
        """Logits at the two ends."""
        return -self.limit, self.limit

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of levels and of classes."""
        return np.shape(self.offsets)


@dataclass
class ScaleFinder:
    """Measures maps case by case: the same scale for any order, batch size and number of processes.

    The scale ends near the magnitude that 90 % of the cases with a finding keep to, in the map of that finding:
    cases without one are left out, or where lesions are rare the scale would be that of normal images, which would
    then look ill. Where no case has a finding all cases count.
    """

    _cases: dict[int, tuple[Floats, ...]] = field(default_factory=dict)

    def update(
        self, cases: Sequence[str], labels: Tensor, output: LocalizationOutput, model: LocalizationModel
    ) -> None:
        """Take in a batch.

        Args:
            cases: Names of the B cases.
            labels: (B, K), 1 where the case shows the class.
            output: Of the cases.
            model: Which made it.
        """
        evidence, size = output.evidence.flatten(2), output.maps.shape[2:]
        extremes = evidence.abs().amax(-1)
        found = labels.to(extremes.device) > 0
        shown = torch.where(found | ~found.any(1, keepdim=True), extremes, 0).amax(1)
        levels = zip(output.level_maps, model.decoder.levels, strict=True)
        means = [resampled_mean(maps.float(), level, size, model.resampling) for maps, level in levels]
        columns = (found.any(1), shown, evidence.mean(-1), torch.stack(means, 1))
        measured = zip(*(column.detach().cpu().double().numpy() for column in columns), strict=True)
        self._cases |= {case_number(case): values for case, values in zip(cases, measured, strict=True)}

    def compute(self) -> MapScale | None:
        """The scale of the cases of all processes, each of which calls this; None if there was no case."""
        cases = {number: values for part in gather(self._cases) for number, values in part.items()}
        if not cases:
            return None
        columns = zip(*(cases[number] for number in sorted(cases)), strict=True)
        found, shown, fused, levels = (np.asarray(column) for column in columns)
        centre = levels.mean(0)
        offsets = np.nan_to_num(fused.mean(0) / len(centre) - centre, posinf=0, neginf=0)
        return MapScale(_near(shown[found > 0] if found.any() else shown), offsets.tolist())


def _near(strengths: Floats) -> float:
    """The step next to the quantile of finite strengths."""
    strengths = strengths[np.isfinite(strengths)]
    wanted = float(np.quantile(strengths, SHARE)) if len(strengths) else 0.0
    if wanted <= 0:
        return DEFAULT
    unit = 10.0 ** math.floor(math.log10(wanted))
    step = min(STEPS, key=lambda step: abs(math.log(step * unit / wanted)))
    return float(f"{step * unit:.2g}")
