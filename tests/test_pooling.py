"""Poolings by their limits, by published values, and by what all share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.pooling import (
    AttentionPooling,
    LiMILPooling,
    LogSumExpPooling,
    MaxPooling,
    MeanPooling,
    NoisyOrPooling,
    Pooling,
    TopKPooling,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
SHIFTING = [MeanPooling(), MaxPooling(), LogSumExpPooling(), TopKPooling(0.3), AttentionPooling()]
ALL = [*SHIFTING, NoisyOrPooling(cells=20), LiMILPooling()]


def _name(pooling: object) -> str:
    return type(pooling).__name__


def _maps(shape: tuple[int, ...]) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_mean_and_max_of_known_maps() -> None:
    assert MeanPooling()(MAPS).tolist() == [[3.0, -1.0]]
    assert MaxPooling()(MAPS).tolist() == [[6.0, -1.0]]


def test_log_sum_exp_of_known_maps() -> None:
    expected = math.log(sum(math.exp(2 * v) for v in (1, 2, 3, 6)) / 4) / 2
    assert float(LogSumExpPooling(2.0)(MAPS)[0, 0]) == pytest.approx(expected, rel=1e-6)


def test_top_k_of_known_maps() -> None:
    assert TopKPooling(0.5)(MAPS).tolist() == [[4.5, -1.0]]
    assert TopKPooling(1e-9)(MAPS).tolist() == MaxPooling()(MAPS).tolist()
    assert TopKPooling(1.0)(MAPS).tolist() == MeanPooling()(MAPS).tolist()


def test_attention_of_known_maps() -> None:
    weights = [math.exp(v / 2) for v in (1, 2, 3, 6)]
    expected = sum(w * v for w, v in zip(weights, (1, 2, 3, 6), strict=True)) / sum(weights)
    pooled = AttentionPooling(0.5)(MAPS)
    assert float(pooled[0, 0]) == pytest.approx(expected, rel=1e-6)
    assert float(pooled[0, 1]) == pytest.approx(-1)


@pytest.mark.parametrize("make", [LogSumExpPooling, AttentionPooling], ids=lambda make: make.__name__)
@pytest.mark.parametrize(("sharpness", "limit"), [(1e-4, MeanPooling()), (200.0, MaxPooling())])
def test_a_sharpness_leads_from_mean_to_max(make: Callable[[float], Pooling], sharpness: float, limit: Pooling) -> None:
    torch.testing.assert_close(make(sharpness)(MAPS), limit(MAPS), atol=0.01, rtol=0)


def _certain(positive: int, cells: int) -> torch.Tensor:
    maps = torch.full((cells,), -50.0)
    maps[:positive] = 50
    return maps.view(1, 1, 20, cells // 20)


@pytest.mark.parametrize(("positive", "expected"), [(1, 0.02), (4, 0.078), (400, 0.9997)])
def test_lis_pooling_gives_the_published_values(positive: int, expected: float) -> None:
    assert float(LiMILPooling()(_certain(positive, 400)).sigmoid()) == pytest.approx(expected, abs=5e-4)
    exact = 1 - 0.98**positive
    assert float(LiMILPooling()(_certain(positive, 400)).sigmoid()) == pytest.approx(exact, rel=1e-4)


def test_lis_pooling_of_a_faint_map() -> None:
    faint = torch.full((1, 1, 20, 20), math.log(0.01 / 0.99))
    assert float(LiMILPooling()(faint).sigmoid()) == pytest.approx(1 - 0.9998**400, rel=1e-4)
    assert float(LiMILPooling()(faint).sigmoid()) == pytest.approx(0.077, abs=5e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 5, 2, 2)])
def test_products_over_as_many_cells_as_the_map_has(shape: tuple[int, ...]) -> None:
    maps = (_maps(shape) - 3).double()
    p = maps.sigmoid().flatten(2)
    noisy_or = 1 - (1 - p).prod(-1)
    damped = 1 - (1 - 0.02 * p).prod(-1)
    torch.testing.assert_close(NoisyOrPooling(cells=20)(maps), noisy_or.logit())
    torch.testing.assert_close(LiMILPooling(cells=20)(maps), damped.logit())


@pytest.mark.parametrize("pooling", [NoisyOrPooling(cells=25), LiMILPooling(cells=25)], ids=_name)
def test_a_finer_map_of_the_same_cells_pools_alike(pooling: Pooling) -> None:
    maps = _maps((1, 2, 5, 5))
    finer = maps.repeat_interleave(4, -1).repeat_interleave(3, -2)
    torch.testing.assert_close(pooling(finer), pooling(maps), atol=1e-5, rtol=1e-5)


def test_noisy_or_of_one_cell_is_that_cell() -> None:
    maps = torch.tensor([-40.0, -3.0, 0.0, 3.0, 40.0]).view(5, 1, 1, 1)
    torch.testing.assert_close(NoisyOrPooling(cells=1)(maps).flatten(), maps.flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", SHIFTING, ids=_name)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 2)])
def test_a_constant_passes_through(pooling: Pooling, shape: tuple[int, ...]) -> None:
    maps = _maps(shape)
    torch.testing.assert_close(pooling(maps + 2.5), pooling(maps) + 2.5)


@pytest.mark.parametrize("pooling", ALL, ids=_name)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 3, 5, 2)])
def test_where_a_pixel_lies_does_not_matter_and_precision_little(pooling: Pooling, shape: tuple[int, ...]) -> None:
    maps = _maps(shape)
    pooled = pooling(maps)
    assert pooled.shape == shape[:2]
    order = torch.randperm(math.prod(shape[2:]), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pooling(maps.flatten(2)[..., order].view(shape)), pooled)
    rounded = pooling(maps.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, pooling(maps.bfloat16().float()))
    torch.testing.assert_close(rounded, pooled, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("pooling", ALL, ids=_name)
@pytest.mark.parametrize("values", [(50.0, 50.0), (-50.0, -50.0), (-50.0, 50.0), (-1e4, -1e4), (1e4, -1e4)])
def test_large_logits_give_finite_logits_and_gradients(pooling: Pooling, values: tuple[float, float]) -> None:
    maps = torch.tensor(values).repeat(200).view(1, 1, 20, 20).requires_grad_()
    pooled = pooling(maps)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    if values == (-50.0, -50.0):  # a surely negative image is not lost: its logit still rises with the map, one for one
        assert float(maps.grad.sum()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("pooling", ALL, ids=_name)
def test_gradients_are_those_of_finite_differences(pooling: Pooling) -> None:
    maps = _maps((1, 2, 3, 2)).double().requires_grad_()
    assert torch.autograd.gradcheck(pooling, (maps,))


@pytest.mark.parametrize(
    ("make", "value", "argument"),
    [
        *((LogSumExpPooling, value, "sharpness") for value in (0.0, -1.0, math.nan)),
        (AttentionPooling, 0.0, "sharpness"),
        *((TopKPooling, value, "share") for value in (0.0, 1.2, math.nan)),
        (NoisyOrPooling, 0.0, "cells"),
        (LiMILPooling, -1.0, "cells"),
        (lambda value: LiMILPooling(damping=value), 1.0, "damping"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[float], Pooling], value: float, argument: str) -> None:
    with pytest.raises(InputError, match=f"Pooling: {argument} is {value}"):
        make(value)
