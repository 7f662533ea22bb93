"""What a map costs beside the logits alone: ``python benchmarks/map_cost.py [SIZE] [BATCH] [CLASSES] [NETWORK]``.

Same network, same images, same run; the forms take turns, and the median of each is compared. Peak memory is the
median of five fresh processes for each form, above what network and images take (Linux only): by how the allocator lays
things out it differs by a tenth from one to the next.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid, MonaiBackbone
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.decoders.decoder import score
from hrcam_lightning.geometry import resample
from hrcam_lightning.pooling import MeanPooling

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ROUNDS = 15
PROCESSES = 5


def build(classes: int, network: str) -> LocalizationModel:
    """HR-CAM on all levels of the default backbone, or of one of MONAI's by name; mean pooling."""
    torch.manual_seed(0)
    pyramid = network == "ConvPyramid"
    backbone = ConvPyramid(1, 2) if pyramid else MonaiBackbone(1, 2, network, stem_stride=2)
    return LocalizationModel(backbone, HRCAM(backbone.levels, classes), MeanPooling()).eval()


def naive(model: LocalizationModel, images: Tensor) -> Tensor:
    """The same maps, every channel of every level upsampled before it is mixed."""
    decoder = model.decoder
    assert isinstance(decoder, HRCAM)
    maps = torch.zeros(len(images), len(decoder.bias), *images.shape[2:])
    for feature, level, weight in zip(model.backbone(images), decoder.levels, decoder.weights, strict=True):
        upsampled = resample(feature, level, images.shape[2:], model.resampling)
        maps += score(upsampled, weight)
    return maps


FORMS: dict[str, Callable[[LocalizationModel, Tensor], object]] = {
    "logits alone": lambda model, images: model.logits(images),
    "logits and maps": lambda model, images: model(images),
    "naive maps": naive,
}


@torch.inference_mode()
def peak_megabytes(form: str, size: int, batch: int, classes: int, network: str) -> float:
    """Memory that a form needs at its peak, above what the network and the images take."""
    model, images = build(classes, network), torch.randn(batch, 1, size, size)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew, import torch having been higher
    before = _status("VmRSS")
    FORMS[form](model, images)
    return _status("VmHWM") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


@torch.inference_mode()
def main(size: int = 224, batch: int = 8, classes: int = 14, network: str = "ConvPyramid") -> None:
    """Print the table."""
    model, images = build(classes, network), torch.randn(batch, 1, size, size)
    torch.testing.assert_close(model(images).maps, naive(model, images), atol=1e-4, rtol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(ROUNDS):
        for name, form in FORMS.items():
            start = time.perf_counter()
            form(model, images)
            times[name].append(time.perf_counter() - start)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {
            name: statistics.median(
                pool.apply(peak_megabytes, (name, size, batch, classes, network)) for _ in range(PROCESSES)
            )
            for name in FORMS
        }
    print(f"{network}, {batch} images of {size} x {size}, {classes} classes, {torch.get_num_threads()} threads")
    print(f"{'':16s} {'ms':>8s} {'time':>7s} {'MB':>8s} {'memory':>7s}")
    time_of, memory_of = statistics.median(times["logits alone"]), peaks["logits alone"]
    for name in FORMS:
        median = statistics.median(times[name])
        ratios = f"{median / time_of:6.2f}x {peaks[name]:8.0f} {peaks[name] / memory_of:6.2f}x"
        print(f"{name:16s} {1000 * median:8.1f} {ratios}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:])  # type: ignore[arg-type]
