"""What maps cost, beside torch-cam, captum and MONAI: ``python benchmarks/explain_cost.py [SIZE] [BATCH] [CLASSES]``.

MONAI's ResNet-18, the same images, the same run, for one class and for several. The forms take turns, and a form's time
is the median of its ratios to the forward pass alone of the same turn. Peak memory is that of a fresh process for each
form, above what network and images take (Linux only). captum and torch-cam are left out where they are not installed.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import MonaiBackbone
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.explain import explain
from hrcam_lightning.pooling import MeanPooling

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
LAYER = "layer4"


def build(classes: int) -> tuple[nn.Module, LocalizationModel]:
    """The classifier, and HR-CAM with mean pooling on the same backbone."""
    from monai.networks.nets import resnet18  # type: ignore[attr-defined]

    torch.manual_seed(0)
    plain = resnet18(spatial_dims=2, n_input_channels=3, num_classes=classes, conv1_t_stride=2).eval()
    backbone = MonaiBackbone(3, 2, "resnet18", stem_stride=2)
    return plain, LocalizationModel(backbone, HRCAM(backbone.levels, classes), MeanPooling()).eval()


def forward(plain: nn.Module, _own: LocalizationModel, images: Tensor, _classes: int) -> object:
    """The classifier's forward pass, without a graph."""
    with torch.inference_mode():
        return plain(images)


def fused(_plain: nn.Module, own: LocalizationModel, images: Tensor, _classes: int) -> object:
    """HR-CAM: the maps of all classes from the forward pass."""
    with torch.inference_mode():
        return own(images).maps


def ours(plain: nn.Module, _own: LocalizationModel, images: Tensor, classes: int, method: str) -> object:
    """A method of ours, at image resolution."""
    return explain(plain, images, method, layers=[LAYER], target=0 if classes == 1 else None)


def torchcam(plain: nn.Module, _own: LocalizationModel, images: Tensor, classes: int) -> object:
    """torch-cam's Grad-CAM, at the layer's resolution: it leaves the rest to its user."""
    from torchcam.methods import GradCAM

    with GradCAM(plain, target_layer=LAYER, input_shape=tuple(images.shape[1:])) as extractor:
        scores = plain(images)
        return [extractor(number, scores, retain_graph=number < classes - 1)[0] for number in range(classes)]


def captum(plain: nn.Module, _own: LocalizationModel, images: Tensor, classes: int) -> object:
    """captum's, at image resolution."""
    from captum.attr import LayerAttribution, LayerGradCam

    method = LayerGradCam(plain, plain.get_submodule(LAYER))
    maps = [method.attribute(images, number, relu_attributions=True) for number in range(classes)]
    return [LayerAttribution.interpolate(one, tuple(images.shape[2:]), "bilinear") for one in maps]


def monai(plain: nn.Module, _own: LocalizationModel, images: Tensor, classes: int) -> object:
    """MONAI's, at image resolution, without its stretching to 0..1, which leaves the device."""
    from monai.visualize import GradCAM  # type: ignore[attr-defined]

    method = GradCAM(plain, LAYER, postprocessing=lambda maps: maps)
    maps = [method(images, class_idx=number) for number in range(classes)]
    for module in plain.modules():  # it leaves its hooks, and they would add up
        module._forward_hooks.clear()
        module._backward_hooks.clear()
        module._forward_pre_hooks.clear()
    return maps


FORMS: dict[str, Callable[..., Any]] = {
    "forward pass alone": forward,
    "fused map (HR-CAM)": fused,
    "Grad-CAM, ours": partial(ours, method="gradcam"),
    **({"Grad-CAM, torch-cam": torchcam} if find_spec("torchcam") else {}),
    **({"Grad-CAM, captum": captum} if find_spec("captum") else {}),
    "Grad-CAM, MONAI": monai,
}


def peak_megabytes(form: str, size: int, batch: int, classes: int, several: int) -> float:
    """Memory that a form needs at its peak, above what the networks and the images take."""
    plain, own = build(several)
    images = torch.randn(batch, 3, size, size)
    FORMS[form](plain, own, images[:1, :, :32, :32], 1)  # imports take memory, too
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew, import torch having been higher
    before = _status("VmRSS")
    FORMS[form](plain, own, images, classes)
    return _status("VmHWM") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def main(size: int = 224, batch: int = 8, several: int = 14) -> None:
    """Print a table for one class, and one for several."""
    plain, own = build(several)
    images = torch.randn(batch, 3, size, size)
    print(f"MONAI's ResNet-18, {batch} images of {size} x {size}, {torch.get_num_threads()} threads")
    for classes in (1, several):
        for form in FORMS.values():  # to warm up
            form(plain, own, images, classes)
        times: dict[str, list[float]] = {name: [] for name in FORMS}
        for _ in range(ROUNDS):
            for name, form in FORMS.items():
                start = time.perf_counter()
                form(plain, own, images, classes)
                times[name].append(time.perf_counter() - start)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = {name: pool.apply(peak_megabytes, (name, size, batch, classes, several)) for name in FORMS}
        print(f"\n{f'maps of {classes}':20s} {'ms':>8s} {'time':>8s} {'to ours':>8s} {'MB':>6s}")
        for name in FORMS:
            of_forward, of_ours = (
                statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))
                for other in ("forward pass alone", "Grad-CAM, ours")
            )
            median = 1000 * statistics.median(times[name])
            print(f"{name:20s} {median:8.1f} {of_forward:7.2f}x {of_ours:7.2f}x {peaks[name]:6.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
