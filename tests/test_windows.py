"""Maps of large images, a window at a time."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.inferers.utils import sliding_window_inference

from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import HRCAM, PYLON
from hrcam_lightning.errors import InputError
from hrcam_lightning.model import LocalizationModel
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling, Pooling
from hrcam_lightning.task import LocalizationTask
from hrcam_lightning.windows import Windows


def network_of(dims: int, pooling: Pooling, seed: int = 0, classes: int = 2) -> LocalizationModel:
    """Three levels of stride 1, 2 and 4 with running statistics that are not the initial ones."""
    torch.manual_seed(seed)
    backbone = ConvPyramid(1, dims, width=4, depth=3)
    network = LocalizationModel(backbone, HRCAM(backbone.levels, classes), pooling)
    for _ in range(3):
        network.train()(torch.randn(2, 1, *(16,) * dims))
    for parameter in network.decoder.parameters():
        torch.nn.init.normal_(parameter)
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("pooling", [MeanPooling(), MaxPooling(), LogSumExpPooling()], ids=["mean", "max", "lse"])
@pytest.mark.parametrize("size", [(150, 97), (96, 30), (65, 70)], ids=["odd", "short", "little-more"])
def test_the_map_is_the_whole_images(pooling: Pooling, size: tuple[int, ...]) -> None:
    """Up to the image's own border; windows weigh exp(-8) at theirs, and this network sees 21 of 64 pixels far."""
    network = network_of(2, pooling)
    images = torch.randn(2, 1, *size)
    whole, seen = network(images), Windows(network, (64, 64), overlap=0.5)(images)
    assert (seen.maps - whole.maps).abs().max() < 0.01 * whole.maps.std()
    torch.testing.assert_close(seen.logits, whole.logits, atol=0.02, rtol=0)
    torch.testing.assert_close(seen.logits, network.pooling(seen.maps) + seen.bias)
    torch.testing.assert_close(seen.bias, whole.bias)
    for blended, level in zip(seen.level_maps, whole.level_maps, strict=True):
        assert blended.shape == level.shape
        assert (blended - level).abs().max() < 0.05 * level.std()


def test_monais_inferer_looks_from_other_places() -> None:
    """It agrees where its windows lie on the strides; elsewhere its map is off by a good part of what there is."""
    network = network_of(2, MaxPooling())
    for length, agrees in ((128, True), (130, False)):
        images = torch.randn(1, 1, length, length)
        theirs = sliding_window_inference(images, (64, 64), 1, lambda some: network(some).maps, 0.5, mode="gaussian")
        assert isinstance(theirs, torch.Tensor)
        whole, ours = network(images).maps, Windows(network, (64, 64), 0.5)(images).maps
        inner = (..., slice(16, -16), slice(16, -16))  # at the image's border its smallest weights are made equal
        gap = (theirs - whole)[inner].abs().max() / whole.std()
        assert (ours - whole)[inner].abs().max() / whole.std() < 0.05
        assert gap < 0.05 if agrees else gap > 0.15


@pytest.mark.parametrize("dims", [2, 3])
def test_the_network_never_sees_more_than_a_window(dims: int) -> None:
    network = network_of(dims, MaxPooling())
    sizes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    images = torch.randn(2, 1, *(40, 21, 20)[:dims])
    windows = Windows(network, (16,) * dims, 0.5)
    seen = windows(images)
    assert max(sizes) == (1, 1, *(16,) * dims)
    per_axis = [4, 2, 2][:dims]  # steps of 8: at 0, 8, 16, 24 of 40; at 0, 8 of 21 and at 0, 4 of 20
    assert len(sizes) == 2 * torch.tensor(per_axis).prod()
    assert seen.maps.shape == (2, 2, *images.shape[2:])
    # Each image alone gives the same.
    alone = torch.cat([windows(image[None]).maps for image in images])
    torch.testing.assert_close(alone, seen.maps)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_weights_sum_to_one(overlap: float) -> None:
    """Of a network whose map does not hang on the image, nothing is seen of the windows."""
    network = network_of(3, MeanPooling())
    for parameter in network.backbone.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(network.decoder.bias, 0.7)
    seen = Windows(network, (16, 16, 8), overlap)(torch.randn(1, 1, 33, 18, 25))
    assert seen.maps.shape == (1, 2, 33, 18, 25)
    torch.testing.assert_close(seen.maps, torch.zeros_like(seen.maps))
    torch.testing.assert_close(seen.evidence, torch.full_like(seen.maps, 0.7))
    network.pooling = MaxPooling()
    torch.testing.assert_close(
        Windows(network, (16, 16, 8), overlap)(torch.randn(1, 1, 33, 18, 25)).maps, seen.evidence
    )


