"""The table of scores: thresholds, false activation, repeated cases, broken maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hrcam_lightning.metrics import CaseScores, Estimate, ScoreTable, case_number


def _scores(maps: Tensor, masks: Tensor, labels: Tensor, names: list[str] | None = None) -> ScoreTable:
    metric = CaseScores()
    metric.update(names or [f"case{n}" for n in range(len(maps))], labels, labels * 0.5, maps, masks)
    table: ScoreTable = metric.compute()
    return table


def _plain(estimates: dict[str, Estimate]) -> dict[str, object]:
    """For comparison: NaN, which is not equal to itself, as None."""
    return {name: estimate.to_dict() for name, estimate in estimates.items()}


def _lesions(peaks: list[float], normals: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """One lesion of one pixel a positive case, whose map is `peak` there; normal cases with a given map maximum."""
    count = len(peaks) + len(normals)
    maps, masks = torch.full((count, 1, 3, 3), -10.0), torch.zeros(count, 1, 3, 3, dtype=torch.bool)
    for index, value in enumerate([*peaks, *normals]):
        maps[index, 0, 1, 1] = value
    masks[: len(peaks), 0, 1, 1] = True
    labels = torch.tensor([[1]] * len(peaks) + [[0]] * len(normals))
    return maps, masks, labels


def test_the_threshold_finds_the_asked_share_of_lesions() -> None:
    table = _scores(*_lesions([5, 1, 4, 2, 3], []))
    assert table.thresholds(0.8) == [2]
    assert table.thresholds(0.81) == [1]
    assert table.thresholds(0.2) == [5]


def test_false_activation_is_the_share_of_normals_at_or_above_the_threshold() -> None:
    table = _scores(*_lesions([5], [2, 2.5, 1, -3]))
    estimate = table.localization([2.0])["normal/false_activation"]
    assert estimate.value == pytest.approx(0.5)
    assert estimate.n == 4


def test_a_normal_image_is_one_without_any_finding() -> None:
    """Three classes: a case of class a is no normal image for class b, and any class's map may light up."""
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    maps = torch.full((4, 3, 2, 2), -10.0)
    maps[0, 1] = maps[1, 2] = 5.0
    table = _scores(maps, torch.zeros(4, 3, 2, 2, dtype=torch.bool), labels)
    estimate = table.localization([1.0, 1.0, 1.0])["normal/false_activation"]
    assert estimate.value == pytest.approx(1 / 3)
    assert estimate.n == 3
    # the class without lesions in validation has no threshold and never counts as active
    assert table.localization([1.0, 1.0, math.nan])["normal/false_activation"].value == 0


def test_the_map_of_the_normal_class_is_no_false_activation() -> None:
    labels = torch.eye(3)[[0, 0, 1, 2]]
    maps = torch.full((4, 3, 2, 2), -10.0)
    maps[:, 0] = 9.0
    maps[0, 2] = 5.0
    table = _scores(maps, torch.zeros(4, 3, 2, 2, dtype=torch.bool), labels)
    estimate = table.localization([math.nan, 1.0, 1.0], normal_class=0)["normal/false_activation"]
    assert (estimate.value, estimate.n) == (0.5, 2)


def test_without_a_threshold_false_activation_is_undefined() -> None:
    table = _scores(*_lesions([5], [2]))
    for missing in (None, [math.nan]):
        estimate = table.localization(missing)["normal/false_activation"]
        assert math.isnan(estimate.value)
        assert "threshold" in estimate.reason


def test_thresholds_without_lesions_are_undefined() -> None:
    assert math.isnan(_scores(*_lesions([], [1.0, 2.0])).thresholds()[0])


def test_the_result_does_not_depend_on_order_or_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, masks = (
        torch.randn(6, 2, 5, 5, generator=generator),
        torch.rand(6, 2, 5, 5, generator=generator) < 0.1,
    )
    labels = masks.flatten(2).any(-1).long()
    names = [f"c{n}" for n in range(6)]
    whole = _scores(maps, masks, labels, names)
    parts = CaseScores()
    for index in (4, 0, 5, 2, 1, 3):
        one = slice(index, index + 1)
        parts.update(names[one], labels[one], labels[one] * 0.5, maps[one], masks[one])
    table: ScoreTable = parts.compute()
    assert _plain(whole.localization([0.5, 0.5])) == _plain(table.localization([0.5, 0.5]))
    assert whole.thresholds() == table.thresholds()


def test_a_case_that_a_distributed_sampler_repeats_counts_once() -> None:
    maps, masks, labels = _lesions([5, 1], [2])
    metric = CaseScores()
    metric.update(["a", "b", "c"], labels, labels * 0.5, maps, masks)
    metric.update(["a"], labels[:1], labels[:1] * 0.5, maps[:1], masks[:1])
    table: ScoreTable = metric.compute()
    assert len(table.case) == 3
    assert len(table.lesion_peak) == 2


def test_maps_with_nan_make_the_scores_undefined_and_say_how_many() -> None:
    maps, masks, labels = _lesions([5, 1], [2])
    maps[1, 0, 0, 0] = math.nan
    for estimate in _scores(maps, masks, labels).localization([1.0]).values():
        assert math.isnan(estimate.value)
        assert "1 of 3 cases" in estimate.reason


def test_probabilities_with_nan_are_no_score_and_set_no_threshold() -> None:
    maps, masks, labels = _lesions([5, 1], [2])
    maps[0] = math.nan
    metric = CaseScores()
    metric.update(list("abc"), labels, torch.tensor([[0.1], [math.nan], [0.3]]), maps, masks)
    table: ScoreTable = metric.compute()
    assert table.classification("binary")["auroc"].reason == "1 of 3 cases have no finite probability"
    assert math.isnan(table.thresholds()[0])


def test_a_positive_without_a_mask_is_left_out_and_a_set_without_masks_says_so() -> None:
    maps, masks, labels = _lesions([5, 1], [2])
    masks[0] = False
    assert _scores(maps, masks, labels).localization([1.0])["pointing"].n == 1
    masks[:] = False
    estimate = _scores(maps, masks, labels).localization([1.0])["pointing"]
    assert estimate.reason == "no positive case has a mask"


def test_accuracy_of_a_multiclass_task() -> None:
    metric = CaseScores()
    labels = torch.eye(3)[[0, 1, 2, 2]]
    probabilities = torch.eye(3)[[0, 1, 1, 2]]
    metric.update(
        list("abcd"),
        labels,
        probabilities,
        torch.randn(4, 3, 4, 4),
        torch.zeros(4, 3, 4, 4, dtype=torch.bool),
    )
    table: ScoreTable = metric.compute()
    assert table.classification("multiclass")["accuracy"].value == pytest.approx(0.75)


def test_case_numbers_are_the_same_in_every_process() -> None:
    assert case_number("case_000001") == case_number("case_000001") != case_number("case_000002")
    assert 0 <= case_number("x") < 2**63
    # SHA-256 of "a" starts ca978112ca1bbdca; little end first, without the lowest bit
    assert case_number("a") == int.from_bytes(bytes.fromhex("ca978112ca1bbdca"), "little") >> 1
