"""Map scores against scikit-learn, torchmetrics, brute force and hand-made cases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index, binary_precision

from hrcam_lightning.metrics import (
    overlaps,
    peak_distances,
    pixel_average_precision,
    pointing_hits,
    relevance_mass,
    relevance_rank,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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


def _overlap(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda maps, masks: overlaps(maps, masks, torch.zeros(maps.shape[1]))[name]


SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing": pointing_hits,
    "pointing_near": lambda maps, masks: pointing_hits(maps, masks, tolerance=1.5),
    "distance": peak_distances,
    "pixel_ap": pixel_average_precision,
    "mass": relevance_mass,
    "rank": relevance_rank,
    **{name: _overlap(name) for name in ("dice", "iou", "iobb")},
}
ALL = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


@ALL
def test_an_empty_mask_has_no_score_where_quantus_counts_a_hit(score: Callable[[Tensor, Tensor], Tensor]) -> None:
    maps, masks = _random((4, 5))
    masks[0] = False
    found = score(maps, masks)
    assert found[0].isnan().all()
    assert found[1:].isfinite().all()


@ALL
def test_a_map_with_nan_has_no_score_where_others_take_it_for_zeros(score: Callable[[Tensor, Tensor], Tensor]) -> None:
    maps, masks = _random((4, 5))
    masks[..., 0, 0] = True
    maps[2, 1, 3, 3] = math.nan
    found = score(maps, masks)
    assert found.isnan().nonzero().tolist() == [[2, 1]]


@ALL
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_its_cases_one_by_one_in_any_order(
    score: Callable[[Tensor, Tensor], Tensor], size: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Quantus slices the batch where it means the image: its score depends on the batch size."""
    maps, masks = _random(size)
    maps = maps.to(dtype)
    together = score(maps, masks)
    for index in (2, 0, 3, 1):
        one = score(maps[index : index + 1], masks[index : index + 1])[0]
        torch.testing.assert_close(one, together[index], equal_nan=True, rtol=0, atol=0)
    # values in bfloat16 are values in float32
    torch.testing.assert_close(score(maps.float(), masks).float(), together.float(), equal_nan=True)


