"""Map scores against scikit-learn, brute force and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from hrcam_lightning.metrics import lesion_peaks, pixel_average_precision, pointing_hits

SIZES = [(9, 8), (5, 6, 4)]


def _random(size: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, 2, *size, generator=generator)
    masks = torch.rand(4, 2, *size, generator=generator) < 0.2
    return maps, masks


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [None, 3])
def test_pixel_ap_is_scikit_learns_with_and_without_ties(size: tuple[int, ...], levels: int | None) -> None:
    maps, masks = _random(size)
    if levels:
        maps = (maps * levels / 2).round()
    got = pixel_average_precision(maps, masks)
    for b in range(4):
        for k in range(2):
            expected = average_precision_score(masks[b, k].flatten().numpy(), maps[b, k].flatten().numpy())
            assert float(got[b, k]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_pointing_hits_if_every_highest_pixel_is_inside(size: tuple[int, ...]) -> None:
    maps, _ = _random(size, 1)
    maps = (2 * maps).round()  # ties at the top
    masks = maps > 2
    masks[..., 0] = False
    got = pointing_hits(maps, masks)
    outcomes = set()
    for b in range(4):
        for k in range(2):
            top = maps[b, k] == maps[b, k].max()
            expected = float(masks[b, k][top].all())
            outcomes.add(expected)
            assert float(got[b, k]) == expected
    assert outcomes == {0.0, 1.0}


def test_a_flat_map_and_a_tie_across_the_border_are_misses() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1, 1] = True
    tie = torch.zeros(1, 1, 4, 4)
    tie[0, 0, 1, 1] = tie[0, 0, 1, 2] = 1
    assert pointing_hits(torch.full((1, 1, 4, 4), 3.0), mask).item() == 0
    assert pointing_hits(tie, mask).item() == 0
    assert pointing_hits(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)).item() == 0
    tie[0, 0, 1, 2] = 0.999
    assert pointing_hits(tie, mask).item() == 1


def test_an_empty_mask_has_no_score() -> None:
    maps, masks = torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert math.isnan(pointing_hits(maps, masks).item())
    assert math.isnan(pixel_average_precision(maps, masks).item())


def test_best_worst_and_flat_pixel_ap() -> None:
    mask = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    mask[0, 0, 2:4, 3:8] = True
    assert pixel_average_precision(mask.float(), mask).item() == pytest.approx(1)
    assert pixel_average_precision(torch.zeros(1, 1, 10, 10), mask).item() == pytest.approx(0.1)
    # ranks 91..100 are the lesion's, all tied: precision 10/100 at the end of the tie
    assert pixel_average_precision(-mask.float(), mask).item() == pytest.approx(0.1)
    ramp = torch.arange(100.0).view(1, 1, 10, 10)
    last = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    last[0, 0, 0, 0] = True
    assert pixel_average_precision(ramp, last).item() == pytest.approx(1 / 100)


def test_scores_depend_on_order_alone() -> None:
    maps, masks = _random((9, 8))
    stretched = (3 * maps).exp() - 7
    assert torch.equal(pointing_hits(maps, masks), pointing_hits(stretched, masks))
    torch.testing.assert_close(pixel_average_precision(maps, masks), pixel_average_precision(stretched, masks))


def test_a_batch_is_its_cases_one_by_one() -> None:
    maps, masks = _random((9, 8))
    for score in (pointing_hits, pixel_average_precision):
        together = score(maps, masks)
        for index in range(4):
            assert torch.equal(score(maps[index : index + 1], masks[index : index + 1])[0], together[index])


def test_each_lesion_has_its_peak_and_corners_connect() -> None:
    masks = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    masks[1, 0, 0, 0] = masks[1, 0, 1, 1] = True  # one lesion, by its corners
    masks[1, 0, 4, 4:6] = True
    maps = torch.arange(72.0).view(2, 1, 6, 6)
    peaks = lesion_peaks(maps, masks)
    assert peaks.row.tolist() == [1, 1]
    assert peaks.number.tolist() == [1, 2]
    assert peaks.peak.tolist() == [36 + 7, 36 + 29]


def test_no_lesions_give_no_peaks() -> None:
    peaks = lesion_peaks(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool))
    assert peaks.peak.shape == (0,)
    assert np.asarray(peaks.row).dtype == np.int64
