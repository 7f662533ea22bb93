"""PYLON against the published code: parameter counts, and the forward pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrcam_lightning.decoders import PYLON
from hrcam_lightning.decoders.blocks import ConvNormReLU
from hrcam_lightning.geometry import Level

RESNET50 = [
    Level(channels, (stride,) * 2, ((stride - 1) / 2,) * 2)
    for channels, stride in [(64, 2.0), (256, 4.0), (512, 8.0), (1024, 16.0), (2048, 32.0)]
]


def _count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameter_counts_are_those_of_the_published_code() -> None:
    decoder = PYLON(RESNET50, 14)
    assert decoder.attention is not None
    assert _count(decoder.attention) == 363_015
    assert [_count(up) for up in decoder.ups] == [99_456, 329_600, 1_183_104]
    assert _count(decoder.head) + decoder.bias.numel() == 1_806
    assert _count(decoder) == 1_976_981
    assert _count(PYLON(RESNET50, 14, up_layers=1)) == 595_349


@pytest.mark.parametrize(("n_up", "stride"), [(0, 32), (1, 16), (2, 8), (3, 4)])
def test_each_step_up_halves_the_stride(n_up: int, stride: int) -> None:
    assert PYLON(RESNET50, 2, n_up=n_up).levels[0].stride == (stride, stride)


def _block(block: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(block, ConvNormReLU)
    weight = block.conv.weight
    y = F.conv2d(x, weight, block.conv.bias, padding=weight.shape[-1] // 2)
    norm = block.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return F.relu(F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias))


def _up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def test_the_forward_pass_written_out() -> None:
    """PYLON's section on the architecture, step by step, at a size that the published code takes."""
    torch.manual_seed(0)
    levels = [Level(c, level.stride, level.offset) for c, level in zip((3, 4, 5, 6), RESNET50[1:], strict=True)]
    decoder = PYLON(levels, 2, width=4).eval()
    decoder.resampling = "half_pixel"
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, 0.5, 1.5)
    f1, f2, f3, x = (
        torch.randn(2, level.channels, int(256 / level.stride[0]), 64 >> n) for n, level in enumerate(levels)
    )
    attention = decoder.attention
    assert attention is not None
    d1 = _block(attention.down[0], F.max_pool2d(x, 2))
    d2 = _block(attention.down[1], F.max_pool2d(d1, 2))
    d3 = _block(attention.down[2], F.max_pool2d(d2, 2))
    assert d3.shape[2:] == (1, 1)
    u = _up(_block(attention.up[2], d3), d2)
    u = _up(_block(attention.up[1], d2) + u, d1)
    u = _up(_block(attention.up[0], d1) + u, x)
    y = u * _block(attention.value, x)
    assert y.abs().max() > 0
    for up, f in zip(reversed(list(decoder.ups)), (f3, f2, f1), strict=True):
        first, second = up.layers.children()  # type: ignore[union-attr]
        y = _block(second, _block(first, f)) + _up(y, f)
    expected = torch.einsum("kc,bchw->bkhw", decoder.head.weight.flatten(1), y)
    (scores,) = decoder([torch.zeros(1), f1, f2, f3, x], (256, 256))
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test_it_starts_as_published() -> None:
    torch.manual_seed(0)
    decoder = PYLON(RESNET50, 14)
    assert decoder.bias.abs().max() == 0
    head_bound = (6 / (128 + 14)) ** 0.5  # Xavier uniform
    assert 0.99 * head_bound < decoder.head.weight.abs().max() <= head_bound
    for module in decoder.modules():
        if isinstance(module, ConvNormReLU):
            weight = module.conv.weight
            bound = (6 / weight[0].numel()) ** 0.5  # Kaiming uniform, fan in, ReLU
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.8 if weight.numel() < 100 else 0.1)
            assert module.conv.bias is not None
            assert module.conv.bias.abs().max() == 0
