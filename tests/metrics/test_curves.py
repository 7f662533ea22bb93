"""Curves against their definitions, counted one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from hrcam_lightning.metrics import CaseScores, froc, wilson
from hrcam_lightning.metrics.curves import FROC_RATES, LROC_RATES, bin_edges, lroc_curve, shares_in_bins
from hrcam_lightning.metrics.detection import RATES, local_maxima
from hrcam_lightning.metrics.lesions import label_lesions
from hrcam_lightning.metrics.roc import lroc_estimate


@pytest.mark.parametrize("shape", [(14, 11), (8, 7, 6)])
def test_froc_is_the_curve_of_all_detections(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(12, 1, *shape, generator=generator)
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    for row in range(8):
        masks[(row, 0, *(row % 4 + 1,) * len(shape))] = True
        maps[(row, 0, *(row % 4 + 1,) * len(shape))] += 2.5
    maps = maps.bfloat16().float()  # what is kept of them
    scores = CaseScores(radius=2)
    scores.update([*"abcdefghijkl"], masks.flatten(1).any(1)[:, None].long(), torch.rand(12, 1), maps, masks)
    peaks, lesions = local_maxima(maps, 2), label_lesions(masks)
    best = [maps[row][peaks[row] & (lesions[row] == 1)].max() if (peaks[row] & masks[row]).any() else -torch.inf
            for row in range(8)]  # fmt: skip
    false = maps[peaks & (lesions == 0)].double().numpy()
    _, _, expected = froc(false, np.array([float(value) for value in best]), 12, FROC_RATES)
    table = scores.compute()
    np.testing.assert_allclose(table.froc_curve(), expected)
    assert expected[0] < expected[12] < expected[-1]
    figures = table.localization(None, resamples=0)
    for rate in RATES:
        if rate in FROC_RATES:
            assert figures[f"lesion/recall@{rate:g}fp"].value == expected[FROC_RATES.index(rate)]
    assert set(RATES) <= set(FROC_RATES)
    assert np.isnan(table.froc_curve("_by_parts")).all()  # no threshold


def test_lroc_counts_positives_above_each_threshold_that_are_located() -> None:
    rng = np.random.default_rng(1)
    label = np.array([0, 1] * 15)
    score = np.round(rng.random(30) + 0.3 * label, 1)
    hit = np.where(label == 1, rng.integers(0, 2, 30), math.nan).astype(float)
    hit[1] = math.nan  # where its lesion lies is not known
    found = lroc_curve(score[:, None], label[:, None], hit[:, None])
    positive, negative = (label == 1) & np.isfinite(hit), label == 0
    for rate, value in zip(LROC_RATES, found, strict=True):
        possible = [((score[positive] >= t) * hit[positive]).mean() for t in [np.inf, *score]
                    if (score[negative] >= t).mean() <= rate]  # fmt: skip
        assert value == pytest.approx(max(possible)), rate
    assert found[-1] == hit[positive].mean()


def test_the_area_under_the_lroc_curve_is_the_lroc_area() -> None:
    rng = np.random.default_rng(2)
    label = np.repeat([0.0, 1.0], [100, 40])[:, None]
    score = rng.normal(size=(140, 1)) + label
    hit = np.where(label == 1, rng.integers(0, 2, (140, 1)), math.nan)
    curve = lroc_curve(score, label, hit)
    area = curve[:-1].mean()  # no ties, 100 negatives: a step at each hundredth
    assert area == pytest.approx(lroc_estimate(score, label, hit, 0).value)


def test_lroc_is_averaged_over_classes_with_both_kinds() -> None:
    label = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    hit = np.where(label == 1, [[1.0, 0.0, 1.0]], math.nan)
    found = lroc_curve(np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]), label, hit)
    assert (found == 0.5).all()
    assert np.isnan(lroc_curve(np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 1)))).all()


def test_bins_are_few_round_and_hold_every_value() -> None:
    rng = np.random.default_rng(3)
    for seed in range(300):
        values = rng.uniform(0, 10.0 ** rng.integers(-2, 4), rng.integers(1, 20)).round(rng.integers(0, 4))
        edges = bin_edges(values)
        inside = (values[:, None] >= edges[:-1]) & (values[:, None] < edges[1:])
        assert inside.sum(1).tolist() == [1] * len(values), seed
        assert 1 <= len(edges) - 1 <= 8
        widths = np.diff(edges)
        assert widths == pytest.approx(widths[0])
        digits = f"{widths[0]:.6e}"
        assert digits[:3] in ("1.0", "2.0", "2.5", "5.0"), digits
    assert bin_edges(np.array([3.1, 5.9])) == [3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]
    assert bin_edges(np.array([6.0, 6.0]))[0] == 6
    assert bin_edges(np.array([6.0, 9.0])) == [6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5]


def test_shares_in_bins_are_counted_with_their_intervals() -> None:
    found = np.array([1, 0, 1, 1, math.nan, 1])
    dprime = np.array([1.0, 1.5, 1.9, 2.0, 2.5, math.nan])
    low, high = shares_in_bins(found, dprime, [1, 2, 3, 4])
    assert (low.low, low.high, low.share.value, low.share.n) == (1, 2, 2 / 3, 3)
    assert (low.share.low, low.share.high) == wilson(2, 3)
    assert (high.low, high.share.value, high.share.n) == (2, 1, 1)  # the bin from 3 is empty, and left out
    # Two lesions of one subject are one unit: the interval is not Wilson's of all lesions.
    twice = shares_in_bins(np.tile(found[:3], 2), np.tile(dprime[:3], 2), [1, 2], np.tile([0, 1, 2], 2))
    assert twice[0].share.value == 2 / 3
    assert (twice[0].share.low, twice[0].share.high) != wilson(4, 6)


def test_curves_of_broken_maps_are_not_drawn() -> None:
    maps = torch.zeros(2, 1, 5, 5)
    maps[0, 0, 0, 0] = torch.nan
    masks = torch.zeros(2, 1, 5, 5, dtype=torch.bool)
    masks[0, 0, 1, 1] = True
    scores = CaseScores()
    scores.update(["a", "b"], torch.tensor([[1], [0]]), torch.rand(2, 1), maps, masks)
    table = scores.compute()
    assert all(np.isnan(curve).all() for curve in (table.froc_curve(), table.lroc_curve()))


def test_rates_rise() -> None:
    for rates in (FROC_RATES, LROC_RATES):
        assert all(a < b for a, b in itertools.pairwise(rates))
