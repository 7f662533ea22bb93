"""Detections and FROC: hand-made counts, brute force, MONAI's implementation, policies of ties and plateaus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.froc import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score
from scipy import ndimage

from hrcam_lightning.metrics import component_peaks, froc, local_maxima
from hrcam_lightning.metrics.detection import RATES

SIZES = [(17, 16), (9, 8, 7)]


def _maps(size: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_local_maxima_are_the_highest_of_their_window_and_first_of_equals(
    size: tuple[int, ...], radius: int, dtype: torch.dtype
) -> None:
    maps = (2 * _maps(size)).round().to(dtype)  # plenty of ties
    got = local_maxima(maps, radius)
    for b in range(3):
        for k in range(2):
            values = maps[b, k].float().numpy()
            highest = (values == ndimage.maximum_filter(values, 2 * radius + 1, mode="constant", cval=-np.inf)) & (
                values > values.min()
            )
            parts, count = ndimage.label(highest, structure=np.ones((3,) * len(size)))
            places = np.array(sorted(tuple(np.argwhere(parts == part)[0]) for part in range(1, count + 1)))
            kept = [p for p in places if not any((abs(q - p) <= radius).all() and tuple(q) < tuple(p) for q in places)]
            assert [tuple(place) for place in got[b, k].nonzero().tolist()] == [tuple(place) for place in kept]


def test_detections_keep_their_distance_and_a_batch_is_its_cases() -> None:
    maps = _maps((40, 40))
    got = local_maxima(maps, 4)
    for places in (got[0, 0].nonzero(), got[2, 1].nonzero()):
        gaps = (places[:, None] - places[None]).abs().amax(-1) + 99 * torch.eye(len(places), dtype=torch.long)
        assert gaps.min() > 4
    assert torch.cat([local_maxima(maps[index : index + 1], 4) for index in range(3)]).equal(got)
    assert local_maxima((3 * maps).exp(), 4).equal(got)  # order alone


def test_a_flat_map_offers_nothing_and_a_plateau_one_detection() -> None:
    assert not local_maxima(torch.zeros(1, 1, 8, 8)).any()
    plateau = torch.zeros(1, 1, 20, 20)
    plateau[0, 0, 3, 2:18] = 1  # longer than the window
    assert local_maxima(plateau, 2).nonzero().tolist() == [[0, 0, 3, 2]]
    with pytest.raises(ValueError, match="at least 1 pixel"):
        local_maxima(plateau, 0)


def test_a_plateau_of_any_shape_and_orientation_is_one_detection() -> None:
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    disc = ((rows - 24) ** 2 + (columns - 20) ** 2 <= 15**2).float()
    bent = torch.zeros(48, 48)
    bent[5:40, 8] = bent[39, 8:30] = 1  # an L
    ball = torch.zeros(20, 20, 20)
    ball[3:17, 4:15, 5:18] = 2
    for shape in (disc, bent, ball):
        for turned in (shape, shape.flip(0), shape.flip(1), shape.flip(0, 1), shape.transpose(0, 1)):
            (found,) = local_maxima(turned[None, None]).nonzero().tolist()
            assert found[2:] == turned.nonzero()[0].tolist()
    two = torch.maximum(disc, 2 * torch.zeros(48, 48).index_put((torch.tensor(2), torch.tensor(44)), torch.tensor(1.0)))
    assert local_maxima(two[None, None]).sum() == 2


@pytest.mark.parametrize("size", SIZES)
def test_component_peaks_are_one_a_part_and_its_highest(size: tuple[int, ...]) -> None:
    maps = (4 * _maps(size, 1)).round()
    got = component_peaks(maps, torch.tensor([3.0, math.nan]))
    assert not got[:, 1].any()  # no threshold, no detections
    for b in range(3):
        labels, count = ndimage.label(maps[b, 0].numpy() >= 3, np.ones((3,) * len(size)))
        values = maps[b, 0].numpy()
        parts = [labels == number for number in range(1, count + 1)]
        places = [tuple(np.argwhere(part & (values == values[part].max()))[0]) for part in parts]
        assert sorted(map(tuple, got[b, 0].nonzero().tolist())) == sorted(places)


def test_froc_of_a_hand_made_set() -> None:
    """Four images; lesions found at 9, 7 and 3, one never; false positives at 8, 5, 4, 4, 2."""
    false, lesions = np.array([8.0, 5, 4, 4, 2]), np.array([9.0, 7, 3, -np.inf])
    rate, sensitivity, at = froc(false, lesions, 4)
    assert rate.tolist() == [0, 0.25, 0.25, 0.5, 1.0, 1.0, 1.25]  # at 9, 8, 7, 5, 4, 3, 2
    assert sensitivity.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75]
    assert at.tolist() == [0.5, 0.5, 0.75, 0.75, 0.75, 0.75]


def test_of_tied_scores_the_false_positive_counts_first() -> None:
    assert froc(np.array([5.0]), np.array([5.0]), 2)[2].tolist() == [0, 1, 1, 1, 1, 1]


def test_no_detection_at_all_finds_nothing_and_no_lesion_is_refused() -> None:
    assert froc(np.zeros(0), np.array([-np.inf]), 3)[2].tolist() == [0] * 6
    for images, lesions in ((0, np.ones(1)), (2, np.ones(0))):
        with pytest.raises(ValueError, match="needs images and lesions"):
            froc(np.zeros(0), lesions, images)


def test_perfect_and_inverted_detections() -> None:
    assert froc(np.zeros(500), np.ones(20), 10)[2].tolist() == [1] * 6
    assert froc(np.ones(500), np.zeros(20), 10)[2].tolist() == [0] * 6


@pytest.mark.parametrize("size", SIZES)
def test_froc_is_monais(size: tuple[int, ...]) -> None:
    """MONAI leaves out the lowest score; a lesion never found has one, 0, below all others."""
    generator = torch.Generator().manual_seed(4)
    false: list[float] = []
    true: list[float] = []
    own_true: list[float] = []
    images = 11
    for _ in range(images):
        lesions = torch.rand(size, generator=generator) < 0.03
        labels, count = ndimage.label(lesions.numpy(), np.ones((3,) * len(size)))
        maps = (torch.rand(size, generator=generator) + 0.2 * torch.rand(size, generator=generator) * lesions)[
            None, None
        ]
        chosen = local_maxima(maps, 1)[0, 0]
        scores, places = maps[0, 0][chosen].numpy(), chosen.nonzero().numpy()
        theirs = compute_fp_tp_probs_nd(scores, places, labels)
        false += theirs[0].tolist()
        true += theirs[1].tolist()
        for number in range(1, count + 1):
            on = chosen.numpy() & (labels == number)
            own_true.append(float(maps[0, 0].numpy()[on].max()) if on.any() else -math.inf)
    assert min(true) == 0
    assert len(true) == len(own_true)
    curve = compute_froc_curve_data(np.array(false), np.array(true), len(true), images)
    at = froc(np.array(false), np.array(own_true), images)[2]
    assert at.mean() == pytest.approx(compute_froc_score(*curve, eval_thresholds=RATES), abs=1e-9)
    assert 0 < at[0] < at[-1] < 1
