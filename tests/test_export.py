"""A network exported, saved and loaded says what it said before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning import LocalizationModel, export
from hrcam_lightning.backbones import MonaiBackbone
from hrcam_lightning.decoders import HRCAM, PYLON, Decoder
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling
from tests.decoders.models import DECODERS, make_images, make_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ["cam", "hrcam", "pylon", "li2018", "unet", "fpn", "deeplab", "pan"]


def _round_trip(decoder: Callable[..., Decoder], size: tuple[int, ...], index: int, folder: Path, depth: int) -> None:
    pooling = (MaxPooling, MeanPooling, LogSumExpPooling)[index % 3]()
    model = make_model(decoder, len(size), pooling, width=2, depth=depth).train()
    path = folder / "model.pt2"
    torch.export.save(export(model, size), path)
    assert model.training
    model.eval()
    loaded = torch.export.load(path).module()
    for batch in (1, 3):
        images = make_images(size, batch)
        with torch.no_grad():
            logits, maps = loaded(images)
            output = model(images)
        torch.testing.assert_close(logits, output.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(maps, output.maps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_says_the_same_for_any_batch(name: str, tmp_path: Path) -> None:
    depth = 4 if name == "pylon" else 2 if name in ("fpn", "pan") else 3
    _round_trip(DECODERS[name], (13, 18), NAMES.index(name), tmp_path, depth)


def test_a_network_of_volumes_exports(tmp_path: Path) -> None:
    _round_trip(partial(PYLON, width=4, n_up=1), (5, 6, 7), 0, tmp_path, depth=2)


def test_a_tapped_network_exports(tmp_path: Path) -> None:
    """Its forward pass ends with an exception once the last layer is found; a tracer must not see it."""
    backbone = MonaiBackbone(1, 2, "resnet10", stem_stride=2)
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 2), MeanPooling()).eval()
    torch.export.save(export(model, (48, 40)), tmp_path / "model.pt2")
    images = make_images((48, 40), 3)
    with torch.no_grad():
        logits, maps = torch.export.load(tmp_path / "model.pt2").module()(images)
        output = model(images)
    torch.testing.assert_close(logits, output.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps, output.maps, atol=1e-4, rtol=1e-4)
