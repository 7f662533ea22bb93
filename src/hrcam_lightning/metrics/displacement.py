"""How far a map's peak lies from the lesion, and in which direction: evidence that drifts drifts one way.

An image-level loss does not notice when a map slides as a whole. A map that does so has a mean displacement well away
from 0; one that merely misses now and then has a large spread around a mean near 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import f as f_distribution

from hrcam_lightning.metrics.estimate import Estimate, bootstrap, per_subject, resampled, undefined
from hrcam_lightning.metrics.lesions import centres_of, label_lesions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hrcam_lightning.metrics.estimate import Floats, Ints

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def peak_displacements(maps: Tensor, masks: Tensor, labels: Tensor | None = None) -> Tensor:
    """Vector from the centre of the lesion to the map's peak, along the stored axes, in pixels.

    Of several lesions (connected parts of the mask, corners included) the one whose centre of mass is nearest to the
    peak counts. Of several equal peaks the first in memory order counts.

    Args:
        maps: (B, K, *S).
        masks: bool (B, K, *S).
        labels: What `label_lesions` makes of the masks, if that is known already.

    Returns:
        (B, K, D) float32; NaN where the mask is empty, and where the map is flat and so has no peak.
    """
    size = maps.shape[2:]
    found = torch.full((*maps.shape[:2], len(size)), torch.nan)
    flat = maps.flatten(2)
    peaked = flat.amax(-1) > flat.amin(-1)
    labels = label_lesions(masks) if labels is None else labels
    for b, k in (masks.flatten(2).any(-1) & peaked).nonzero().tolist():
        peak = np.array(np.unravel_index(int(flat[b, k].argmax()), tuple(size)))
        offsets = peak - centres_of(labels[b, k])[1]
        found[b, k] = torch.from_numpy(offsets[(offsets**2).sum(1).argmin()])
    return found.to(maps.device)


def displacement_estimates(
    displacement: Floats, resamples: int = 1000, subject: Ints | None = None
) -> dict[str, Estimate]:
    """Mean displacement and its spread, with subjects as the unit of resampling.

    Args:
        displacement: (n, K, D), NaN where undefined.
        resamples: Of the intervals; 0 for none.
        subject: (n,) whose cases they are; each its own if not given.

    Returns:
        ``displacement_px``: length of the mean vector, never below 0 and by chance above it: its interval, the wider
        of the percentile's and the basic bootstrap's, begins at 0 where Hotelling's T² (1931), by the covariance of
        resamples, does not tell the vector from 0 at 5 %; ``displacement_px/axis0`` and so on: its coordinates;
        ``displacement_px/spread``: root mean square distance from it. Pixels.
    """
    known: Bools = np.asarray(np.isfinite(displacement).all(-1))
    used = known.any(1)
    cases, axes = int(used.sum()), displacement.shape[-1]
    names = [f"displacement_px/axis{axis}" for axis in range(axes)]
    if not cases:
        because = undefined(0, "no map with a peak has a mask")
        return dict.fromkeys(("displacement_px", *names, "displacement_px/spread"), because)
    vectors, known = np.where(known[..., None], displacement, 0)[used], known[used]
    # A row a case: the sum of its vectors, that of their squares, and their number.
    sums = np.concatenate(
        [vectors.sum(1), (vectors**2).sum((1, 2))[:, None], known.sum(1)[:, None].astype(np.float64)], axis=1
    )
    sums = per_subject(sums, None if subject is None else subject[used])

    def means(weights: Floats) -> Floats:
        total = weights @ sums
        return np.asarray(total[:, :-1] / total[:, -1:])

    def length(weights: Floats) -> Floats:
        return np.asarray(np.linalg.norm(means(weights)[:, :axes], axis=-1))

    def spread(weights: Floats) -> Floats:
        return np.asarray(np.sqrt(np.maximum(means(weights)[:, axes] - length(weights) ** 2, 0)))

    def estimate(statistic: Callable[[Floats], Floats]) -> Estimate:
        value = float(statistic(np.ones((1, len(sums))))[0])
        return Estimate(value, *bootstrap(statistic, len(sums), resamples), cases)

    def along(axis: int) -> Estimate:
        return estimate(lambda weights: means(weights)[:, axis])

    def drift() -> Estimate:
        mean, value = means(np.ones((1, len(sums))))[0, :axes], float(length(np.ones((1, len(sums))))[0])
        if not resamples or len(sums) < 2:
            return Estimate(value, math.nan, math.nan, cases)
        drawn = resampled(lambda weights: means(weights)[:, :axes], len(sums), resamples)
        drawn = drawn[np.isfinite(drawn).all(1)]
        below, above = np.quantile(np.linalg.norm(drawn, axis=1), (0.025, 0.975))
        # Lengths of resamples err upwards; turned round they may err downwards: the wider of the two.
        low = max(0.0, min(below, 2 * value - above)) if _is_sure(mean, drawn, len(sums)) else 0.0
        return Estimate(value, float(low), float(max(above, 2 * value - below)), cases)

    return {
        "displacement_px": drift(),
        **{name: along(axis) for axis, name in enumerate(names)},
        "displacement_px/spread": estimate(spread),
    }


def _is_sure(mean: Floats, drawn: Floats, units: int) -> bool:
    """Whether a mean vector (D,) of so many subjects is not 0, at 5 %; `drawn` (R, D) are its resamples."""
    axes = len(mean)
    if units <= axes:
        return False
    squared = float(mean @ np.linalg.pinv(np.atleast_2d(np.cov(drawn.T)), hermitian=True) @ mean)
    return squared > axes * (units - 1) / (units - axes) * float(f_distribution.ppf(0.95, axes, units - axes))
