"""Methods that read activations and gradients of one layer or several, and how they fuse layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hrcam_lightning.explain import cam
from hrcam_lightning.explain.fusion import Fusion, at_peak_of, combine, fuse, unit, unit_range
from hrcam_lightning.geometry import resample

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hrcam_lightning.explain.probe import Probe


def _layer_maps(probe: Probe, rule: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Signed maps (B, T, *s) of each layer at its own resolution, fine to coarse."""
    by_score = [
        {name: rule(activations[name], gradients[name]) for name in activations}
        for activations, gradients in probe.gradients()
    ]
    return {name: torch.stack([part[name] for part in by_score], 1) for name in by_score[0]}


def layerwise(
    probe: Probe,
    *,
    rule: Callable[[Tensor, Tensor], Tensor],
    rectified: bool,
    relu: bool | None = None,
    fusion: Fusion = "mean",
) -> Tensor:
    """Maps of each layer by a rule, brought to the image and fused.

    Args:
        probe: The network and the question.
        rule: From activations and gradients to a signed map.
        rectified: Whether the published method drops what speaks against the class.
        relu: Drop it, or keep the sign; as published if not given.
        fusion: Of several layers.
    """
    upsampled = []
    for name, maps in _layer_maps(probe, rule).items():
        kept = maps.relu() if (rectified if relu is None else relu) else maps
        upsampled.append(probe.upsample(kept, name))
    return fuse(upsampled, fusion)


def eigen(probe: Probe, *, fusion: Fusion = "mean") -> Tensor:
    """Eigen-CAM: no gradient, the same map for all classes."""
    scores, activations = probe.activations()
    maps = [probe.upsample(cam.eigencam(values)[:, None], name) for name, values in activations.items()]
    fused = fuse(maps, fusion)
    return fused.expand(-1, scores.shape[1], *fused.shape[2:]).clone()


def layercam(probe: Probe, *, fusion: Fusion = "max", gamma: float = 2.0) -> Tensor:
    """LayerCAM; of several layers all but the deepest enter as ``tanh(γ M / max M)``, fused by their maximum.

    Args:
        probe: The network and the question.
        fusion: Of several layers.
        gamma: γ.
    """
    maps = _layer_maps(probe, cam.layercam)
    *shallow, deepest = [probe.upsample(values.relu(), name) for name, values in maps.items()]
    if not shallow:
        return deepest
    scaled = [torch.tanh(gamma * unit(one)) for one in shallow]
    return at_peak_of(combine([*scaled, unit(deepest)], fusion), deepest)


def zoomcam(probe: Probe) -> Tensor:
    """Zoom-CAM (Shi et al., ICPR 2020): ``N(ReLU(Σ g A))`` of each layer, the running maximum from deep to shallow.

    N maps the values of a map to 0..1. The result has the peak of the deepest layer's own map.
    """
    maps = _layer_maps(probe, cam.hirescam)
    *finer, deepest = maps
    peak = maps[deepest].relu()
    running, below = unit_range(peak), deepest
    for name in reversed(finer):
        here = unit_range(maps[name].relu())
        lifted = resample(running, probe.layers[below], here.shape[2:], probe.resampling, probe.layers[name])
        running, below = torch.maximum(here, lifted), name
    return at_peak_of(probe.upsample(running, below), peak)


def refinecam(probe: Probe) -> Tensor:
    """RefineCAM (arXiv 2605.14641): the product over layers of Grad-CAM++ maps, each brought to 0..1.

    The result has the peak of the deepest layer's own map.
    """
    maps = _layer_maps(probe, cam.gradcam_plus_plus)
    upsampled = [probe.upsample(values.relu(), name) for name, values in maps.items()]
    return at_peak_of(torch.stack([unit_range(one) for one in upsampled]).prod(0), upsampled[-1])