@ALL
def test_no_masks_at_all_are_no_error(score: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert score(torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize("size", SIZES)
def test_distances_are_to_the_nearest_pixel_from_the_farthest_peak(size: tuple[int, ...]) -> None:
    maps, masks = _random(size, 2)
    maps = (2 * maps).round()
    spacing = (0.5, 2.0, 3.0)[: len(size)]
    got = peak_distances(maps, masks, spacing)
    for b in range(4):
        for k in range(2):
            peaks = np.argwhere((maps[b, k] == maps[b, k].max()).numpy()) * spacing
            inside = np.argwhere(masks[b, k].numpy()) * spacing
            expected = max(min(math.dist(p, q) for q in inside) for p in peaks)
            assert float(got[b, k]) == pytest.approx(expected, rel=1e-5)


def test_pointing_with_a_tolerance_takes_in_the_pixels_around() -> None:
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[0, 0, 4, 4] = True
    peak = torch.zeros(1, 1, 9, 9)
    peak[0, 0, 4, 7] = 1  # 3 pixels off
    assert [pointing_hits(peak, mask, tolerance=t).item() for t in (0, 2.9, 3, 15)] == [0, 0, 1, 1]
    assert pointing_hits(peak, mask, tolerance=3, spacing=(1, 0.5)).item() == 1
    assert pointing_hits(peak, mask, tolerance=3, spacing=(0.5, 2)).item() == 0
    assert pointing_hits(torch.ones(1, 1, 9, 9), mask, tolerance=15).item() == 0  # flat: points nowhere
    assert peak_distances(torch.ones(1, 1, 9, 9), mask).item() == math.inf
    with pytest.raises(ValueError, match="must not be negative"):
        pointing_hits(peak, mask, tolerance=-1)


def test_a_distance_is_exact_and_within_a_tolerance_of_its_own_size() -> None:
    """Also where a distance transform of the image takes the place of all pairs."""
    rng = np.random.default_rng(0)
    for spacing in ((0.7, 0.7), (0.14, 0.14), (0.9375, 1.2), (0.6, 0.3)):
        for size, side, plateau in (((40, 40), 6, 1), ((96, 96), 30, 20)):
            maps, masks = torch.zeros(1, 1, *size), torch.zeros(1, 1, *size, dtype=torch.bool)
            start, place = rng.integers(0, size[0] - side), rng.integers(0, size[1] - plateau, 2)
            masks[0, 0, start : start + side, 3 : 3 + side] = True
            maps[0, 0, place[0] : place[0] + plateau, place[1] : place[1] + plateau] = 1
            scale = torch.tensor(spacing, dtype=torch.float64)
            gaps = (maps[0, 0] == 1).nonzero()[:, None] * scale - masks[0, 0].nonzero() * scale
            expected = float(gaps.square().sum(-1).amin(1).amax().sqrt())
            assert peak_distances(maps, masks, spacing).item() == pytest.approx(expected, rel=1e-6)
            if expected:
                assert pointing_hits(maps, masks, expected, spacing).item() == 1
                assert pointing_hits(maps, masks, 0.999 * expected, spacing).item() == 0
    inside = torch.zeros(1, 1, 30, 30, dtype=torch.bool)
    inside[0, 0, 4:10, 5:11] = True
    peak = torch.zeros(1, 1, 30, 30)
    peak[0, 0, 7, 7] = 1
    assert peak_distances(peak, inside, (0.9375, 0.9375)).item() == 0


def test_relevance_mass_is_the_share_above_zero() -> None:
    maps = torch.tensor([[3.0, 1.0], [-5.0, 4.0]])[None, None]
    mask = torch.tensor([[True, False], [True, False]])[None, None]
    assert relevance_mass(maps, mask).item() == pytest.approx(3 / 8)
    assert relevance_mass(2 * maps, mask).item() == pytest.approx(3 / 8)
    assert relevance_mass(mask.float(), mask).item() == 1
    assert relevance_mass((~mask).float(), mask).item() == 0


def test_a_map_without_relevance_has_put_none_on_the_lesion_and_is_not_left_out() -> None:
    """0/0 in Quantus: a model that blanks its hard cases must not gain by it."""
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert relevance_mass(torch.zeros(1, 1, 2, 2), mask).item() == 0
    assert relevance_mass(torch.full((1, 1, 2, 2), -7.0), mask).item() == 0


def test_relevance_rank_takes_as_many_pixels_as_the_lesion_has() -> None:
    """A fixed k = 1000, as in Quantus, exceeds small lesions, whose best score would be below 1."""
    mask = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    mask[0, 0, 2, 3:7] = True
    assert relevance_rank(mask.float(), mask).item() == 1
    assert relevance_rank(-mask.float(), mask).item() == 0
    ramp = torch.zeros(1, 1, 10, 10)
    ramp[0, 0, 2, 5:9] = torch.tensor([4.0, 3.0, 2.0, 1.0])  # two of four on the lesion
    assert relevance_rank(ramp, mask).item() == pytest.approx(2 / 4)
    assert relevance_rank(torch.ones(1, 1, 10, 10), mask).item() == pytest.approx(4 / 100)
    ramp[0, 0, 2, 7:9] = 0  # two places left for 98 tied pixels, two of which are on the lesion
    assert relevance_rank(ramp, mask).item() == pytest.approx((2 + 2 * 2 / 98) / 4)


def test_random_maps_score_the_lesions_share_of_the_image() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(600, 1, 12, 12, generator=generator)
    masks = torch.zeros(600, 1, 12, 12, dtype=torch.bool)
    masks[:, :, 2:6, 3:9] = True  # 24 of 144
    for name in ("pointing", "rank", "mass"):
        assert SCORES[name](maps, masks).mean().item() == pytest.approx(24 / 144, abs=0.045)


@pytest.mark.parametrize("size", SIZES)
def test_dice_iou_and_iobb_are_torchmetrics(size: tuple[int, ...]) -> None:
    maps, masks = _random(size)
    thresholds = torch.tensor([0.3, -0.5])
    got = overlaps(maps, masks, thresholds)
    theirs: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "dice": binary_f1_score,
        "iou": binary_jaccard_index,
        "iobb": binary_precision,
    }
    for b in range(4):
        for k in range(2):
            predicted = (maps[b, k] >= thresholds[k]).int()
            for name, score in theirs.items():
                assert got[name][b, k].item() == pytest.approx(score(predicted, masks[b, k].int()).item(), abs=1e-6)


def test_overlap_of_hand_made_cases() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1, :] = True
    shown = torch.zeros(1, 1, 4, 4)
    shown[0, 0, 1, 2:] = shown[0, 0, 2, 2:] = 5.0  # 4 pixels, 2 on the lesion of 4
    got = {name: score.item() for name, score in overlaps(shown, mask, torch.tensor([5.0])).items()}
    assert got == pytest.approx({"dice": 0.5, "iou": 2 / 6, "iobb": 0.5})
    nothing = overlaps(shown, mask, torch.tensor([5.1]))
    assert {name: score.item() for name, score in nothing.items()} == {"dice": 0, "iou": 0, "iobb": 0}
    assert all(score.isnan().all() for score in overlaps(shown, mask, torch.tensor([math.nan])).values())
    assert overlaps(shown, mask, torch.tensor([[4.0]]))["dice"].item() == 0.5  # a threshold for each map


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


def test_scores_of_rank_depend_on_order_alone_and_mass_does_not() -> None:
    maps, masks = _random((9, 8))
    stretched = (3 * maps).exp() - 7
    for name in ("pointing", "distance", "pixel_ap", "rank"):
        torch.testing.assert_close(SCORES[name](maps, masks), SCORES[name](stretched, masks))
    assert not torch.allclose(relevance_mass(maps, masks), relevance_mass(stretched, masks))
