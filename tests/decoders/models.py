"""Every decoder, small, on a small pyramid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import CAM, FPN, HRCAM, PAN, PYLON, Decoder, DeepLabV3Plus, Li2018, UNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.geometry import Resampling
    from hrcam_lightning.pooling import Pooling

DECODERS: dict[str, Callable[..., Decoder]] = {
    "cam": CAM,
    "hrcam": HRCAM,
    "pylon": partial(PYLON, width=8),
    "pylon_plain": partial(PYLON, width=8, n_up=2, up_layers=1, use_pa=False),
    "li2018": partial(Li2018, patches=7, width=8),
    "unet": partial(UNet, widths=[8, 8, 8]),
    "fpn": partial(FPN, width=8, segmentation_width=8),
    "fpn_group": partial(FPN, width=8, segmentation_width=8, norm="group"),
    "fpn_instance": partial(FPN, width=8, segmentation_width=8, norm="instance"),
    "deeplab": partial(DeepLabV3Plus, width=8, finer_width=8, rates=[1, 2]),
    "deeplab_nogap": partial(DeepLabV3Plus, width=8, finer_width=8, rates=[1], global_pooling=False),
    "pan": partial(PAN, width=8),
    "pan_nogap": partial(PAN, width=8, global_pooling=False),
}


def make_model(
    decoder: Callable[..., Decoder],
    dims: int,
    pooling: Pooling,
    resampling: Resampling = "receptive_field",
    **backbone: Any,
) -> LocalizationModel:
    """A model of 3 classes in evaluation mode, its norms and biases as after training: not at their initial values."""
    torch.manual_seed(0)
    pyramid = ConvPyramid(1, dims, **{"width": 4, "depth": 4, **backbone})
    model = LocalizationModel(pyramid, decoder(pyramid.levels, 3), pooling, resampling)
    nn.init.normal_(model.decoder.bias)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, 0.1, 0.5)  # a gate of one channel must not be closed everywhere
    return model.eval()


def make_images(size: tuple[int, ...], batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(seed))
