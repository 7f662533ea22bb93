"""The network: HR-CAM against its naive form, the invariants, batches, precision, bad input."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from hrcam_lightning import InputError, LocalizationModel
from hrcam_lightning.backbones import Backbone, ConvPyramid
from hrcam_lightning.decoders import CAM, HRCAM
from hrcam_lightning.geometry import Level, Resampling, resample
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling, Pooling

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH: list[Resampling] = ["receptive_field", "half_pixel"]
SIZES = [(16, 16), (19, 21), (9, 12, 11)]
POOLINGS: list[Callable[[], Pooling]] = [MeanPooling, MaxPooling, LogSumExpPooling]


def _model(
    size: tuple[int, ...], pooling: Pooling, resampling: Resampling = "receptive_field", classes: int = 3
) -> LocalizationModel:
    torch.manual_seed(0)
    backbone = ConvPyramid(2, len(size), width=4, depth=4)
    model = LocalizationModel(backbone, HRCAM(backbone.levels, classes), pooling, resampling)
    nn.init.normal_(model.decoder.bias)
    for module in model.modules():  # batch norm as after training: neither at its initial values
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.eval()


def _images(size: tuple[int, ...], batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_hrcam_is_the_sum_of_upsampled_channels(size: tuple[int, ...], resampling: Resampling) -> None:
    """The naive form: bring every channel of every level to the image, then mix (HR-CAM, methods as published)."""
    model = _model(size, MeanPooling(), resampling)
    decoder = model.decoder
    assert isinstance(decoder, HRCAM)
    images = _images(size)
    naive = torch.zeros(2, 3, *size)
    for feature, level, weight in zip(model.backbone(images), decoder.levels, decoder.weights, strict=True):
        upsampled = resample(feature, level, size, resampling)
        naive += torch.einsum("kc,bc...->bk...", weight, upsampled)
    torch.testing.assert_close(model(images).maps, naive, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_mean_pooling_is_additive(size: tuple[int, ...], resampling: Resampling) -> None:
    output = _model(size, MeanPooling(), resampling)(_images(size))
    assert output.bias.abs().min() > 0
    torch.testing.assert_close(output.maps.flatten(2).mean(-1) + output.bias, output.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_the_peak_of_a_max_pooled_map_is_the_logit(size: tuple[int, ...]) -> None:
    output = _model(size, MaxPooling())(_images(size))
    assert torch.equal(output.maps.flatten(2).amax(-1), output.logits)
    assert torch.equal(output.bias, torch.zeros(3))


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_logits_alone_are_those_of_the_full_output(pooling: Callable[[], Pooling]) -> None:
    model = _model((17, 18), pooling())
    images = _images((17, 18))
    torch.testing.assert_close(model.logits(images), model(images).logits)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_a_batch_is_its_cases_one_by_one(size: tuple[int, ...], pooling: Callable[[], Pooling]) -> None:
    model = _model(size, pooling())
    images = _images(size, batch=3)
    together = model(images)
    for index in (2, 0, 1):
        alone = model(images[index : index + 1])
        torch.testing.assert_close(alone.maps[0], together.maps[index], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_a_level_alone_says_what_a_network_says_that_reads_no_other(
    size: tuple[int, ...], pooling: Callable[[], Pooling]
) -> None:
    model, images = _model(size, pooling()), _images(size)
    levels = model.level_logits(model(images))
    assert len(levels) == 4
    for tap, logits in enumerate(levels):
        decoder = HRCAM(model.backbone.levels, 3, taps=[tap])
        assert isinstance(model.decoder, HRCAM)
        decoder.weights[0], decoder.bias = model.decoder.weights[tap], model.decoder.bias
        alone = LocalizationModel(model.backbone, decoder, pooling()).eval()
        torch.testing.assert_close(logits, alone(images).logits)


def test_cam_reads_the_deepest_level_only() -> None:
    backbone = ConvPyramid(1, 2, width=4, depth=3)
    decoder = CAM(backbone.levels, 2)
    assert decoder.levels == backbone.levels[-1:]
    features = backbone(torch.randn(1, 1, 8, 8))
    (scores,) = decoder(features, (8, 8))
    torch.testing.assert_close(scores, torch.einsum("kc,bchw->bkhw", decoder.weights[0], features[-1]))


@pytest.mark.parametrize("size", [(16, 16), (12, 12, 12)])
@torch.no_grad()
def test_half_precision_features_give_float32_maps_near_the_exact_ones(size: tuple[int, ...]) -> None:
    model = _model(size, MaxPooling())
    exact = model(_images(size))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(_images(size))
    assert rough.maps.dtype == rough.logits.dtype == torch.float32
    spread = exact.maps.std()
    assert not torch.equal(rough.maps, exact.maps)
    assert (rough.maps - exact.maps).abs().max() < 0.1 * spread
    # bf16 has 8 bits: a map computed in it would have far fewer distinct values.
    assert rough.maps.unique().numel() > 0.9 * rough.maps.numel()


class _Offset(Backbone):
    """One level whose cells lie on odd pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 1
        self.levels = (Level(1, (2.0, 2.0), (1.0, 1.0)),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images[:, :, 1::2, 1::2]]


