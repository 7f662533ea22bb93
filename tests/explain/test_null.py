"""Null explainers: the same for a case wherever it is drawn, and as uninformed as they say."""

from __future__ import annotations

import pytest
import torch

from hrcam_lightning.explain.null import center_maps, random_maps
from hrcam_lightning.metrics import pixel_average_precision, pointing_hits


def test_an_images_noise_follows_from_its_content() -> None:
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    both = random_maps(images)
    assert torch.equal(random_maps(images[1:])[0], both[1])
    assert not torch.equal(both[0], both[1])


def test_random_maps_score_what_chance_scores() -> None:
    maps = random_maps(torch.arange(2000 * 64).float().view(2000, 1, 8, 8))
    masks = torch.zeros(2000, 1, 8, 8, dtype=torch.bool)
    masks[:, :, 2:6, 2:6] = True
    assert pointing_hits(maps, masks).mean().item() == pytest.approx(16 / 64, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)
    assert maps.mean().item() == pytest.approx(0.5, abs=0.01)
    assert pixel_average_precision(maps, masks).mean().item() == pytest.approx(0.28, abs=0.03)


@pytest.mark.parametrize("size", [(5, 7), (3, 5, 7)])
def test_the_centre_map_peaks_in_the_middle_and_falls_evenly(size: tuple[int, ...]) -> None:
    maps = center_maps(torch.zeros(2, 3, *size))
    middle = tuple(n // 2 for n in size)
    assert (
        maps[0, 0].argmax()
        == torch.zeros(size).index_put(tuple(torch.tensor(i) for i in middle), torch.tensor(1.0)).argmax()
    )
    assert torch.equal(maps, maps.flip(2))
    assert torch.equal(maps[0], maps[1])
