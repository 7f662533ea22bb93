"""Backbone, decoder and pooling: logits and class maps from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.decoder import in_float32
from hrcam_lightning.errors import InputError
from hrcam_lightning.geometry import Resampling, resample, resample_sum, resampled_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.backbones import Backbone
    from hrcam_lightning.decoders import Decoder
    from hrcam_lightning.pooling import Pooling


@dataclass  # not frozen: Lightning walks through what a step returns
class LocalizationOutput:
    """What a model says of a batch, the same in training and evaluation, always float32.

    ``pooling(maps) + bias == logits`` for every pooling. With mean pooling the maps are the published form, without
    bias; with any other pooling the bias stands inside of the maps and `bias` is 0. With max pooling a map's value is
    then the logit that the pixel alone would give the image.

    Attributes:
        logits: (B, K).
        maps: (B, K, *S), raw logit units at image resolution.
        level_maps: For each level of the decoder (B, K, *S_l), at the level's own resolution, without bias. Of the
            unflipped image where views are averaged.
        bias: (K,), what the logits have beyond the pooled maps.
    """

    logits: Tensor
    maps: Tensor
    level_maps: tuple[Tensor, ...]
    bias: Tensor

    @property
    def evidence(self) -> Tensor:
        """Maps with the bias whatever the pooling, (B, K, *S): 0 speaks neither for the class nor against it."""
        return self.maps + self.bias.view(-1, *(1,) * (self.maps.ndim - 2))


class LocalizationModel(nn.Module):
    """A classifier that also says where.

    Args:
        backbone: Features fine to coarse, with their geometry.
        decoder: Features to score maps.
        pooling: Maps to logits.
        resampling: Where the cells of a level are taken to lie, see `hrcam_lightning.geometry`.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        pooling: Pooling,
        resampling: Resampling = "receptive_field",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.pooling = pooling
        self.resampling: Resampling = resampling
        decoder.resampling = resampling

    def forward(self, images: Tensor) -> LocalizationOutput:
        """Logits and maps of images (B, C, *S).

        Raises:
            InputError: If the images do not fit the network.
        """
        features = self.features(images)
        level_maps = self.decoder(features, images.shape[2:])
        del features  # they are the most of the memory, and the maps need them no more
        return self._output(level_maps, images.shape[2:])

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's features (B, C_l, *S_l), fine to coarse.

        Raises:
            InputError: If the images do not fit the network.
        """
        _check(images, self.backbone)
        return _features(images, self.backbone)

    def read(self, features: list[Tensor], size: torch.Size) -> LocalizationOutput:
        """Logits and maps from the backbone's features of images of a `size`."""
        return self._output(self.decoder(features, size), size)

    def _output(self, level_maps: list[Tensor], size: torch.Size) -> LocalizationOutput:
        with in_float32(level_maps[0]):
            maps = self.fuse(level_maps, size)
            if self.pooling.additive:
                logits = self._mean_logits(level_maps, size)
                bias = self.decoder.bias.float()
            else:
                maps = maps + self.decoder.bias.float().view(-1, *(1,) * self.backbone.dims)
                logits = self.pooling(maps)
                bias = torch.zeros_like(self.decoder.bias, dtype=torch.float32)
        return LocalizationOutput(logits, maps, tuple(level_maps), bias)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) alone. With mean pooling nothing is upsampled; any other pooling needs the maps.

        Raises:
            InputError: If the images do not fit the network.
        """
        return self.read_logits(self.features(images), images.shape[2:])

    def read_logits(self, features: list[Tensor], size: torch.Size) -> Tensor:
        """Logits (B, K) alone from the backbone's features of images of a `size`."""
        if not self.pooling.additive:
            return self.read(features, size).logits
        level_maps = self.decoder(features, size)
        with in_float32(features[0]):
            return self._mean_logits(level_maps, size)

    def upsample(self, level_map: Tensor, index: int, size: tuple[int, ...] | torch.Size) -> Tensor:
        """Bring the score map of the decoder's level `index` (B, K, *S_l) to the image's `size`."""
        return resample(level_map, self.decoder.levels[index], size, self.resampling)

    def level_logits(self, output: LocalizationOutput) -> list[Tensor]:
        """What the map of each level says by itself: for each the logits (B, K), the decoder's bias included."""
        size, bias = output.maps.shape[2:], self.decoder.bias.float()
        with in_float32(output.maps):
            if self.pooling.additive:
                return [mean + bias for mean in self._level_means(output.level_maps, size)]
            inside = bias.view(-1, *(1,) * self.backbone.dims)
            levels = enumerate(output.level_maps)
            return [self.pooling(self.upsample(level_map, index, size) + inside) for index, level_map in levels]

    def fuse(self, level_maps: list[Tensor], size: tuple[int, ...] | torch.Size) -> Tensor:
        """Sum of the level maps at image resolution (B, K, *S), without bias."""
        return resample_sum(level_maps, self.decoder.levels, size, self.resampling)

    def _mean_logits(self, level_maps: Sequence[Tensor], size: torch.Size) -> Tensor:
        return torch.stack(self._level_means(level_maps, size)).sum(0) + self.decoder.bias.float()

    def _level_means(self, level_maps: Sequence[Tensor], size: torch.Size) -> list[Tensor]:
        return [
            resampled_mean(level_map, level, size, self.resampling)
            for level_map, level in zip(level_maps, self.decoder.levels, strict=True)
        ]


def _check(images: Tensor, backbone: Backbone) -> None:
    if images.ndim != backbone.dims + 2:
        raise InputError(
            f"the network takes {backbone.dims}D images, but got a batch of shape {tuple(images.shape)}; "
            "(batch, channel, axes...) is expected"
        )
    if images.shape[1] != backbone.channels:
        raise InputError(f"the network takes {backbone.channels} channels, but the images have {images.shape[1]}")
    deepest = backbone.levels[-1].stride
    if any(size < stride for size, stride in zip(images.shape[2:], deepest, strict=True)):
        needed = " x ".join(f"{stride:g}" for stride in deepest)
        got = " x ".join(str(size) for size in images.shape[2:])
        raise InputError(
            f"images of {got} are smaller than the network's deepest stride, {needed}: "
            "use larger images or a backbone with fewer levels (for example --model.backbone.depth 3)"
        )


def _features(images: Tensor, backbone: Backbone) -> list[Tensor]:
    size = " x ".join(str(size) for size in images.shape[2:])
    try:
        features = backbone(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words where batch norm has nothing to compare
            raise
        raise InputError(
            f"a training batch of one image of {size} leaves batch norm one value a channel at the deepest level: "
            "use --data.batch_size 2 or more, larger images, or fewer levels"
        ) from error
    except RuntimeError as error:
        # torch's words where nothing is left of an image before a pooling or an unpadded kernel
        if not any(words in str(error) for words in ("too small", "greater than actual input size")):
            raise
        raise InputError(
            f"images of {size} are too small for the network: use larger images or fewer levels"
        ) from error
    for number, feature in enumerate(features):
        if feature.numel() == 0:
            raise InputError(
                f"level {number} of the network is empty for images of {size}: use larger images or fewer levels"
            )
    return features  # type: ignore[no-any-return]
