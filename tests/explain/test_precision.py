"""Half precision costs little, and a weak answer has a weak map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.explain.small import ANY_NETWORK, LOOKING, images, layers_of, maps, near, network

if TYPE_CHECKING:
    from torch import Tensor

BF16 = dict.fromkeys(ANY_NETWORK, 0.05) | {"ablationcam": 0.2, "occlusion": 0.2}
"""How far bf16, whose numbers have 8 bits, may take a map in the mean square; two methods subtract logits."""
HOMOGENEOUS = ("cam", "gradcam", "xgradcam", "respondcam", "hirescam", "elementwise", "layercam", "eigencam")
"""Of a network without biases such a map scales as the image does."""


def _distance(rough: Tensor, exact: Tensor) -> float:
    """Largest of a map, relative."""
    return float(((rough - exact).flatten(2).norm(dim=-1) / exact.flatten(2).norm(dim=-1).clamp(min=1e-9)).max())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_weights_in_bf16_give_float32_maps_near_the_exact_ones(name: str, dims: int) -> None:
    model, pictures = network(dims), images(2, dims)
    exact = maps(model, pictures, name)
    rough = maps(model.bfloat16(), pictures.bfloat16(), name)
    assert rough.dtype == torch.float32
    assert rough.shape == exact.shape
    if name not in ("random", "foreground", "random_weights"):  # which follow the last bit of the image or of the seed
        assert _distance(rough, exact) < BF16[name]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_autocast_gives_float32_maps_near_the_exact_ones(name: str, dims: int) -> None:
    model, pictures = network(dims), images(2, dims)
    exact = maps(model, pictures, name)
    with torch.autocast("cpu", torch.bfloat16):
        rough = maps(model, pictures, name)
        assert torch.is_autocast_enabled("cpu")
    assert rough.dtype == torch.float32
    assert _distance(rough, exact) < BF16[name]
    # A map computed in bf16 would have far fewer distinct values.
    if name != "occlusion":
        assert len(torch.unique(rough)) > 0.9 * len(torch.unique(exact))


@pytest.mark.parametrize("name", LOOKING)
def test_autocast_reaches_the_network(name: str) -> None:
    model, seen = network(), set()
    model.get_submodule("0.0").register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        maps(model, images(1), name)
    assert torch.bfloat16 in seen


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", LOOKING)
def test_a_faint_image_has_a_faint_map(name: str, dims: int) -> None:
    model, pictures = network(dims, bias=False), images(2, dims)
    bright, faint = maps(model, pictures, name), maps(model, 1e-4 * pictures, name)
    assert bright.flatten(2).amax(-1).max() > 0
    if name in HOMOGENEOUS:
        near(1e4 * faint, bright, 1e-3)
    assert bool((faint.abs().flatten(2).amax(-1) <= 1e-3 * bright.abs().flatten(2).amax(-1)).all())


@pytest.mark.parametrize("fusion", ["mean", "max", "sum", "product"])
@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam", "eigencam", "scorecam", "ablationcam"])
def test_fusing_layers_keeps_a_faint_map_faint(name: str, fusion: str) -> None:
    model, pictures = network(bias=False), images(2)
    bright, faint = (maps(model, scale * pictures, name, layers=layers_of(model), fusion=fusion) for scale in (1, 1e-4))
    assert bright.abs().amax() > 0
    assert bool((faint.abs().flatten(2).amax(-1) <= 1e-3 * bright.abs().flatten(2).amax(-1)).all())
