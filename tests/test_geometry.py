"""Resampling against a brute-force reference, torch, and its own adjoint."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hrcam_lightning.geometry import Level, Resampling, axis_weights, resample, resample_sum, resampled_mean

BOTH: list[Resampling] = ["receptive_field", "half_pixel"]


def _interpolate(cells: Tensor, position: list[float]) -> float:
    """Linear interpolation of an N-D array at a fractional index, by its 2^N corners."""
    clipped = [min(max(p, 0.0), n - 1) for p, n in zip(position, cells.shape, strict=True)]
    total = 0.0
    for corner in itertools.product((0, 1), repeat=cells.ndim):
        weight, index = 1.0, []
        for p, side, n in zip(clipped, corner, cells.shape, strict=True):
            low = min(math.floor(p), n - 1)
            weight *= p - low if side else 1 - (p - low)
            index.append(min(low + side, n - 1))
        total += weight * float(cells[tuple(index)])
    return total


@pytest.mark.parametrize("grad", [False, True], ids=["interpolated", "matrices"])
@pytest.mark.parametrize(
    ("stride", "offset"),
    [
        ((4.0, 3.5, 2.0), (1.5, -0.5, 0.0)),
        ((4.0, 3.0, 2.0), (0.0, 0.0, 0.0)),
        ((2.0, 1.0, 4.0), (5.0, 0.0, -3.0)),  # begins after the first pixel; and before it
        ((1.0, 16.0, 3.0), (-2.0, 7.0, 9.0)),
    ],
)
@pytest.mark.parametrize(("cells", "size"), [((3, 4), (11, 13)), ((7, 1), (4, 6)), ((2, 3, 2), (7, 9, 5))])
def test_receptive_field_resampling_interpolates_between_the_cells_where_they_lie(
    cells: tuple[int, ...], size: tuple[int, ...], stride: tuple[float, ...], offset: tuple[float, ...], grad: bool
) -> None:
    level = Level(1, stride=stride[: len(size)], offset=offset[: len(size)])
    x = torch.randn(1, 1, *cells, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)
    got = resample(x, level, size, "receptive_field")[0, 0].detach()
    for pixel in np.ndindex(*size):
        position = [(p - o) / s for p, o, s in zip(pixel, level.offset, level.stride, strict=True)]
        assert float(got[pixel]) == pytest.approx(_interpolate(x[0, 0].detach(), position), abs=1e-5)


@pytest.mark.parametrize("grad", [False, True], ids=["interpolated", "matrices"])
@pytest.mark.parametrize(
    ("cells", "size", "mode"), [((5, 3), (17, 12), "bilinear"), ((2, 5, 3), (9, 10, 7), "trilinear")]
)
def test_half_pixel_resampling_is_torchs(cells: tuple[int, ...], size: tuple[int, ...], mode: str, grad: bool) -> None:
    level = Level(1, stride=(4.0,) * len(size), offset=(0.0,) * len(size))
    x = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)
    expected = F.interpolate(x, size=size, mode=mode, align_corners=False)
    torch.testing.assert_close(resample(x, level, size, "half_pixel"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", BOTH)
def test_training_takes_matrices_and_not_torchs_interpolation(how: Resampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of torch's interpolation is summed in any order on a GPU."""
    asked = []
    interpolate = F.interpolate

    def spy(*args: Any, **rest: Any) -> Tensor:
        asked.append(args)
        return interpolate(*args, **rest)

    monkeypatch.setattr(F, "interpolate", spy)
    level, x = Level(1, (2.0, 2.0), (0.0, 0.0)), torch.randn(1, 1, 3, 3, requires_grad=True)
    trained = resample(x, level, (6, 6), how)
    assert not asked
    with torch.no_grad():
        torch.testing.assert_close(resample(x, level, (6, 6), how), trained)
    assert len(asked) == 1


def test_the_two_conventions_are_half_a_stride_apart() -> None:
    """A cell of stride 32 and offset 0 looks at pixel 32 i; half-pixel resampling puts its peak 15.5 pixels further."""
    level = Level(1, stride=(32.0,), offset=(0.0,))
    x = torch.zeros(1, 1, 8)
    x[0, 0, 3] = 1
    pixels = torch.arange(256.0)
    centre = {how: float((resample(x, level, (256,), how)[0, 0] * pixels).sum() / 32) for how in BOTH}
    assert centre["receptive_field"] == pytest.approx(96)
    assert centre["half_pixel"] == pytest.approx(96 + 15.5)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("size", [(13, 10), (6, 9, 5)])
def test_the_mean_through_the_adjoint_is_the_mean_of_the_resampled_map(
    how: Resampling, size: tuple[int, ...], last: bool
) -> None:
    level = Level(1, stride=(2.0, 2.5, 2.0)[: len(size)], offset=(0.5, 0.0, 1.0)[: len(size)])
    x = torch.randn(2, 3, *(math.ceil(n / 2) for n in size), generator=torch.Generator().manual_seed(1))
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    expected = resample(x, level, size, how).flatten(2).mean(-1)
    torch.testing.assert_close(resampled_mean(x, level, size, how), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("cells", [1, 2, 7])
def test_weights_sum_to_one_so_that_a_flat_map_stays_flat(how: Resampling, cells: int) -> None:
    np.testing.assert_allclose(axis_weights(cells, 15, 2.0, 0.0, how).sum(1), 1, rtol=1e-6)


def test_weights_first_made_under_inference_mode_serve_training() -> None:
    level = Level(1, stride=(2.0, 2.0), offset=(0.25, 0.25))
    with torch.inference_mode():
        resample(torch.zeros(1, 1, 3, 3), level, (6, 6), "receptive_field")
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    resample(x, level, (6, 6), "receptive_field").sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(x.grad.sum()) == pytest.approx(36)


def test_resampling_by_one_is_the_identity() -> None:
    x = torch.randn(1, 2, 5, 6)
    for how in BOTH:
        assert torch.equal(resample(x, Level(2, (1.0, 1.0), (0.0, 0.0)), (5, 6), how), x)


def test_a_level_is_resampled_to_the_cells_of_another() -> None:
    """Cells of a ramp, read where the other level's cells lie."""
    level, onto = Level(1, (4.0,), (1.0,)), Level(1, (2.0,), (0.5,))
    ramp = torch.arange(6.0) * 4 + 1  # the value is the pixel
    got = resample(ramp[None, None], level, (10,), "receptive_field", onto)[0, 0]
    torch.testing.assert_close(got, (torch.arange(10.0) * 2 + 0.5).clamp(1, 21))
    same = F.interpolate(ramp[None, None], size=10, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(resample(ramp[None, None], level, (10,), "half_pixel", onto)[0, 0], same)


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("size", [(33, 20), (17, 12, 9)])
@pytest.mark.parametrize("offsets", [(0, 0, 0, 0), (0, 0.5, 1.5, 3.5), (1, 0, 3, 1)], ids=["nested", "even", "mixed"])
def test_levels_are_added_as_if_each_was_resampled(
    how: Resampling, size: tuple[int, ...], offsets: tuple[float, ...]
) -> None:
    dims = len(size)
    levels = [Level(1, (2.0**n,) * dims, (float(o),) * dims) for n, o in enumerate(offsets)]
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, *(math.ceil(n / lv.stride[0]) for n in size), generator=random) for lv in levels]
    expected = torch.stack([resample(x, level, size, how) for x, level in zip(maps, levels, strict=True)]).sum(0)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        got = resample_sum([maps[i] for i in order], [levels[i] for i in order], size, how)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
