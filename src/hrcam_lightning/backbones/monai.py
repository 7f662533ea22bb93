"""The classifiers of MONAI, in 2D and 3D."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from hrcam_lightning.backbones.tapped import TappedBackbone
from hrcam_lightning.backbones.weights import load_weights
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class _Family(NamedTuple):
    """What networks of one kind have in common."""

    names: tuple[str, ...]
    layers: tuple[str, ...]  # the last of each resolution, after its activation
    head: tuple[str, ...]  # what stands behind them and holds weights


_RESNET = _Family(
    tuple(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)),
    ("act", "layer1", "layer2", "layer3", "layer4"),
    ("fc",),
)
_DENSENET = _Family(
    tuple(f"densenet{depth}" for depth in (121, 169, 201, 264)),
    ("features.relu0", *(f"features.transition{number}.relu" for number in (1, 2, 3)), "class_layers.relu"),
    ("class_layers.out",),
)
_EFFICIENTNET = _Family(
    tuple(f"efficientnet-b{number}" for number in range(9)),
    ("_blocks.0", "_blocks.1", "_blocks.2", "_blocks.4", "_blocks.6"),
    ("_conv_head", "_bn1", "_fc"),
)
_FAMILIES = (_RESNET, _DENSENET, _EFFICIENTNET)


class MonaiBackbone(TappedBackbone):
    """A ResNet, DenseNet or EfficientNet of MONAI, five levels each.

    ======================  ========================  ==================================================
    names                   strides                   offsets
    ======================  ========================  ==================================================
    ``resnet10`` … ``200``  1, 2, 4, 8, 16            0 at each level
    ``densenet121`` … 264   2, 4, 8, 16, 32           0, 0, 2, 6, 14: its poolings are 2 wide
    ``efficientnet-b0``     2, 4, 8, 16, 32           1, 3, 7, 15, 31: its padding is one-sided
    ======================  ========================  ==================================================

    MONAI's ResNets do not halve the image in their first convolution, unlike the usual ones: `stem_stride` 2 makes
    them so (strides 2 to 32), at about a quarter of the time in 2D.

    Args:
        channels: Number of image channels, any.
        dims: Number of spatial axes, 2 or 3.
        name: ``resnet10``, ``18``, ``34``, ``50``, ``101``, ``152`` or ``200``; ``densenet121``, ``169``, ``201`` or
            ``264``; ``efficientnet-b0`` to ``b8``.
        stem_stride: Stride of a ResNet's first convolution.
        weights: File of weights for MONAI's network, with or without its classifier, see `load_weights`.

    Raises:
        InputError: If the name is unknown, or the weights do not fit.
    """

    def __init__(
        self, channels: int, dims: int, name: str = "resnet18", stem_stride: int = 1, weights: str | None = None
    ) -> None:
        family = next((family for family in _FAMILIES if name in family.names), None)
        if family is None:
            known = [known for family in _FAMILIES for known in family.names]
            close = difflib.get_close_matches(name, known, n=3, cutoff=0)
            raise InputError(f"MONAI has no network {name!r}; nearest are {', '.join(close)}")
        if stem_stride < 1 or (stem_stride != 1 and family is not _RESNET):
            raise InputError(f"stem_stride is {stem_stride}: of ResNets it is 1 or more, other networks leave it at 1")
        make = partial(_network, family, name, channels, dims, stem_stride, weights)
        super().__init__(channels, dims, make, family.layers)
        self.brings_weights = weights is not None
        if dims == 2:  # as ConvPyramid; measured a tenth quicker in training at 224² on a CPU, even at 64²
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, levels[i].channels, *S_i) of each resolution, fine to coarse."""
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return super().forward(images)


def _network(family: _Family, name: str, channels: int, dims: int, stem_stride: int, weights: str | None) -> nn.Module:
    from monai.networks import nets  # takes seconds: only for those who use it
    from monai.networks.nets.efficientnet import EfficientNetBN

    network: nn.Module
    if family is _RESNET:
        make = getattr(nets, name)
        network = make(spatial_dims=dims, n_input_channels=channels, conv1_t_stride=stem_stride, num_classes=1)
    elif family is _DENSENET:
        network = getattr(nets, name)(spatial_dims=dims, in_channels=channels, out_channels=1)
    else:
        network = EfficientNetBN(name, pretrained=False, spatial_dims=dims, in_channels=channels, num_classes=1)
    for module in family.head:
        network.set_submodule(module, nn.Identity())
    if weights is not None:
        load_weights(network, weights, unused=family.head)
    return network