@torch.no_grad()
def test_evidence_stays_where_the_backbone_says_that_it_lies() -> None:
    backbone = _Offset()
    decoder = HRCAM(backbone.levels, 1)
    nn.init.ones_(decoder.weights[0])
    images = torch.zeros(1, 1, 12, 12)
    images[0, 0, 7, 3] = 1
    maps = LocalizationModel(backbone, decoder, MaxPooling())(images).maps
    assert divmod(int(maps[0, 0].argmax()), 12) == (7, 3)


@torch.no_grad()
@pytest.mark.parametrize("dims", [2, 3])
def test_levels_lie_where_the_pyramid_says(dims: int) -> None:
    """Shifting an image by the stride shifts a level by one cell, and cell 0 is centred on pixel 0."""
    size, depth = (32,) * dims, 3
    backbone = ConvPyramid(1, dims, width=2, depth=depth, blocks=0).eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.ones_(module.weight)
    for number in range(depth):
        image = torch.ones(1, 1, *size)
        with torch.enable_grad():
            image.requires_grad_()
            feature = backbone(image)[number]
            middle = tuple(n // 2 for n in feature.shape[2:])
            (gradient,) = torch.autograd.grad(feature[(0, 0, *middle)], image)
        grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij"))
        centroid = (grid * gradient[0, 0]).flatten(1).sum(1) / gradient.sum()
        level = backbone.levels[number]
        expected = torch.tensor([o + s * m for o, s, m in zip(level.offset, level.stride, middle, strict=True)])
        torch.testing.assert_close(centroid, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.zeros(1, 2, 7, 16), r"images of 7 x 16 are smaller than the network's deepest stride, 8 x 8"),
        (torch.zeros(1, 3, 16, 16), "takes 2 channels, but the images have 3"),
        (torch.zeros(1, 2, 16, 16, 16), "takes 2D images"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_sentence(images: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        _model((16, 16), MeanPooling())(images)


def test_a_single_small_image_cannot_be_trained_on() -> None:
    model = _model((8, 8), MeanPooling()).train()
    with pytest.raises(InputError, match="one image of 8 x 8 leaves batch norm one value a channel"):
        model(_images((8, 8), batch=1))
    model(_images((8, 8), batch=2))


@pytest.mark.parametrize("taps", [[4], [0, 0], [], [1, -3]])
def test_taps_that_are_no_levels_are_refused(taps: list[int]) -> None:
    with pytest.raises(InputError, match="taps is"):
        HRCAM(ConvPyramid(1, 2, width=2, depth=4).levels, 1, taps=taps if taps != [1, -3] else [1, -3])


@pytest.mark.parametrize(
    "arguments", [{"dims": 4}, {"dims": 2, "width": 0}, {"dims": 2, "depth": 0}, {"dims": 2, "blocks": -1}]
)
def test_a_pyramid_out_of_range_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="ConvPyramid: "):
        ConvPyramid(1, **arguments)


@torch.no_grad()
def test_features_are_let_go_of_before_the_maps_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most of the memory that a map needs beyond the logits."""
    model = _model((16, 16), MeanPooling())
    seen: list[weakref.ref[Tensor]] = []
    features, fuse = model.features, model.fuse

    def spy(images: Tensor) -> list[Tensor]:
        found = features(images)
        seen.extend(weakref.ref(feature) for feature in found)
        return found

    def late(level_maps: list[Tensor], size: torch.Size) -> Tensor:
        assert [ref() for ref in seen] == [None] * len(model.backbone.levels)
        return fuse(level_maps, size)

    monkeypatch.setattr(model, "features", spy)
    monkeypatch.setattr(model, "fuse", late)
    assert model(_images((16, 16))).maps.shape == (2, 3, 16, 16)
