"""What a map costs beside the logits alone: ``python benchmarks/map_cost.py [SIZE] [BATCH]``.

Same network, same images, same run; the forms take turns, and the median of each is compared. Peak memory is that of
a fresh process for each form, above that of the process that has only built the network.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING

import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.geometry import resample
from hrcam_lightning.pooling import MeanPooling

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CLASSES = 14
ROUNDS = 15


def build() -> LocalizationModel:
    """HR-CAM on all five levels of the default backbone, mean pooling, 14 classes."""
    torch.manual_seed(0)
    backbone = ConvPyramid(1, 2)
    return LocalizationModel(backbone, HRCAM(backbone.levels, CLASSES), MeanPooling()).eval()


def naive(model: LocalizationModel, images: Tensor) -> Tensor:
    """The same maps, every channel of every level upsampled before it is mixed."""
    decoder = model.decoder
    assert isinstance(decoder, HRCAM)
    maps = torch.zeros(len(images), CLASSES, *images.shape[2:])
    for feature, level, weight in zip(model.backbone(images), decoder.levels, decoder.weights, strict=True):
        upsampled = resample(feature, level, images.shape[2:], model.resampling)
        maps += torch.einsum("kc,bc...->bk...", weight, upsampled)
    return maps


FORMS: dict[str, Callable[[LocalizationModel, Tensor], object]] = {
    "logits alone": lambda model, images: model.logits(images),
    "logits and maps": lambda model, images: model(images),
    "naive maps": naive,
}


@torch.inference_mode()
def peak_megabytes(form: str | None, size: int, batch: int) -> float:
    """Peak memory of this process after running a form, or after building alone."""
    torch.set_num_threads(1)
    model, images = build(), torch.randn(batch, 1, size, size)
    if form:
        FORMS[form](model, images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def main(size: int = 224, batch: int = 8) -> None:
    """Print the table."""
    model, images = build(), torch.randn(batch, 1, size, size)
    torch.testing.assert_close(model(images).maps, naive(model, images), atol=1e-4, rtol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(ROUNDS):
        for name, form in FORMS.items():
            start = time.perf_counter()
            form(model, images)
            times[name].append(time.perf_counter() - start)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        floor = pool.apply(peak_megabytes, (None, size, batch))
        peaks = {name: pool.apply(peak_megabytes, (name, size, batch)) - floor for name in FORMS}
    print(f"{batch} images of {size} x {size}, {CLASSES} classes, {torch.get_num_threads()} threads")
    print(f"{'':16s} {'ms':>8s} {'time':>7s} {'MB':>8s} {'memory':>7s}")
    time_of, memory_of = statistics.median(times["logits alone"]), peaks["logits alone"]
    for name in FORMS:
        median = statistics.median(times[name])
        ratios = f"{median / time_of:6.2f}x {peaks[name]:8.0f} {peaks[name] / memory_of:6.2f}x"
        print(f"{name:16s} {1000 * median:8.1f} {ratios}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
