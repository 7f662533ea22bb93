"""Pooled pixels: bins, PxAP and AUPRO against scikit-learn and loops over thresholds, memory, speed."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from hrcam_lightning.metrics import (
    CaseScores,
    ScoreTable,
    aupro,
    exact_columns,
    froc,
    label_lesions,
    lesion_peaks,
    local_maxima,
    overlaps,
    pooled_pixel_ap,
)
from hrcam_lightning.metrics.pooled import bins_of, histogram, lowest_of, merge

if TYPE_CHECKING:
    from hrcam_lightning.metrics.estimate import Floats

SIZES = [(24, 20), (10, 9, 8)]
NAMES = [f"case{n}" for n in range(64)]


def _set(size: tuple[int, ...], signal: float = 1.5, cases: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Maps with some signal, masks of a few lesions in the even cases, labels."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(cases, 1, *size, dtype=torch.bool)
    for case in range(0, cases, 2):
        for _ in range(2):
            inside = torch.ones(size, dtype=torch.bool)
            for axis, length in enumerate(size):
                first = int(torch.randint(0, length - 4, (1,), generator=generator))
                extent = int(torch.randint(1, 5, (1,), generator=generator))
                line = torch.arange(length)
                on = (line >= first) & (line < first + extent)
                inside &= on.view(-1, *[1] * (len(size) - 1 - axis))
            masks[case, 0] |= inside
    maps = torch.randn(cases, 1, *size, generator=generator) + signal * masks - 3
    return maps, masks, masks.flatten(2).any(-1).long()


def _table(maps: Tensor, masks: Tensor, labels: Tensor, **arguments: list[float]) -> ScoreTable:
    metric = CaseScores(**arguments)  # type: ignore[arg-type]
    metric.update(NAMES[: len(maps)], labels, labels * 0.5, maps, masks)
    table: ScoreTable = metric.compute()
    return table


def _pro_by_thresholds(maps: Tensor, lesions: Tensor, thresholds: Floats, limit: float = 0.3) -> float:
    """AUPRO as published: for every threshold the mean overlap of the regions and the false positive rate."""
    values, numbers = maps[:, 0].double().numpy(), lesions[:, 0].numpy()
    regions = [(b, number) for b in range(len(values)) for number in range(1, numbers[b].max() + 1)]
    outside = numbers == 0
    curve = [(0.0, 0.0)]
    for threshold in thresholds:
        shown = values >= threshold
        pro = np.mean([shown[b][numbers[b] == number].mean() for b, number in regions])
        curve.append((float((shown & outside).sum() / outside.sum()), float(pro)))
    x, y = np.array(curve).T
    inside = x <= limit
    end = np.interp(limit, x, y)
    return float(np.trapezoid(np.r_[y[inside], end], np.r_[x[inside], limit]) / limit)


def test_bins_keep_the_order_of_values_and_their_lowest_value_is_in_them() -> None:
    values = torch.tensor([-math.inf, -3e38, -7.1, -7.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0, 1.004, 3e38, math.inf])
    bins = bins_of(values)
    assert (bins.diff() >= 0).all()
    assert bins[5] == bins[6]
    assert bins.min() >= 0
    assert bins.max() < 2**16
    random = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 20
    every = bins_of(random)
    lowest = torch.from_numpy(lowest_of(every.numpy()))
    assert (lowest <= random).all()
    assert bins_of(lowest.float()).equal(every)
    thresholds = torch.from_numpy(lowest_of(np.unique(every.numpy())[::50])).float()
    for threshold in thresholds:
        assert (random >= threshold).equal(every >= bins_of(threshold))
    assert ((random - lowest).abs() / random.abs()).max() < 2**-7  # relative width of a bin
    assert (lowest[random > 0] == random[random > 0].to(torch.bfloat16).double()).float().mean() > 0.4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [None, 2])
def test_exact_pxap_is_scikit_learns_over_all_pixels(size: tuple[int, ...], levels: int | None) -> None:
    maps, masks, _ = _set(size)
    maps = (levels * maps).round() if levels else maps
    outside, inside, _ = exact_columns(maps[:, 0], label_lesions(masks)[:, 0])
    theirs = average_precision_score(masks.flatten().numpy(), maps.flatten().numpy())
    assert float(pooled_pixel_ap(outside, inside)) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [None, 2])
def test_exact_aupro_is_that_of_a_loop_over_thresholds(size: tuple[int, ...], levels: int | None) -> None:
    maps, masks, _ = _set(size, cases=6)
    maps = (levels * maps).round() if levels else (20 * maps).round()
    lesions = label_lesions(masks)
    outside, _, per_lesion = exact_columns(maps[:, 0], lesions[:, 0])
    thresholds = np.unique(maps.numpy())[::-1]
    for limit in (0.05, 0.3, 1.0):
        expected = _pro_by_thresholds(maps, lesions, thresholds, limit)
        assert float(aupro(outside, per_lesion, limit)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_binned_figures_are_the_exact_ones(size: tuple[int, ...], dtype: torch.dtype) -> None:
    maps, masks, labels = _set(size)
    maps = maps.to(dtype)
    got = _table(maps, masks, labels).localization(None)
    lesions = label_lesions(masks)
    outside, inside, per_lesion = exact_columns(maps[:, 0], lesions[:, 0])
    tolerance = 1e-9 if dtype == torch.bfloat16 else 4e-3  # a map in bfloat16 loses nothing
    assert got["pxap"].value == pytest.approx(float(pooled_pixel_ap(outside, inside)), abs=tolerance)
    assert got["aupro"].value == pytest.approx(float(aupro(outside, per_lesion)), abs=tolerance)
    detections = local_maxima(maps, 3)
    scores = torch.where(detections, maps.float(), -torch.inf)
    false = scores[detections & (lesions == 0)].double().numpy()
    at = froc(false, lesion_peaks(scores, masks, lesions).peak.double().numpy(), len(maps))[2]
    names = [f"lesion/recall@{rate}fp" for rate in ("0.25", "0.5", "1", "2", "4", "8")]
    exact = 1e-9 if dtype == torch.bfloat16 else 0.101  # bins tie a lesion with a false positive now and then
    np.testing.assert_allclose([got[name].value for name in names], at, atol=exact)
    assert got["lesion/froc"].value == pytest.approx(np.mean([got[name].value for name in names]))


@pytest.mark.parametrize("size", SIZES)
def test_mean_dice_is_that_of_each_threshold(size: tuple[int, ...]) -> None:
    maps, masks, labels = _set(size)
    table = _table(maps, masks, labels)
    (threshold,) = table.operating_points()["overlap"]
    edges = lowest_of(np.unique(bins_of(maps).numpy()))
    means = [float(overlaps(maps, masks, torch.tensor([edge]))["dice"].nanmean()) for edge in edges]
    assert table.localization(None)["oracle/dice"].value == pytest.approx(max(means), abs=1e-6)
    assert edges[int(np.argmax(means))] == threshold
    # and scored at that threshold, case by case, the same cases give the same mean
    again = _table(maps, masks, labels, thresholds=[threshold]).localization(None)
    assert again["dice"].value == pytest.approx(max(means), abs=1e-6)


def test_perfect_inverted_and_flat_maps() -> None:
    _, masks, labels = _set((24, 20))
    share = masks.float().mean().item()
    perfect, inverted, flat = (
        _table(maps, masks, labels).localization(None) for maps in (masks.float(), -masks.float(), 0.0 * masks)
    )
    assert perfect["pxap"].value == perfect["aupro"].value == perfect["oracle/dice"].value == 1
    assert perfect["lesion/froc"].value == 1
    assert inverted["aupro"].value == inverted["lesion/froc"].value == 0
    assert inverted["pxap"].value == pytest.approx(share)
    assert flat["pxap"].value == pytest.approx(share)
    assert flat["aupro"].value == pytest.approx(0.15)  # chance: half of the limit
    assert flat["lesion/froc"].value == 0


def test_random_maps_score_their_expectation() -> None:
    maps, masks, labels = _set((40, 40), signal=0, cases=40, seed=5)
    found = _table(maps, masks, labels).localization(None)
    assert found["pxap"].value == pytest.approx(masks.float().mean().item(), rel=0.25)
    assert found["aupro"].value == pytest.approx(0.15, abs=0.04)


def test_large_lesions_rule_pxap_and_count_once_in_aupro() -> None:
    """One lesion of 100 pixels found, four of one pixel missed: PxAP hardly sees the four."""
    masks = torch.zeros(1, 1, 30, 30, dtype=torch.bool)
    masks[0, 0, :10, :10] = True
    masks[0, 0, 20:29:2, 28] = True
    masks[0, 0, 28, 28] = False
    maps = torch.zeros(1, 1, 30, 30)
    maps[0, 0, :10, :10] = 1
    maps[masks & (maps == 0)] = -1
    found = _table(maps, masks, torch.ones(1, 1)).localization(None)
    assert found["pxap"].value > 0.95
    # one region of five at once, none of the others by any false positive rate
    assert found["aupro"].value == pytest.approx(0.2)


def test_normal_images_count_against_a_map() -> None:
    """Scores of positives alone, as elsewhere, do not see what lights up on normal images."""
    maps, masks, labels = _set((24, 20), signal=6)
    quiet = _table(maps, masks, labels).localization(None)
    lit = maps.clone()
    lit[1::2, 0, ::5, ::5] += 12
    loud = _table(lit, masks, labels).localization(None)
    assert loud["pixel_ap"].value == quiet["pixel_ap"].value
    for name in ("pxap", "aupro", "lesion/froc"):
        assert loud[name].value < quiet[name].value - 0.05, name


def test_a_positive_without_a_mask_is_neither_right_nor_wrong() -> None:
    maps, masks, labels = _set((24, 20))
    with_unknown = (torch.cat([whole, extra]) for whole, extra in (
        (maps, torch.full((1, 1, 24, 20), 9.0)), (masks, torch.zeros(1, 1, 24, 20, dtype=torch.bool)),
        (labels, torch.ones(1, 1, dtype=torch.long))))  # fmt: skip
    found, expected = _table(*with_unknown).localization(None), _table(maps, masks, labels).localization(None)
    for name in ("pxap", "aupro", "lesion/froc", "lroc"):
        assert found[name].to_dict() == expected[name].to_dict()


def test_memory_does_not_grow_with_the_images() -> None:
    """A list of all maps and masks, as elsewhere, holds every pixel."""
    metric = CaseScores()
    maps, masks, labels = _set((24, 20), cases=16)
    held = []
    for turn in range(6):
        for part in range(4):
            names = [f"{turn}-{part}-{n}" for n in range(16)]
            metric.update(names, labels, labels * 0.5, maps, masks)
        metric.compute()
        held.append(sum(len(rows) for rows in metric.pixel_rows))
    assert held[-1] <= 1.2 * held[1]
    assert sum(len(rows) for rows in metric.first_rows) < 24 * 20 + 2


def test_aupro_is_five_times_faster_than_a_loop_over_two_hundred_thresholds() -> None:
    maps, masks, _ = _set((128, 128), cases=10)
    lesions = label_lesions(masks)
    turns: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(3):
        start = time.perf_counter()
        parts = [histogram(*pair, None, None) for pair in zip(maps[:, 0], lesions[:, 0], strict=True)]
        bins, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        _, rows = merge(torch.from_numpy(-bins), torch.from_numpy(counts))
        ours = float(aupro(rows[:, 0].numpy(), rows[:, 2].numpy()))
        turns["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        loop = _pro_by_thresholds(maps, lesions, np.quantile(maps.numpy(), np.linspace(1, 0, 200)))
        turns["loop"].append(time.perf_counter() - start)
    assert loop == pytest.approx(ours, abs=0.01)

    assert min(turns["loop"]) > 5 * min(turns["ours"])