def test_an_image_that_fits_is_seen_whole() -> None:
    network = network_of(2, LogSumExpPooling())
    images = torch.randn(1, 1, 30, 17)
    seen, whole = Windows(network, (32, 32), 0.5)(images), network(images)
    assert torch.equal(seen.maps, whole.maps)
    assert torch.equal(seen.logits, whole.logits)


def test_half_precision_is_blended_in_full() -> None:
    network = network_of(2, MaxPooling()).to(torch.bfloat16)
    seen = Windows(network, (32, 32), 0.5)(torch.randn(1, 1, 64, 40).to(torch.bfloat16))
    assert seen.maps.dtype == seen.logits.dtype == torch.float32


def test_a_decoder_of_one_level() -> None:
    torch.manual_seed(0)
    backbone = ConvPyramid(1, 2, width=4, depth=4)
    network = LocalizationModel(backbone, PYLON(backbone.levels, 1), MaxPooling()).eval()
    with torch.no_grad():
        images = torch.randn(1, 1, 100, 64)
        seen = Windows(network, (64, 64), 0.5)(images)
        assert [level.shape for level in seen.level_maps] == [level.shape for level in network(images).level_maps]


@pytest.mark.parametrize(
    ("size", "words"),
    [((64,), "2 axes"), ((64, 30), "multiple of the network's deepest stride, 4 x 4"), ((64, 4), "twice that")],
)
def test_windows_that_do_not_suit(size: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Windows(network_of(2, MaxPooling()), size)
    with pytest.raises(InputError, match="0 to below 1"):
        Windows(network_of(2, MaxPooling()), (64, 64), 1.0)
    with pytest.raises(
        InputError, match=r"window_overlap is 0\.9, but windows of \[64, 24\] .* overlap by 0\.833 at most"
    ):
        Windows(network_of(2, MaxPooling()), (64, 24), 0.9)
    starts = [span.start for span in Windows(network_of(2, MaxPooling()), (64, 24), 0.83)._spans(1, 72)]
    assert starts == list(range(0, 49, 4))


def test_a_task_looks_through_windows_but_does_not_train_through_them() -> None:
    torch.manual_seed(0)
    small = partial(ConvPyramid, width=4, depth=3)
    task = LocalizationTask("binary", ["lesion"], 1, 2, small, window=[32, 32], view_averaging=True).eval()
    images = torch.randn(1, 1, 64, 48)
    with torch.no_grad():
        windows = Windows(task.network, (32, 32), 0.5)
        flipped = [images, images.flip(2), images.flip(3), images.flip(2, 3)]
        maps = [windows(image).maps for image in flipped]
        maps = [maps[0], maps[1].flip(2), maps[2].flip(3), maps[3].flip(2, 3)]
        torch.testing.assert_close(task(images).maps, torch.stack(maps).mean(0))
        task.view_averaging = False
        torch.testing.assert_close(task(images).maps, windows(images).maps)
        task.train()
        task.network.eval()  # batch norm as before; the task alone trains
        torch.testing.assert_close(task(images).maps, task.network(images).maps)
    with pytest.raises(InputError, match=r"model\.window is"):
        LocalizationTask("binary", ["lesion"], 1, 2, small, window=[30, 32])
