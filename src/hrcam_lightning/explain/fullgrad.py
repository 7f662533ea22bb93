"""FullGrad: the score as a sum over the input and every bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.probe import changed
from hrcam_lightning.geometry import Level, resample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hrcam_lightning.explain.probe import Probe


class FullGradients(NamedTuple):
    """One score of each sample, taken apart.

    In a network of convolutions, dense layers, batch norm, ReLU, maximum and mean pooling the parts sum to the score.

    Attributes:
        image: (B, C, *S), the image times its gradient.
        biases: (B, C_l, *S_l) of each layer with a bias, of dense ones on a vector without axes: the bias times its
            gradient.
    """

    image: Tensor
    biases: list[Tensor]


def full_gradients(probe: Probe) -> Iterator[FullGradients]:
    """The full gradients of each of the T scores (Srinivas and Fleuret, NeurIPS 2019)."""
    biases = {name: bias for name, module in probe.model.named_modules() if (bias := _bias(module)) is not None}
    outputs: list[tuple[str, Tensor]] = []

    def keeper(name: str) -> Callable[[Tensor], Tensor]:
        def keep(output: Tensor) -> Tensor:
            outputs.append((name, output))
            return output.clone()  # a following layer may work in place

        return keep

    images = probe.images.detach().clone().requires_grad_()
    with changed(probe.model, {name: keeper(name) for name in biases}):
        scores = probe.scores(images)
    if not scores.requires_grad:
        raise InputError(
            "the network cannot be differentiated from its scores to the image: use a method without gradients, "
            "such as scorecam, ablationcam or occlusion"
        )
    last = scores.shape[1] - 1
    for number in range(last + 1):
        wanted = [images, *(output for _, output in outputs)]
        of_image, *of_outputs = torch.autograd.grad(
            scores[:, number].sum(), wanted, retain_graph=number < last, materialize_grads=True
        )
        parts = []
        for (name, _), gradient in zip(outputs, of_outputs, strict=True):
            if isinstance(probe.model.get_submodule(name), nn.Linear):
                gradient = gradient.movedim(-1, 1)  # the channels of a dense layer stand last
            bias = biases[name].view(-1, *(1,) * (gradient.ndim - 2))
            parts.append((gradient * bias).float())
        yield FullGradients((images.detach() * of_image).float(), parts)


def _bias(module: nn.Module) -> Tensor | None:
    """What a layer adds whatever its input, (C,); of batch norm in evaluation ``β − γ μ / √(σ² + ε)``."""
    if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt()
        if not module.affine:
            return -module.running_mean * scale
        return module.bias.detach() - module.running_mean * scale * module.weight.detach()
    if isinstance(module, nn.Linear | _ConvNd) and module.bias is not None:
        return module.bias.detach()
    return None


def fullgrad(probe: Probe) -> Tensor:
    """FullGrad saliency: ``Σ |.|`` over the channels of the image's and of every layer's part, upsampled.

    Layers are resampled with half-pixel centres. The published code brings each part to 0..1 first, which would give a
    network that is sure of nothing the same map as one that is sure: the magnitudes are kept as they are.
    """
    size, dims = probe.images.shape[2:], probe.images.ndim - 2
    pixels = Level(0, (1.0,) * dims, (0.0,) * dims)
    maps = []
    for parts in full_gradients(probe):
        total = parts.image.abs().sum(1, keepdim=True)
        for part in parts.biases:
            if part.ndim == probe.images.ndim:
                total = total + resample(part.abs().sum(1, keepdim=True), pixels, size, "half_pixel")
        maps.append(total)
    return torch.cat(maps, 1)
