"""The table of scores: thresholds, false activation, repeated cases, broken maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hrcam_lightning.metrics import CaseScores, Estimate, ScoreTable, case_number
from hrcam_lightning.metrics.predicted import predicted_classes


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


def _set(cases: int = 23, size: tuple[int, ...] = (20, 18), seed: int = 0) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """Names, labels, maps and masks of two classes, some positives without a mask."""
    generator = torch.Generator().manual_seed(seed)
    spots = torch.randn(cases, 2, *size, generator=generator)
    masks = (spots > 2.2) & (torch.arange(cases) % 2 == 0).view(-1, 1, *[1] * len(size))
    labels = masks.flatten(2).any(-1).long()
    labels[3] = 1
    maps = torch.randn(cases, 2, *size, generator=generator) + 2 * masks - 2
    return [f"case{n}" for n in range(cases)], labels, maps, masks


def _filled(rows: list[int], data: tuple[list[str], Tensor, Tensor, Tensor], batch: int = 4) -> CaseScores:
    names, labels, maps, masks = data
    metric = CaseScores([0.5, -0.5])
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        metric.update([names[row] for row in part], labels[part], labels[part] * 0.3 + 0.2, maps[part], masks[part])
    return metric


def _merged(parts: list[CaseScores]) -> ScoreTable:
    """What processes do: each state is the concatenation of all processes' states."""
    whole = CaseScores([0.5, -0.5])
    for name in whole._defaults:
        setattr(whole, name, [values for part in parts for values in getattr(part, name)])
    whole._update_count = 1
    table: ScoreTable = whole.compute()
    return table


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("size", [(20, 18), (9, 8, 7)])
def test_processes_that_share_the_cases_find_what_one_finds(processes: int, size: tuple[int, ...]) -> None:
    """As torch's DistributedSampler shares them: every n-th to each, the first again at the end to even them out."""
    data = _set(size=size)
    count = len(data[0])
    padded = [*range(count), *range(-count % processes)]
    assert len(padded) > count
    parts = [_filled(padded[rank::processes], data) for rank in range(processes)]
    together, alone = _merged(parts), _merged([_filled(list(range(count)), data, batch=5)])
    for table in (together, alone):
        assert table.pooled_once
    thresholds = alone.thresholds()
    assert together.thresholds() == thresholds
    assert together.operating_points() == alone.operating_points()
    points = alone.operating_points()
    found, expected = (
        table.localization(
            thresholds, None, 100, points, predicted_classes(table.probability, "multilabel", [0.3, 0.3])
        )
        for table in (together, alone)
    )
    assert list(found) == list(expected)
    for name, estimate in expected.items():
        assert found[name].value == pytest.approx(estimate.value, rel=1e-9), name
        assert found[name].low == pytest.approx(estimate.low, rel=1e-9, nan_ok=True), name


def test_a_case_pooled_twice_that_cannot_be_told_apart_makes_pooled_figures_undefined() -> None:
    data = _set()
    table = _merged([_filled([0, 1, 2, 3], data), _filled([4, 2], data)])
    assert len(table.case) == 5
    found = table.localization(None)
    assert found["pxap"].reason == "a case was pooled twice, by two processes"
    assert math.isfinite(found["pixel_ap"].value)


def test_resetting_forgets_the_cases() -> None:
    data = _set()
    metric = _filled([0, 1, 2], data)
    metric.reset()
    metric.update(data[0][:2], data[1][:2], data[1][:2] * 0.5, data[2][:2], data[3][:2])
    assert len(metric.compute().case) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_of_maps_in_two_precisions(dtype: torch.dtype) -> None:
    names, labels, maps, masks = _set(size=(9, 8, 7))
    metric = CaseScores([0.5, -0.5])
    metric.update(names, labels, labels * 0.5, maps.to(dtype), masks)
    table: ScoreTable = metric.compute()
    found = table.localization([0.0, 0.0])
    assert found["pixel_ap"].value == pytest.approx(_merged([_filled(list(range(23)), _set(size=(9, 8, 7)))])
                                                    .localization([0.0, 0.0])["pixel_ap"].value, abs=0.01)  # fmt: skip
    assert all(math.isfinite(e.value) or e.reason for e in found.values())


def test_every_figure_has_a_value_or_a_reason_without_masks_and_without_thresholds() -> None:
    names, labels, maps, masks = _set()
    for truth in (masks, torch.zeros_like(masks)):
        metric = CaseScores()
        metric.update(names, labels, labels * 0.5, maps, truth)
        table: ScoreTable = metric.compute()
        for name, estimate in table.localization(None).items():
            assert math.isfinite(estimate.value) != bool(estimate.reason), name
        assert ("threshold" in table.localization(None)["dice"].reason) == bool(truth.any())


