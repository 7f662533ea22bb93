"""Displacement of the peak: constructed drifts, the nearest lesion, a brute-force reference, what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hrcam_lightning.metrics.displacement import displacement_estimates, peak_displacements


def _disc(centre: tuple[int, ...], size: tuple[int, ...], radius: float = 1.5) -> Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
    offset = grid - torch.tensor(centre).view(-1, *(1,) * len(size))
    return offset.square().sum(0) <= radius**2


def _peak(place: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    values = torch.zeros(size)
    values[place] = 1
    return values


@pytest.mark.parametrize(("centre", "place"), [((5, 8), (7, 5)), ((5, 8), (5, 8)), ((4, 6, 3), (2, 7, 3))], ids=str)
def test_it_is_the_vector_from_the_lesion_to_the_peak(centre: tuple[int, ...], place: tuple[int, ...]) -> None:
    size = (12, 14, 9)[: len(centre)]
    found = peak_displacements(_peak(place, size)[None, None], _disc(centre, size)[None, None])
    expected = torch.tensor([float(p - c) for p, c in zip(place, centre, strict=True)])
    torch.testing.assert_close(found[0, 0], expected)


def test_of_two_lesions_the_nearer_one_counts() -> None:
    mask = _disc((4, 4), (16, 16)) | _disc((12, 12), (16, 16))
    found = peak_displacements(_peak((10, 13), (16, 16))[None, None], mask[None, None])
    torch.testing.assert_close(found[0, 0], torch.tensor([-2.0, 1.0]))


def test_shifting_a_map_shifts_every_vector() -> None:
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 2, 20, 20, generator=random)
    maps[..., :6, :], maps[..., -6:, :] = 0, 0
    masks = torch.stack([_disc((10, 4 + n), (20, 20)) for n in range(8)]).view(4, 2, 20, 20)
    moved = peak_displacements(maps.roll(5, dims=2), masks) - peak_displacements(maps, masks)
    torch.testing.assert_close(moved, torch.tensor([5.0, 0.0]).expand(4, 2, 2))


def test_without_a_lesion_or_a_peak_it_is_undefined() -> None:
    masks = torch.stack([torch.zeros(6, 6, dtype=torch.bool), _disc((2, 2), (6, 6)), _disc((2, 2), (6, 6))])[:, None]
    maps = torch.stack([_peak((1, 1), (6, 6)), torch.full((6, 6), 3.0), _peak((2, 2), (6, 6))])[:, None]
    found = peak_displacements(maps, masks)
    assert found.isnan().all(-1)[:, 0].tolist() == [True, True, False]


def test_mean_and_spread_are_those_of_the_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal([-5.4, -0.2], 1.9, size=(60, 3, 2))
    vectors[:20, 1] = np.nan
    vectors[0] = np.nan
    known = vectors[np.isfinite(vectors).all(-1)]
    got = displacement_estimates(vectors, resamples=200)
    mean = known.mean(0)
    assert got["displacement_px/axis0"].value == pytest.approx(mean[0])
    assert got["displacement_px/axis1"].value == pytest.approx(mean[1])
    assert got["displacement_px"].value == pytest.approx(np.linalg.norm(mean))
    rms = math.sqrt(((known - mean) ** 2).sum(1).mean())
    assert got["displacement_px/spread"].value == pytest.approx(rms)
    assert {entry.n for entry in got.values()} == {59}
    for entry in got.values():
        assert entry.low < entry.value < entry.high


@pytest.mark.parametrize("axes", [2, 3])
def test_the_length_of_a_drift_may_be_0(axes: int) -> None:
    """A length is above 0 by chance: its interval holds 0 unless the vector is told from 0."""
    rng = np.random.default_rng(0)
    for drift, least in ((0.0, 0.88), (0.5, 0.88)):
        held = []
        for _ in range(150):
            vectors = rng.normal(0, 2, size=(100, 1, axes))
            vectors[..., 0] += drift
            found = displacement_estimates(vectors, resamples=200)["displacement_px"]
            assert found.low <= found.value <= found.high
            held.append(found.low <= drift <= found.high)
        assert np.mean(held) >= least
    assert displacement_estimates(vectors + 3, resamples=200)["displacement_px"].low > 2


def test_no_vector_at_all_is_undefined_with_its_reason() -> None:
    got = displacement_estimates(np.full((4, 1, 3), np.nan))
    assert set(got) == {
        "displacement_px",
        *(f"displacement_px/{name}" for name in ("axis0", "axis1", "axis2", "spread")),
    }
    for entry in got.values():
        assert math.isnan(entry.value)
        assert entry.reason
