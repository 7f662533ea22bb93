"""Share of the ceiling: known ratios, the same cases, and intervals that draw both together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hrcam_lightning.metrics import CaseScores, ScoreTable, auroc, wilson
from hrcam_lightning.metrics.efficiency import ObserverScores, ceiling_estimates, efficiency_estimates

N = 60


def _table(classes: int = 1) -> ScoreTable:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(N, classes, dtype=torch.long)
    labels[:40, 0] = 1
    labels[20:50, classes - 1] = 1
    maps = torch.rand(N, classes, 6, 6, generator=generator)
    masks = torch.zeros(N, classes, 6, 6, dtype=torch.bool)
    masks[labels.bool(), 2, 3] = True
    maps[:, :, 2, 3] = torch.tensor([2.0, -1.0]).repeat(N // 2)[:, None]  # every other case is located
    scores = CaseScores()
    probability = (torch.rand(N, classes, generator=generator) + 0.3 * labels).clamp(0, 1)
    scores.update([f"{n:02d}" for n in range(N)], labels, probability, maps, masks)
    return scores.compute()


def _same(table: ScoreTable) -> ObserverScores:
    return ObserverScores(table.probability, table.probability, np.nan_to_num(table.pointing))


@pytest.mark.parametrize("classes", [1, 2])
def test_a_reader_as_good_as_the_ideal_one_reaches_all_of_it(classes: int) -> None:
    table = _table(classes)
    own = table.classification("multilabel") | table.localization(None)
    ceiling = ceiling_estimates(table, _same(table), auroc=True)
    for name in ("auroc", "pointing", "lroc"):
        assert ceiling[name].value == pytest.approx(own[name].value)
        assert ceiling[name].n == own[name].n
    found = efficiency_estimates(table, _same(table), auroc=True)
    assert [found[name].value for name in ("auroc", "pointing", "lroc")] == [1, 1, 1]
    assert all(math.isnan(entry.low) for entry in found.values())  # all resamples agree: no interval


def test_the_share_is_the_ratio_of_the_scores_on_the_same_cases() -> None:
    table = _table()
    known = np.isfinite(table.pointing)
    perfect = ObserverScores(table.label, table.label, np.ones_like(table.label))
    ceiling = ceiling_estimates(table, perfect, auroc=True)
    assert [ceiling[name].value for name in ("auroc", "pointing", "lroc")] == [1, 1, 1]
    assert ceiling["pointing"].low == wilson(50, 50)[0]
    found = efficiency_estimates(table, perfect, auroc=True)
    own = table.localization(None)
    assert found["auroc"].value == pytest.approx(float(auroc(table.probability[:, 0], table.label[:, 0])))
    assert found["pointing"].value == table.pointing[known].mean() == 0.5
    assert found["lroc"].value == pytest.approx(own["lroc"].value)
    for entry in found.values():
        assert 0 < entry.low < entry.value < entry.high < 1
    # A hit where the table has no mask counts for neither.
    blind = replace(table, pointing=np.where(np.arange(N)[:, None] < 25, math.nan, table.pointing))
    rest = table.pointing[known & (np.arange(N)[:, None] >= 25)]
    assert efficiency_estimates(blind, perfect, auroc=True)["pointing"].value == rest.mean()


def test_both_are_resampled_together() -> None:
    """A reader who misses just where the ideal one does has a far surer share than its own score."""
    table = _table()
    worse = table.pointing.copy()
    worse[np.flatnonzero(worse[:, 0] == 1)[0]] = 0
    found = efficiency_estimates(replace(table, pointing=worse), _same(table), auroc=False)["pointing"]
    assert found.value == 24 / 25
    alone = replace(table, pointing=worse).localization(None)["pointing"]
    assert found.high - found.low < 0.75 * (alone.high - alone.low) / 0.5
    assert found.high == 1  # never above: it hits nothing that the ideal observer misses
    assert "auroc" not in efficiency_estimates(table, _same(table), auroc=False)
    assert "auroc" not in ceiling_estimates(table, _same(table), auroc=False)


def test_a_reader_who_is_told_places_bounds_the_rating_alone() -> None:
    table = _table()
    nothing = np.full_like(table.label, math.nan)
    told = ObserverScores(table.label, nothing, nothing)
    for found in (ceiling_estimates(table, told, auroc=True), efficiency_estimates(table, told, auroc=True)):
        assert math.isfinite(found["auroc"].value)
        assert [found[name].reason for name in ("pointing", "lroc")] == [
            "the ideal observer is told where lesions lie"
        ] * 2


def test_an_ideal_observer_that_never_hits_gives_no_share() -> None:
    table = _table()
    never = ObserverScores(table.label, table.label, np.zeros_like(table.label))
    assert efficiency_estimates(table, never, auroc=True)["pointing"].reason == "the ideal observer scores 0"


def test_a_class_that_is_not_read_counts_for_neither() -> None:
    table = _table(2)
    scores = _same(table)
    rating, located, hit = (
        np.where([True, False], part, math.nan) for part in (scores.rating, scores.located, scores.hit)
    )
    found = ceiling_estimates(table, ObserverScores(rating, located, hit), auroc=False)
    assert found["pointing"].value == np.nanmean(table.pointing[:, 0])
    assert found["pointing"].n == 40
