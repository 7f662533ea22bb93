"""A cell and its neighbours, against hand-made fields and brute force; and the decoder that reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hrcam_lightning import InputError, LocalizationModel, export
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.geometry import Level, Resampling, resample, resampled_mean, sample
from hrcam_lightning.neighbours import around, shifted
from hrcam_lightning.pooling import MeanPooling

SIZES = [(5, 7), (4, 3, 6)]
BOTH: list[Resampling] = ["receptive_field", "half_pixel"]


def _terms(maps: Tensor) -> list[Tensor]:
    return around(lambda steps: shifted(maps, steps), maps.ndim - 2)


def test_slopes_and_curvature_of_a_parabola() -> None:
    x = torch.arange(6.0)
    own, down, along, bulge = _terms((x**2).expand(1, 1, 4, 6))
    assert torch.equal(own[0, 0, 0], x**2)
    assert not down.any()
    # Between the ends the central difference of x² is 2x; at them half a step, for the border repeats.
    assert along[0, 0, 2].tolist() == [0.5, 2, 4, 6, 8, 4.5]
    # The mean of four neighbours, two of which are equal to the cell: (2 x² + 2) / 4 − x²/2 = 1/2.
    assert bulge[0, 0, 2].tolist() == [0.25, 0.5, 0.5, 0.5, 0.5, -2.25]


@pytest.mark.parametrize("size", SIZES)
def test_shifted_is_a_look_up_with_repeated_borders(size: tuple[int, ...]) -> None:
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    for steps in ([1, 0, 0], [0, -2, 0], [2, 1, -1]):
        own = steps[: len(size)]
        expected = np.pad(maps.numpy(), [(0, 0), (0, 0), *[(3, 3)] * len(size)], mode="edge")
        cut = tuple(slice(3 + step, 3 + step + n) for step, n in zip(own, size, strict=True))
        np.testing.assert_array_equal(shifted(maps, own).numpy(), expected[(slice(None), slice(None), *cut)])


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize(("cells", "size"), [((3, 4), (11, 13)), ((2, 3, 2), (7, 9, 5)), ((1, 5), (6, 5))])
def test_steps_read_what_shifting_first_would(
    cells: tuple[int, ...], size: tuple[int, ...], resampling: Resampling
) -> None:
    level = Level(3, (4.0, 3.5, 2.0)[: len(size)], (1.5, -0.5, 0.0)[: len(size)])
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, *cells, generator=generator)
    pixels = torch.stack([torch.randint(n, (2, 20), generator=generator) for n in size], -1)
    several = [steps[: len(size)] for steps in ([1, 0, 0], [0, -1, 0], [-1, 1, 2])]
    found = sample(maps, level, pixels, size, resampling, several)
    for number, own in enumerate(several):
        moved = shifted(maps, own)
        expected = sample(moved, level, pixels, size, resampling)
        torch.testing.assert_close(found[:, :, number], expected)
        for layout in (maps, maps.to(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)):
            mean = resampled_mean(layout, level, size, resampling, own)
            torch.testing.assert_close(mean, resample(moved, level, size, resampling).flatten(2).mean(-1))


def _model(size: tuple[int, ...]) -> LocalizationModel:
    torch.manual_seed(0)
    backbone = ConvPyramid(1, len(size), width=2, depth=3)
    decoder = HRCAM(backbone.levels, 2, taps=[0, 1, 2], neighbours=[1, -1])
    with torch.no_grad():
        for weight in decoder.beside.values():
            weight.normal_()
    return LocalizationModel(backbone, decoder, MeanPooling()).eval()


@pytest.mark.parametrize("size", [(19, 16), (12, 9, 11)])
@torch.no_grad()
def test_a_level_map_is_the_sum_over_terms_and_channels(size: tuple[int, ...]) -> None:
    model = _model(size)
    decoder = model.decoder
    assert isinstance(decoder, HRCAM)
    images = torch.randn(3, 1, *size)
    features, output = model.features(images), model(images)
    for tap, (found, own) in enumerate(zip(output.level_maps, decoder.weights, strict=True)):
        weights = [own, *decoder.beside[str(tap)]] if tap else [own]
        expected = sum(
            torch.einsum("kc,bc...->bk...", weight, term)
            for weight, term in zip(weights, _terms(features[tap]), strict=False)
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    mean = output.maps.flatten(2).mean(-1) + output.bias
    torch.testing.assert_close(output.logits, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.logits(images), output.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(images[1:2]).maps, output.maps[1:2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_neighbours_begin_at_nothing_and_survive_export() -> None:
    size = (16, 16)
    model, images = _model(size), torch.randn(2, 1, *size)
    logits, maps = torch.export.export(export(model, size).module(), (images,)).module()(images)
    torch.testing.assert_close(maps, model(images).evidence, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, model.logits(images), atol=1e-4, rtol=1e-4)
    torch.manual_seed(0)
    fresh = HRCAM(model.backbone.levels, 2, neighbours=[0])
    torch.manual_seed(0)
    plain = HRCAM(model.backbone.levels, 2)
    features = model.features(images)
    for one, other in zip(fresh(features, size), plain(features, size), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("neighbours", [[0], [1, 1], [1, -2], [4]])
def test_neighbours_must_be_of_levels_that_are_read(neighbours: list[int]) -> None:
    levels = ConvPyramid(1, 2, width=2, depth=3).levels
    with pytest.raises(InputError, match=r"name levels that are read \(\[1, 2\]\), each once"):
        HRCAM(levels, 1, taps=[1, 2], neighbours=neighbours)