def test_what_a_threshold_is_for_is_scored_at_the_given_one() -> None:
    """A perfect map at thresholds that suit another data set: what it scores there, and what an oracle would."""
    masks = torch.zeros(4, 1, 12, 12, dtype=torch.bool)
    masks[:2, 0, 2:6, 2:6] = True
    maps = 10 * masks.float()
    maps[:2, 0, 8:, :] = 4.0  # a faint part elsewhere, 48 pixels
    labels = torch.tensor([[1], [1], [0], [0]])
    metric = CaseScores([3.0])
    metric.update(list("abcd"), labels, labels * 0.5, maps, masks)
    table: ScoreTable = metric.compute()
    found = table.localization([3.0], operating_points={"overlap": [3.0], "box": [0.9, 0.9, 0.3, 0.3]})
    assert found["dice"].value == pytest.approx(2 * 16 / (64 + 16))
    assert found["iobb"].value == pytest.approx(16 / 64)
    assert found["oracle/dice"].value == 1
    assert found["box_acc"].value == 1
    assert found["box_acc_v2"].value == 1  # of all parts one fits, at any threshold
    assert found["oracle/max_box_acc"].value == 1
    assert (
        table.localization(None, operating_points={"box": [0.1, 0.9, 0.9, 0.9]})["box_acc"].value == 0
    )  # the large part
    assert table.operating_points()["overlap"] == [10.0]
    assert table.operating_points()["box"][0] == 0.4  # the lowest at which the faint part is gone


def test_false_parts_are_counted_on_all_images() -> None:
    masks = torch.zeros(4, 1, 12, 12, dtype=torch.bool)
    masks[:2, 0, 2:4, 2:4] = True
    maps = 5 * masks.float()
    maps[2:, 0, 6, 6] = 9.0  # one false part on each normal image, above all lesions: 2 on 4 images
    labels = torch.tensor([[1], [1], [0], [0]])
    metric = CaseScores([3.0])
    metric.update(list("abcd"), labels, labels * 0.5, maps, masks)
    found = metric.compute().localization([3.0])
    assert found["lesion/recall@0.25fp_by_parts"].value == 0
    assert found["lesion/recall@0.5fp_by_parts"].value == 1
    assert found["lesion/recall@0.5fp"].value == 1
    assert found["lesion/recall"].value == 1


def test_relevance_on_a_spurious_cue_is_a_share_of_the_cases_that_have_it() -> None:
    maps = torch.zeros(3, 1, 6, 6)
    maps[:, 0, 0, :4] = 1.0
    cues = torch.zeros(3, 6, 6, dtype=torch.bool)
    cues[0, 0, 0] = cues[1, 0, :2] = True  # a quarter, and a half; the third case has no cue
    metric = CaseScores()
    labels = torch.tensor([[1], [0], [0]])
    metric.update(list("abc"), labels, labels * 0.5, maps, torch.zeros(3, 1, 6, 6, dtype=torch.bool), cues=cues)
    estimate = metric.compute().localization(None)["cue/relevance_mass"]
    assert estimate.value == pytest.approx(0.375)
    assert estimate.n == 2
    assert "cue/relevance_mass" not in _merged([_filled([0, 1], _set())]).localization(None)


def test_subjects_are_the_unit_of_the_intervals() -> None:
    names, labels, maps, masks = _set(cases=24)
    metric = CaseScores()
    copies = [f"{name}-{copy}" for copy in range(4) for name in names]
    metric.update(
        copies,
        labels.repeat(4, 1),
        labels.repeat(4, 1) * 0.5,
        maps.repeat(4, 1, 1, 1),
        masks.repeat(4, 1, 1, 1),
        subjects=names * 4,
    )
    four = metric.compute().localization(None)
    metric = CaseScores()
    metric.update(names, labels, labels * 0.5, maps, masks, subjects=names)
    one = metric.compute().localization(None)
    for name in ("pixel_ap", "relevance_mass", "pxap", "lroc", "displacement_px/spread"):
        assert four[name].value == pytest.approx(one[name].value)
        assert four[name].high - four[name].low == pytest.approx(one[name].high - one[name].low, rel=0.05), name


def test_lesions_come_with_their_case_class_number_and_whether_they_are_found() -> None:
    table = _scores(*_lesions([5, 1], [9]))
    assert table.lesion_voxels.tolist() == [1, 1]
    assert table.lesion_centre.tolist() == [[1, 1], [1, 1]]
    assert sorted(table.lesion_case) == sorted(case_number(f"case{n}") for n in range(2))
    assert sorted(table.found([2.0])) == [0, 1]
    assert np.isnan(table.found(None)).all()
    assert table.localization([2.0])["lesion/recall"].value == 0.5


def test_differences_are_of_the_same_cases() -> None:
    data = _set()
    better, worse = _filled(list(range(23)), data), CaseScores([0.5, -0.5])
    names, labels, maps, masks = data
    worse.update(names, labels, labels * 0.5, -maps, masks)
    gaps = better.compute().differences(worse.compute())
    assert gaps["pixel_ap"].low > 0
    assert gaps["pixel_ap"].p < 0.05
    expected = (
        better.compute().localization(None)["pixel_ap"].value - worse.compute().localization(None)["pixel_ap"].value
    )
    assert gaps["pixel_ap"].value == pytest.approx(expected)
    with pytest.raises(ValueError, match="not the same"):
        better.compute().differences(_filled([0, 1], data).compute())
