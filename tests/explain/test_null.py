"""Null explainers: the same for a case wherever it is drawn, and as uninformed as they say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hrcam_lightning.explain import explain
from hrcam_lightning.explain.null import (
    center_maps,
    edge_maps,
    foreground_maps,
    intensity_maps,
    random_maps,
    with_random_weights,
)
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


@pytest.mark.parametrize("size", [(6, 7), (5, 6, 7)])
def test_a_ramp_has_an_edge_of_constant_slope(size: tuple[int, ...]) -> None:
    slopes = [3.0, -4.0, 12.0][: len(size)]
    grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    ramp = torch.stack([slope * axis for slope, axis in zip(slopes, grid, strict=True)]).sum(0)
    images = torch.stack([ramp, 2 * ramp + 5])[None]
    steepness = 5.0 if len(size) == 2 else 13.0
    expected = torch.full((1, 1, *size), 1.5 * steepness)  # the mean over channels of 1 and 2 times as much
    torch.testing.assert_close(edge_maps(images), expected)
    torch.testing.assert_close(explain(_network(len(size)), images.float(), "edge").amax(1, keepdim=True), expected)


def test_an_edge_is_where_values_change() -> None:
    images = torch.zeros(1, 1, 5, 8)
    images[..., 4:] = 2
    assert edge_maps(images)[0, 0].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]] * 5
    assert edge_maps(torch.ones(1, 1, 1, 4)).tolist() == [[[[0, 0, 0, 0]]]]  # an axis of one pixel has no slope


def test_intensity_is_the_mean_of_the_channels() -> None:
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(intensity_maps(images)[:, 0], (images[:, 0] + images[:, 1] + images[:, 2]) / 3)


@pytest.mark.parametrize("size", [(8, 9), (4, 5, 6)])
@pytest.mark.parametrize("values", [(0.0, 1.0), (-3.0, -2.5), (100.0, 1e6)])
def test_the_foreground_of_two_values_is_the_higher_one(size: tuple[int, ...], values: tuple[float, float]) -> None:
    bright = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0)) < 0.2
    low, high = values
    maps = foreground_maps(torch.where(bright, high, low).expand(2, 2, *size))
    assert torch.equal(maps, bright.float())


def test_the_foreground_has_the_threshold_of_the_largest_variance_between() -> None:
    """Every threshold tried, on values that have a bin each: whole numbers from 0 to 256 in 256 bins."""
    generator = np.random.default_rng(0)
    for centre in (60, 128, 200):
        background = generator.normal(40, 12, 300)
        values = np.concatenate([background, generator.normal(centre + 30, 15, 90)]).round().clip(1, 254)
        values[:2] = 0, 256
        between = {}
        for threshold in np.unique(values)[1:]:
            low, high = values[values < threshold], values[values >= threshold]
            between[threshold] = len(low) * len(high) * (low.mean() - high.mean()) ** 2
        best = max((variance, threshold) for threshold, variance in between.items())[1]
        maps = foreground_maps(torch.from_numpy(values).view(1, 1, 13, 30))
        assert np.array_equal(maps.numpy().ravel() > 0, values >= best)


def test_a_flat_image_has_no_foreground_and_every_image_its_own_threshold() -> None:
    images = torch.zeros(3, 1, 4, 4)
    images[1] += 7
    images[2, 0, 0] = 5
    images[2, 0, 1:, 0] = 1
    maps = foreground_maps(images)
    assert maps[:2].max() == 0
    assert maps[2, 0].tolist() == [[1] * 4] + [[0] * 4] * 3


def _network(dims: int) -> nn.Module:
    """With every kind of layer that is begun anew: convolution, batch norm without weights, and a bare parameter."""
    torch.manual_seed(0)
    conv, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dims]
    model = nn.Sequential(conv(2, 4, 3), norm(4, affine=False), nn.ReLU(), conv(4, 4, 1), _Bare(), nn.Flatten())
    size = {2: (6, 7), 3: (5, 6, 7)}[dims]
    model.append(nn.Linear(model(torch.zeros(2, 2, *size)).shape[1], 2))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    return model.eval()


class _Bare(nn.Module):
    """A layer that does not say how it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale.view(-1, *(1,) * (values.ndim - 2))


@pytest.mark.parametrize("of", ["gradcam", "eigencam", "fullgrad"])
def test_random_weights_see_something_else_and_the_same_for_the_same_seed(of: str) -> None:
    model = _network(2)
    images = torch.randn(2, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    trained = explain(model, images, of)
    maps = [explain(model, images, "random_weights", of=of, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    assert not torch.allclose(maps[0], trained)
    assert all(torch.equal(after, before[name]) for name, after in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(explain(model, images, of), trained)


def test_random_weights_leave_nothing_of_what_was_learnt() -> None:
    model = _network(2)
    fresh = with_random_weights(model, seed=3)
    for (name, old), new in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert not torch.equal(old, new), name
        assert old.data_ptr() != new.data_ptr()
    norm = fresh.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0] * 4
    bare = fresh.get_submodule("4")
    assert isinstance(bare, _Bare)
    assert sorted(bare.scale.tolist()) == [1, 2, 3, 4]
