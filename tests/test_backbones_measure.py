"""Measured geometry against closed forms: chains, branches, gates, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrcam_lightning import InputError
from hrcam_lightning.backbones import measure_levels

if TYPE_CHECKING:
    from collections.abc import Callable

CONV, MAX, MEAN = {2: nn.Conv2d, 3: nn.Conv3d}, {2: nn.MaxPool2d, 3: nn.MaxPool3d}, {2: nn.AvgPool2d, 3: nn.AvgPool3d}
Step = tuple[str, int, int, int, int]  # kind, kernel, stride, padding, dilation

CHAINS: list[list[Step]] = [
    [("conv", 3, 1, 1, 1)],
    [("conv", 3, 2, 1, 1), ("conv", 3, 2, 1, 1)],
    [("conv", 7, 2, 3, 1), ("max", 3, 2, 1, 1), ("conv", 3, 1, 1, 1), ("conv", 1, 2, 0, 1)],
    [("conv", 2, 2, 0, 1), ("conv", 4, 2, 1, 1), ("conv", 4, 4, 0, 1)],
    [("conv", 5, 1, 0, 1), ("max", 2, 2, 0, 1), ("conv", 3, 1, 0, 1), ("mean", 2, 2, 0, 1)],
    [("conv", 3, 1, 4, 2), ("conv", 3, 2, 0, 3), ("max", 3, 1, 0, 2), ("mean", 3, 2, 1, 1)],
    [("mean", 4, 3, 2, 1), ("conv", 2, 1, 1, 3), ("max", 2, 1, 1, 1), ("conv", 6, 5, 2, 1)],
]


class _Levels(nn.Module):
    """Every step of a chain, or the one output of any function, as a level."""

    def __init__(self, *steps: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.steps = steps
        self.modules_ = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        for step in self.steps:
            images = step(images)
            features.append(images)
        return features


def _layer(step: Step, dims: int, before: int, after: int) -> nn.Module:
    kind, kernel, stride, padding, dilation = step
    if kind == "conv":
        return nn.Sequential(CONV[dims](before, after, kernel, stride, padding, dilation), nn.ReLU(inplace=True))
    if kind == "max":
        return MAX[dims](kernel, stride, padding, dilation)
    return MEAN[dims](kernel, stride, padding)


def _names(count: int) -> list[str]:
    return [f"step {number}" for number in range(count)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("chain", CHAINS, ids=range(len(CHAINS)))
def test_a_chain_lies_where_arithmetic_says(chain: list[Step], dims: int) -> None:
    layers, channels = [], 2
    for step in chain:
        layers.append(_layer(step, dims, channels, 3))
        channels = 3 if step[0] == "conv" else channels
    levels = measure_levels(_Levels(*layers), 2, dims, _names(len(chain)))
    stride, offset = 1.0, 0.0
    for level, (_, kernel, ratio, padding, dilation) in zip(levels, chain, strict=True):
        offset += stride * (dilation * (kernel - 1) / 2 - padding)
        stride *= ratio
        assert level.stride == pytest.approx((stride,) * dims)
        assert level.offset == pytest.approx((offset,) * dims, abs=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_each_axis_has_its_own_geometry(dims: int) -> None:
    kernel, stride, padding, dilation = (3, 2, 5)[:dims], (1, 2, 4)[:dims], (1, 0, 3)[:dims], (2, 1, 1)[:dims]
    layer = CONV[dims](1, 4, kernel, stride, padding, dilation)  # type: ignore[arg-type]
    (level,) = measure_levels(_Levels(layer), 1, dims, ["it"])
    assert level.channels == 4
    assert level.stride == tuple(map(float, stride))
    expected = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    assert list(level.offset) == expected


@pytest.mark.parametrize("dims", [2, 3])
def test_the_true_networks_receptive_fields_are_centred_there(dims: int) -> None:
    """Gradients of the network itself, weights of both signs: the middle of what a cell depends on."""
    torch.manual_seed(0)
    chain = [CONV[dims](1, 4, 4, 2, 1), nn.Tanh(), CONV[dims](4, 4, 3, 1, 2, dilation=2), MEAN[dims](2)]
    network = nn.Sequential(*chain).double()
    (level,) = measure_levels(_Levels(network), 1, dims, ["it"])
    image = torch.randn(1, 1, *(64,) * dims if dims == 2 else (40,) * dims, dtype=torch.float64, requires_grad=True)
    features = network(image)
    cell = tuple(n // 2 for n in features.shape[2:])
    (gradient,) = torch.autograd.grad(features[(0, slice(None), *cell)].sum(), image)
    for axis in range(dims):
        seen = (gradient[0, 0] != 0).transpose(0, axis).flatten(1).any(1).nonzero()
        centre = float(seen.min() + seen.max()) / 2
        assert centre == level.offset[axis] + level.stride[axis] * cell[axis]


@pytest.mark.parametrize("join", ["+", "cat", "+="])
def test_branches_are_averaged(join: str) -> None:
    """One branch looks at pixel 2i, the other at 2i + 0.5: their sum, or a convolution of both, at 2i + 0.25."""
    odd, even, mix = nn.Conv2d(1, 8, 3, 2, 1), nn.AvgPool2d(2), nn.Conv2d(16 if join == "cat" else 8, 2, 1)

    def network(images: Tensor) -> Tensor:
        first, second = odd(images), even(images).expand(-1, 8, -1, -1)
        if join == "cat":
            return mix(torch.cat([first, second], 1))  # type: ignore[no-any-return]
        if join == "+=":
            first += second
            return mix(first)  # type: ignore[no-any-return]
        return mix(first + second)  # type: ignore[no-any-return]

    (level,) = measure_levels(_Levels(network), 1, 2, ["it"])
    assert level.stride == (2.0, 2.0)
    assert level.offset == (0.25, 0.25)


@pytest.mark.parametrize("dims", [2, 3])
def test_norms_gates_functions_and_constants_move_nothing(dims: int) -> None:
    conv, norm = CONV[dims], {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    first, second, squeeze = conv(1, 6, 3, padding=1), conv(6, 6, 3, padding=1, groups=3), conv(6, 6, 1)
    norms = nn.ModuleList([norm(6), nn.GroupNorm(2, 6), nn.PReLU(6)])
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[dims]
    space = tuple(range(2, dims + 2))

    def network(images: Tensor) -> Tensor:
        x = norms[2](norms[0](first((images - 0.3) / -0.2)))
        gate = torch.sigmoid(squeeze(x.mean(space, keepdim=True)))  # squeeze and excitation
        x = gate * x - 1e-6 * torch.full((6, *(1,) * dims), -3.0) + 1
        y = second(F.silu(x))
        y += x
        y = F.dropout(norms[1](y), training=True) * torch.sigmoid(y)
        return F.leaky_relu_(pool(y, 2))

    (level,) = measure_levels(_Levels(network), 1, dims, ["it"])
    assert (level.channels, level.stride, level.offset) == (6, (2.0,) * dims, (0.5,) * dims)


def test_what_goes_up_again_is_followed() -> None:
    """From cells at 4i + 1.5, a transposed kernel looks p - d(k - 1)/2 cells on, upsampling a quarter cell back."""
    down = nn.Conv2d(1, 4, 4, 4)
    back = nn.Sequential(down, nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2, dilation=2))
    up = nn.Sequential(down, nn.Upsample(scale_factor=2, mode="bilinear"))
    for network, channels, stride, offset in ((back, 6, 4.0, 1.5 - 4), (up, 4, 2.0, 1.5 - 1)):
        (level,) = measure_levels(_Levels(network), 1, 2, ["it"])
        assert (level.channels, level.stride, level.offset) == (channels, (stride, stride), (offset, offset))


def test_ceil_mode_and_padding_by_hand_are_followed() -> None:
    padded = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 2, 3, 2))  # as "same" padding of an even size
    ceiled = nn.MaxPool2d(3, 2, ceil_mode=True)
    first, second = measure_levels(_Levels(padded, ceiled), 1, 2, _names(2))
    assert (first.stride, first.offset) == ((2.0, 2.0), (1.0, 1.0))
    assert (second.stride, second.offset) == ((4.0, 4.0), (3.0, 3.0))


def test_a_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_levels(_Levels(network), 1, 2, ["it"])
    assert [module.training for module in network] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (nn.AdaptiveAvgPool2d(4), "it has lost sight of places: it comes after a global or an adaptive pooling"),
        (nn.Flatten(), r"it returns features of shape \(3, \d+\), but a level of a 2D image has the axes"),
        (nn.Upsample(scale_factor=2), "the cells of it do not lie on a regular grid of the image's axis 0"),
        (nn.ConvTranspose2d(1, 1, 2, 2), "the cells of it do not lie on a regular grid of the image's axis 0"),
        (lambda x: x.flip(2), "the cells of it do not lie on a regular grid of the image's axis 0"),
        (lambda x: x.sort(2).values ** 2, "the cells of it do not lie|the geometry of it cannot be measured"),
        (lambda x: torch.fft.fft2(x).real, "the geometry of it cannot be measured|regular grid"),
        (nn.Conv2d(3, 4, 3), "cannot be run on 2D images of 1 channels and any size: a convolution takes 3 channels"),
        (lambda x: x @ torch.zeros(5, 5), "cannot be run on 2D images of 1 channels"),
    ],
)
def test_what_has_no_geometry_is_refused_in_one_sentence(network: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        measure_levels(_Levels(network), 1, 2, ["it"])
