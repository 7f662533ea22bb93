"""Poolings by their limits and by the property that all share."""

from __future__ import annotations

import math

import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling, Pooling

MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])


def test_mean_and_max_of_known_maps() -> None:
    assert MeanPooling()(MAPS).tolist() == [[3.0, -1.0]]
    assert MaxPooling()(MAPS).tolist() == [[6.0, -1.0]]


def test_log_sum_exp_of_known_maps() -> None:
    expected = math.log(sum(math.exp(2 * v) for v in (1, 2, 3, 6)) / 4) / 2
    assert float(LogSumExpPooling(2.0)(MAPS)[0, 0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("sharpness", "limit"), [(1e-3, MeanPooling()), (200.0, MaxPooling())])
def test_log_sum_exp_lies_between_mean_and_max(sharpness: float, limit: Pooling) -> None:
    torch.testing.assert_close(LogSumExpPooling(sharpness)(MAPS), limit(MAPS), atol=0.01, rtol=0)


@pytest.mark.parametrize("pooling", [MeanPooling(), MaxPooling(), LogSumExpPooling()])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 2)])
def test_a_constant_passes_through(pooling: Pooling, shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pooling(maps + 2.5), pooling(maps) + 2.5)


def test_log_sum_exp_survives_large_logits() -> None:
    assert float(LogSumExpPooling(10.0)(torch.full((1, 1, 4, 4), 1e4))) == pytest.approx(1e4)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.nan])
def test_a_sharpness_that_is_not_positive_is_refused(sharpness: float) -> None:
    with pytest.raises(InputError, match="sharpness is"):
        LogSumExpPooling(sharpness)
