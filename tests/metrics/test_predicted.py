"""The predicted class's map: a hit needs the class and the place."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from hrcam_lightning.metrics import CaseScores, ScoreTable
from hrcam_lightning.metrics.predicted import predicted_classes, predicted_estimates, youden_thresholds

NAN = math.nan


def _table(probability: list[list[float]], labels: list[list[int]], hits: list[bool]) -> ScoreTable:
    """Cases whose map of each class peaks on the lesion of the true class or, of those that miss, beside it."""
    classes = len(labels[0])
    maps, masks = torch.zeros(len(labels), classes, 6, 7), torch.zeros(len(labels), classes, 6, 7, dtype=torch.bool)
    for row, (label, hit) in enumerate(zip(labels, hits, strict=True)):
        for k in np.flatnonzero(label):
            masks[row, k, 2, 3] = True
        maps[row, :, 2, 3] = 1.0
        if not hit:
            maps[row, :, 5, 5] = 2.0
    scores = CaseScores()
    names = [f"{row:02d}" for row in range(len(labels))]
    scores.update(names, torch.tensor(labels), torch.tensor(probability), maps, masks)
    return scores.compute()


def test_top_1_localization_needs_the_right_class_and_the_right_place() -> None:
    probability = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]
    labels = [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]  # right, right, wrong class, right
    table = _table(probability, labels, [True, True, True, False])
    found = table.localization(None, called=predicted_classes(table.probability, "multiclass", None))
    assert found["pointing"].value == 3 / 4
    assert found["predicted/pointing"].value == 2 / 4
    assert found["pixel_ap"].value == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found["predicted/pixel_ap"].value == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found["predicted/pointing"].n == 4


def test_a_finding_counts_from_its_own_threshold_on() -> None:
    probability = [[0.5, 0.9], [0.49, 0.9], [0.9, 0.1], [0.9, 0.9]]
    labels = [[1, 0], [1, 0], [1, 1], [0, 0]]
    table = _table(probability, labels, [True, True, True, True])
    called = predicted_classes(table.probability, "multilabel", [0.5, 0.2])
    found = table.localization(None, called=called)
    assert found["predicted/pointing"].value == 2 / 4  # pairs: called, not, called, not
    assert found["pointing"].value == 1


def test_without_a_threshold_there_is_no_figure_and_it_says_so() -> None:
    table = _table([[0.5], [0.4]], [[1], [0]], [True, True])
    for thresholds in (None, [NAN]):
        found = table.localization(None, called=predicted_classes(table.probability, "binary", thresholds))
        assert math.isnan(found["predicted/pointing"].value)
        assert found["predicted/pointing"].reason.startswith("no threshold of the probability")
    no_mask = predicted_estimates(np.ones((2, 1)), np.full((2, 1), NAN), np.full((2, 1), NAN), "no mask")
    assert no_mask["predicted/pixel_ap"].reason == "no mask"


def test_a_probability_that_is_not_finite_is_no_decision() -> None:
    table = _table([[NAN, 0.5], [0.9, 0.1]], [[1, 0], [1, 0]], [True, True])
    called = predicted_classes(table.probability, "multiclass", None)
    assert np.isnan(called).any(1).sum() == 1
    found = table.localization(None, called=called)
    assert "1 of 2 cases have no finite probability" in found["predicted/pointing"].reason


def test_youden_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        label = np.append(rng.integers(0, 2, 10), [0, 1])
        scores = np.round(rng.random(12) + 0.3 * label, 1)

        def gain(threshold: float, scores: np.ndarray = scores, label: np.ndarray = label) -> float:
            called = scores >= threshold
            return float(called[label == 1].mean() - called[label == 0].mean())

        best = max(itertools.chain(scores.tolist()), key=lambda t: (round(gain(t), 9), t))
        assert youden_thresholds(scores[:, None], label[:, None].astype(float)) == [best], seed


def test_youden_needs_both_kinds_and_finite_probabilities() -> None:
    label = np.array([[1.0, 1, 1], [1, 0, 0]])
    found = youden_thresholds(np.array([[0.5, 0.5, NAN], [0.4, 0.4, 0.1]]), label)
    assert np.isnan(found).tolist() == [True, False, True]
    assert found[1] == 0.5
