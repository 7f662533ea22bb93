"""Boxes: MaxBoxAcc and V2 re-derived by brute force, hand-made fractions, oracle and validation thresholds apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from hrcam_lightning.metrics import best_threshold, box_overlaps
from hrcam_lightning.metrics.boxes import SPECKS, THRESHOLDS


def _mask(size: tuple[int, ...], *boxes: tuple[slice, ...]) -> torch.Tensor:
    mask = torch.zeros(1, 1, *size, dtype=torch.bool)
    for box in boxes:
        mask[0, 0][box] = True
    return mask


def _iou(first: tuple[slice, ...], second: tuple[slice, ...]) -> float:
    """Of two boxes, pixel by pixel."""
    a, b = _pixels(first), _pixels(second)
    return len(a & b) / len(a | b)


def _pixels(box: tuple[slice, ...]) -> set[tuple[int, ...]]:
    starts = [axis.start for axis in box]
    return {
        tuple(int(s + i) for s, i in zip(starts, index, strict=True))
        for index in np.ndindex(*(axis.stop - axis.start for axis in box))
    }


@pytest.mark.parametrize("size", [(18, 20), (8, 9, 7)])
@pytest.mark.parametrize("smooth", [0.0, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_overlaps_are_those_of_the_published_definition(
    size: tuple[int, ...], smooth: float, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=size)
    maps = torch.from_numpy(ndimage.gaussian_filter(values, smooth) if smooth else values)[None, None].to(dtype)
    mask = _mask(size, *[tuple(slice(2, 5) for _ in size), tuple(slice(n - 3, n - 1) for n in size)])
    got = box_overlaps(maps, mask, (0.0, 0.35, 0.6, 0.8))
    corners = np.ones((3,) * len(size))
    true = ndimage.find_objects(ndimage.label(mask[0, 0].numpy(), corners)[0])
    scaled = maps[0, 0].double().numpy()
    scaled = (scaled - scaled.min()) / (scaled.max() - scaled.min())
    for t, threshold in enumerate((0.0, 0.35, 0.6, 0.8)):
        labels, count = ndimage.label(scaled > threshold, corners)
        shown = ndimage.find_objects(labels)
        best = [max(_iou(part, truth) for truth in true) for part in shown]
        assert got.every[0, 0, t].item() == pytest.approx(max(best))
        largest = int(np.argmax([(labels == number).sum() for number in range(1, count + 1)]))
        assert got.largest[0, 0, t].item() == pytest.approx(best[largest])


def test_thousands_of_parts_are_boxed_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(1, 1, 80, 80, generator=torch.Generator().manual_seed(1))
    mask = _mask((80, 80), (slice(30, 33), slice(40, 42)))
    _, count = ndimage.label(maps[0, 0].numpy() > 0.9, np.ones((3, 3)))
    assert count * SPECKS > (maps > 0.9).sum()
    whole = box_overlaps(maps, mask, (0.9,))
    monkeypatch.setattr("hrcam_lightning.metrics.boxes.SPECKS", 0)
    one_by_one = box_overlaps(maps, mask, (0.9,))
    assert one_by_one.every.equal(whole.every)
    assert one_by_one.largest.equal(whole.largest)


def test_a_hand_made_box() -> None:
    mask = _mask((10, 10), (slice(2, 6), slice(2, 6)))  # 4 × 4
    shown = torch.zeros(1, 1, 10, 10)
    shown[0, 0, 4:8, 2:6] = 1  # shifted by two: 8 of 24
    shown[0, 0, 0, 9] = 0.5  # a small part at low thresholds
    got = box_overlaps(shown, mask, (0.2, 0.7))
    np.testing.assert_allclose(got.every[0, 0], [8 / 24, 8 / 24])
    np.testing.assert_allclose(got.largest[0, 0], [8 / 24, 8 / 24])


def test_perfect_inverted_and_flat_maps() -> None:
    mask = _mask((10, 10), (slice(2, 6), slice(3, 8)))
    assert (box_overlaps(mask.float(), mask).every == 1).all()
    inverted = box_overlaps(-mask.float(), mask).every
    assert (inverted == 20 / 100).all()  # its one box is the whole image
    flat = box_overlaps(torch.full((1, 1, 10, 10), 3.0), mask)
    assert (flat.every == 0).all()  # and no division by zero
    assert (flat.largest == 0).all()


def test_boxes_do_not_change_with_scale_offset_or_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 2, 12, 12, generator=generator)
    masks = torch.rand(3, 2, 12, 12, generator=generator) < 0.1
    whole = box_overlaps(maps, masks)
    torch.testing.assert_close(box_overlaps(5 * maps.double() - 3, masks).every, whole.every)
    for index in range(3):
        one = box_overlaps(maps[index : index + 1], masks[index : index + 1])
        assert one.every[0].equal(whole.every[index])
        assert one.largest[0].equal(whole.largest[index])


def test_an_empty_mask_and_a_broken_map_have_no_boxes() -> None:
    masks = _mask((6, 6), (slice(1, 3), slice(1, 3))).repeat(3, 1, 1, 1)
    masks[0] = False
    maps = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    maps[1, 0, 0, 0] = math.nan
    assert box_overlaps(maps, masks).every.isnan().all(-1)[:, 0].tolist() == [True, True, False]


def test_the_oracle_threshold_is_the_best_on_its_own_cases() -> None:
    overlaps = np.array([[0.6, 0.2, 0.0], [0.1, 0.55, 0.2], [0.3, 0.7, 0.9]])
    assert best_threshold(overlaps, 0.5) == 1  # two of three; the others one
    assert best_threshold(overlaps, 0.8) == 2
    assert best_threshold(overlaps, 0.95) == 0  # none anywhere: the lowest
    assert len(THRESHOLDS) == 10
