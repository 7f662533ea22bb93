"""A batch is its samples one by one, in any order, of any number, whatever the size of a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import CAM, HRCAM
from hrcam_lightning.explain import NAMES
from hrcam_lightning.pooling import MeanPooling
from tests.explain.small import ANY_NETWORK, LOOKING, SIZES, images, layers_of, maps, near, network

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASS_OF = torch.tensor([2, 0, 3])
FUSING = [name for name in LOOKING if name not in ("cam", "fullgrad", "occlusion", "random_weights")]


def _own(decoder: type[CAM | HRCAM], dims: int) -> LocalizationModel:
    torch.manual_seed(1)
    backbone = ConvPyramid(2, dims, width=4, depth=3)
    model = LocalizationModel(backbone, decoder(backbone.levels, 4), MeanPooling(), "half_pixel").eval()
    for weight in model.decoder.parameters():
        torch.nn.init.normal_(weight)
    return model


def _one_by_one(
    model: nn.Module, pictures: Tensor, name: str, target: Tensor | None, layers: list[str] | None
) -> Tensor:
    singles = [
        maps(model, pictures[i : i + 1], name, target=None if target is None else target[i : i + 1], layers=layers)
        for i in range(len(pictures))
    ]
    return torch.cat(singles)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_a_batch_is_its_samples_one_by_one_each_with_a_class_of_its_own(name: str, dims: int) -> None:
    model, pictures = network(dims), images(3, dims)
    together = maps(model, pictures, name, target=CLASS_OF)
    assert together.shape == (3, 1, *SIZES[dims])
    assert together.dtype == torch.float32
    near(together, _one_by_one(model, pictures, name, CLASS_OF, None))
    every = maps(model, pictures, name)
    assert every.shape == (3, 4, *SIZES[dims])
    near(every[torch.arange(3), CLASS_OF][:, None], together)
    near(every, _one_by_one(model, pictures, name, None, None))
    if name in LOOKING and name != "random_weights":  # or the comparisons would say nothing
        assert together.flatten(1).std(1).min() > 0
        assert not torch.allclose(together[0], together[1])
        assert not torch.allclose(together[1], together[2])


@pytest.mark.parametrize("name", FUSING)
def test_a_batch_of_fused_layers_is_its_samples_one_by_one(name: str) -> None:
    model, pictures = network(), images(3)
    fused = maps(model, pictures, name, target=CLASS_OF, layers=layers_of(model))
    near(fused, _one_by_one(model, pictures, name, CLASS_OF, layers_of(model)))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_our_own_network_is_its_samples_one_by_one(name: str, dims: int) -> None:
    model = _own(CAM if name == "cam" else HRCAM, dims)
    pictures = images(3, dims)
    together = maps(model, pictures, name, target=CLASS_OF)
    near(together, _one_by_one(model, pictures, name, CLASS_OF, None))
    near(maps(model, pictures, name)[torch.arange(3), CLASS_OF][:, None], together)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_permuting_the_batch_permutes_the_maps(name: str, dims: int) -> None:
    model, pictures, order = network(dims), images(3, dims), torch.tensor([2, 0, 1])
    before = maps(model, pictures, name, target=CLASS_OF)
    near(maps(model, pictures[order], name, target=CLASS_OF[order]), before[order])


@pytest.mark.parametrize("batch", [2, 4, 6])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_a_batch_as_large_as_a_map_is_wide_or_a_layer_has_channels(name: str, batch: int) -> None:
    """Peers row 11: axes mixed up are found out only where their lengths agree. Maps are 8, 4 and 2 wide, and high."""
    model, pictures = network(), images(batch, size=(8, 8))
    target = torch.arange(batch) % 4
    layers = layers_of(model) if name in FUSING else None
    together = maps(model, pictures, name, target=target, layers=layers)
    near(together, _one_by_one(model, pictures, name, target, layers))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", LOOKING)
def test_maps_do_not_depend_on_the_size_of_a_pass(name: str, dims: int) -> None:
    model, pictures = network(dims), images(2, dims)
    whole = maps(model, pictures, name, target=CLASS_OF[:2], chunk=1000)
    for chunk in (1, 5):
        near(maps(model, pictures, name, target=CLASS_OF[:2], chunk=chunk), whole)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "polycam", "occlusion"])
def test_the_network_is_given_no_more_images_at_once_than_a_chunk(name: str) -> None:
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    maps(model, images(2), name, target=0, chunk=3)
    assert max(seen) == 3
    assert len(seen) > 4
