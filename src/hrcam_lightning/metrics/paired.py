"""Two explainers, or two models, on the same cases: how far apart, how surely, and whether by chance."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from hrcam_lightning.metrics.estimate import Estimate, Floats, Ints, mean_estimate, per_subject


def paired_difference(
    first: Floats,
    second: Floats,
    subject: Ints | None = None,
    resamples: int = 1000,
    permutations: int = 9999,
    seed: int = 0,
) -> Estimate:
    """Mean of `first` minus `second` over the pairs that both know, BCa interval over subjects, permutation p.

    Args:
        first: (n, K) scores of cases and classes, NaN where undefined.
        second: (n, K) those of the other, row by row of the same cases.
        subject: (n,) whose cases they are; each its own if not given.
        resamples: Of the interval; 0 for none.
        permutations: Random swaps of the two, a subject at a time; where all 2^n are fewer, all are tried.
        seed: Of both.

    Raises:
        ValueError: If the two differ in shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"scores of shape {first.shape} and {second.shape} are not of the same cases")
    gap = first - second
    known = np.isfinite(gap)
    total, count = np.where(known, gap, 0).sum(1), known.sum(1).astype(np.float64)
    estimate = mean_estimate(total, count, "no case is scored by both", resamples, subject, signed=True)
    if estimate.reason or not permutations:
        return estimate
    used = count > 0
    sums = per_subject(total[used], None if subject is None else subject[used])
    return replace(estimate, p=permutation_p(sums, permutations, seed))


def permutation_p(differences: Floats, permutations: int = 9999, seed: int = 0) -> float:
    """Two-sided p of a sum of differences (n,) if each could as well have had the other sign (Fisher 1935).

    Exact where 2^n is no more than `permutations`; else of random signs, the observed ones among them, so never 0.
    """
    return float(permutation_ps(differences[:, None], permutations, seed)[0])


def permutation_ps(differences: Floats, permutations: int = 9999, seed: int = 0) -> Floats:
    """`permutation_p` of each of M columns (n, M), all by the same signs."""
    observed = np.abs(differences.sum(0))
    slack = 1e-12 * np.abs(differences).sum(0)  # the same sum in another order is the same sum
    units = len(differences)
    if 2**units <= permutations:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=units)))
        return np.asarray((np.abs(signs @ differences) >= observed - slack).mean(0))
    rng = np.random.default_rng(seed)
    portion = max(1, 2_000_000 // units)
    as_far = np.zeros(differences.shape[1])
    for done in range(0, permutations, portion):
        signs = rng.integers(0, 2, size=(min(portion, permutations - done), units)) * 2.0 - 1
        as_far += (np.abs(signs @ differences) >= observed - slack).sum(0)
    return np.asarray((1 + as_far) / (1 + permutations))
