"""Lesions one by one: numbering, size, place, peak; recall in cells of size and d′."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from hrcam_lightning.metrics import label_lesions, lesion_peaks, recall_by_size_and_dprime


def test_each_lesion_has_its_peak_and_corners_connect() -> None:
    masks = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    masks[1, 0, 0, 0] = masks[1, 0, 1, 1] = True  # one lesion, by its corners
    masks[1, 0, 4, 4:6] = True
    maps = torch.arange(72.0).view(2, 1, 6, 6)
    peaks = lesion_peaks(maps, masks)
    assert peaks.row.tolist() == [1, 1]
    assert peaks.number.tolist() == [1, 2]
    assert peaks.voxels.tolist() == [2, 2]
    assert peaks.centre.tolist() == [[0.5, 0.5], [4, 4.5]]
    assert peaks.peak.tolist() == [36 + 7, 36 + 29]


@pytest.mark.parametrize("size", [(15, 14), (7, 8, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lesions_are_scipys_parts(size: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 2, *size, generator=generator) < 0.08
    maps = torch.randn(3, 2, *size, generator=generator).to(dtype)
    got = lesion_peaks(maps, masks, label_lesions(masks))
    rows = []
    for b in range(3):
        for k in range(2):
            labels, count = ndimage.label(masks[b, k].numpy(), np.ones((3,) * len(size)))
            for number in range(1, count + 1):
                on = labels == number
                centre = np.argwhere(on).mean(0)
                rows.append([b, k, number, on.sum(), *centre, maps[b, k].float().numpy()[on].max()])
    columns = [got.row, got.column, got.number, got.voxels, *got.centre.unbind(1), got.peak]
    np.testing.assert_allclose(torch.stack([column.double() for column in columns], 1), np.array(rows), rtol=1e-6)
    assert len(rows) > 20


def test_no_lesions_give_no_peaks() -> None:
    peaks = lesion_peaks(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool))
    assert peaks.peak.shape == (0,)
    assert peaks.centre.shape == (0, 2)
    assert np.asarray(peaks.row).dtype == np.int64


def test_recall_is_counted_in_cells_of_size_and_dprime() -> None:
    found = np.array([1.0, 0, 1, 1, 0, 1])
    size, dprime = np.array([5.0, 5, 10, 10, 50, 99]), np.array([2.0, 2, 2, 6, 3, 3])
    cells = recall_by_size_and_dprime(found, size, dprime, [0, 10, 99], [2, 4, 8])
    assert [(cell.size, cell.dprime) for cell in cells] == [
        ((0, 10), (2, 4)), ((0, 10), (4, 8)), ((10, 99), (2, 4)), ((10, 99), (4, 8)),
    ]  # fmt: skip
    values = [cell.recall.value for cell in cells]
    assert values[0] == 0.5
    assert math.isnan(values[1])
    assert cells[1].recall.reason == "no lesion is in this cell"
    assert values[2:] == [0.5, 1]  # the lesion of 99 lies beyond the last edge
    assert [cell.recall.n for cell in cells] == [2, 0, 2, 1]
