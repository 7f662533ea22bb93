"""How FPN and PAN put levels together, against the published wiring written out with torch's own interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrcam_lightning.decoders import FPN, PAN
from hrcam_lightning.pooling import MeanPooling
from tests.decoders.models import DECODERS, make_images, make_model


def _to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def test_fpn_adds_each_level_to_the_finer_one_and_sums_its_branches() -> None:
    model = make_model(DECODERS["fpn"], 2, MeanPooling(), "half_pixel")
    decoder = model.decoder
    assert isinstance(decoder, FPN)
    features = model.backbone(make_images((33, 26)))
    pyramid = [lateral(x) for lateral, x in zip(decoder.laterals, features, strict=True)]
    for depth in (2, 1, 0):
        pyramid[depth] = pyramid[depth] + _to(pyramid[depth + 1], pyramid[depth])
    total = torch.zeros(())
    for depth, x in enumerate(pyramid):
        branch = decoder.branches[depth]
        assert isinstance(branch, nn.ModuleList)
        for step, block in enumerate(branch):
            x = block(x)
            if depth:
                x = _to(x, pyramid[depth - step - 1])
        total = total + x
    torch.testing.assert_close(decoder(features, (33, 26))[0], decoder.head(total), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_pan_gates_each_level_by_the_mean_of_the_deeper_map() -> None:
    model = make_model(DECODERS["pan"], 2, MeanPooling(), "half_pixel")
    decoder = model.decoder
    assert isinstance(decoder, PAN)
    assert decoder.gates is not None
    *finer, deepest = model.backbone(make_images((33, 26)))
    x = decoder.attention(deepest, "half_pixel")
    for number in (2, 1, 0):
        skip = decoder.skips[number](finer[number])
        x = skip * decoder.gates[number](x.mean((2, 3), keepdim=True)) + _to(x, skip)
    torch.testing.assert_close(decoder([*finer, deepest], (33, 26))[0], decoder.head(x), atol=1e-4, rtol=1e-4)
