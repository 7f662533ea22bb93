"""The head as a network: the maps that its weights say, and where patches are aimed by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.pooling import MeanPooling
from hrcam_lightning.retrofit.equivariance import Equivariance, Sampling
from hrcam_lightning.retrofit.features import Reading
from hrcam_lightning.retrofit.gather import aim
from hrcam_lightning.retrofit.head import head_of

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.geometry import Resampling

CASES = [((19, 24), 3), ((12, 9, 16), 2)]
BOTH: list[Resampling] = ["receptive_field", "half_pixel"]


def _head(size: tuple[int, ...], classes: int, resampling: Resampling) -> tuple[Reading, LocalizationModel, Any, Any]:
    """Levels out of order, neighbours of the last one read, and a head of random weights."""
    torch.manual_seed(0)
    backbone = ConvPyramid(1, len(size), width=3, depth=3).eval()
    base = LocalizationModel(backbone, HRCAM(backbone.levels, classes), MeanPooling(), resampling).eval()
    reading = Reading(base, [2, 0], resampling, [0])
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(classes, reading.channels)), generator.normal(size=classes)
    return reading, head_of(reading, weight, bias), weight, bias


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize(("size", "classes"), CASES)
@torch.no_grad()
def test_the_head_maps_what_was_read(size: tuple[int, ...], classes: int, resampling: Resampling) -> None:
    """At any pixel the map is the weights times the channels there, and the logit the weights times their means."""
    reading, head, weight, bias = _head(size, classes, resampling)
    images = torch.randn(5, 1, *size)
    features, output = reading.features(images), head(images)
    pixels = torch.stack([torch.randint(n, (5, 30)) for n in size], -1)
    channels = reading.at(pixels, features, size)
    expected = torch.einsum("kc,bcp->bkp", torch.from_numpy(weight).float(), channels)
    there = [output.maps[row][(slice(None), *pixels[row].T)] for row in range(5)]
    torch.testing.assert_close(torch.stack(there), expected, atol=1e-4, rtol=1e-4)
    logits = reading.pooled(features, size).double().numpy() @ weight.T + bias
    np.testing.assert_allclose(output.logits.numpy(), logits, atol=1e-4)


@pytest.mark.parametrize(("size", "classes"), CASES)
@torch.no_grad()
def test_patches_are_aimed_where_the_maps_of_findings_peak(
    size: tuple[int, ...], classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, head, _, _ = _head(size, classes, "receptive_field")
    images = torch.randn(5, 1, *size)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]])[:, :classes]
    numbers = [3, 5, 8, 9, 11]
    seen: list[Any] = []

    def spy(_: Equivariance, images: Any, features: Any, numbers: Any, peaks: Any) -> None:
        seen.extend(zip(numbers, images, features[0], peaks, strict=True))

    monkeypatch.setattr(Equivariance, "aim", spy)
    batches: Any = [{"image": images[rows], "label": labels[rows]} for rows in (slice(2), slice(2, 4), slice(4, 5))]
    equivariance = Equivariance(reading, Sampling())
    aim(batches, numbers, head, equivariance, lambda label: label.nonzero().flatten().tolist())
    maps = head(images).maps.numpy()
    assert [number for number, *_ in seen] == numbers
    for row, (_, image, feature, peaks) in enumerate(seen):
        own = labels[row].nonzero().flatten().tolist()
        assert peaks == [[int(i) for i in np.unravel_index(maps[row, k].argmax(), size)] for k in own]
        assert torch.equal(image, images[row])
        torch.testing.assert_close(feature, reading.features(images[row : row + 1])[0][0], atol=1e-5, rtol=1e-4)


def test_chosen_cases_come_in_the_batches_of_all(spec_path: Path) -> None:
    """So that images of different sizes, which no batch of all mixes, are not mixed either."""
    data = PhantomDataModule(str(spec_path), counts={"train": 11}, batch_size=4)
    names = [batch["case"] for batch in data.in_order("train")]
    some = [batch["case"] for batch in data.in_order("train", [0, 2, 9, 10])]
    assert some == [[names[0][0], names[0][2]], [names[2][1], names[2][2]]]
    whole = next(iter(data.in_order("train")))["image"]
    assert torch.equal(next(iter(data.in_order("train", [0, 2])))["image"], whole[[0, 2]])
