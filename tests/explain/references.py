"""Every method once more, from its formula: one sample, one class, one channel and one cell at a time, in numpy.

``a`` are the activations (C, *s) of a layer for one sample and ``g`` the gradient of one score with respect to them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tests.explain.networks import Staged

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def cam(a: Array, g: Array) -> Array:
    """The dense layer's weights, of which the gradient behind mean pooling is the Zth part."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += a[k].size * g[k].flat[0] * a[k]
    return out


def gradcam(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += g[k].mean() * a[k]
    return out


def gradcam_plus_plus(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for cell in np.ndindex(*a.shape[1:]):
            slope = g[k][cell]
            if slope > 0:
                weight += slope * slope**2 / (2 * slope**2 + a[k].sum() * slope**3)
        out += weight * a[k]
    return out


def respondcam(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        if np.any(a[k]):
            out += (g[k] * a[k]).sum() / a[k].sum() * a[k]
    return out


def hirescam(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k, *cell in itertools.product(*map(range, a.shape)):
        out[tuple(cell)] += g[(k, *cell)] * a[(k, *cell)]
    return out


def elementwise(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k, *cell in itertools.product(*map(range, a.shape)):
        out[tuple(cell)] += max(g[(k, *cell)] * a[(k, *cell)], 0)
    return out


def layercam(a: Array, g: Array) -> Array:
    out = np.zeros(a.shape[1:])
    for k, *cell in itertools.product(*map(range, a.shape)):
        out[tuple(cell)] += max(g[(k, *cell)], 0) * a[(k, *cell)]
    return out


def eigencam(a: Array) -> Array:
    """By the eigenvectors of the channels' covariance; the side that reaches further is positive."""
    cells = a.reshape(len(a), -1).T
    cells = cells - cells.mean(0)
    _, vectors = np.linalg.eigh(cells.T @ cells)
    projected = cells @ vectors[:, -1]
    out: Array = projected.reshape(a.shape[1:])
    return out if out.max() >= -out.min() else -out


SIGNED: dict[str, Callable[[Array, Array], Array]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": respondcam,  # the same weights, found twice
    "respondcam": respondcam,
    "hirescam": hirescam,
    "elementwise": elementwise,
    "layercam": layercam,
}
"""Maps before negative parts are dropped."""
RECTIFIED = ("gradcam", "gradcam++", "xgradcam", "elementwise", "layercam")
"""Of which the published method drops negative parts."""


def published(method: str, a: Array, g: Array) -> Array:
    signed = SIGNED[method](a, g)
    return relu(signed) if method in RECTIFIED else signed


def cut(model: Staged, images: Tensor, stage: int, sample: int, number: int) -> tuple[Array, Array]:
    """Activations of a stage for one sample, and the gradient of one logit, the network cut in two by hand."""
    activations = model.before(images[sample : sample + 1], stage).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.after(activations, stage)[0, number], activations)
    return activations.detach()[0].numpy(), gradient[0].numpy()


def spread(values: Array, size: Sequence[int], stride: float | None = None, offset: float = 0.0) -> Array:
    """Linear interpolation of (*s) to (*S), border values kept, axis by axis.

    Cells have half-pixel centres, or lie on pixels ``offset + stride · i``.
    """
    for axis, pixels in enumerate(size):
        cells = values.shape[axis]
        if stride is None:
            at = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
        else:
            at = (np.arange(pixels) - offset) / stride
        lines = np.moveaxis(values, axis, -1)
        out = np.empty((*lines.shape[:-1], pixels))
        for line in np.ndindex(*lines.shape[:-1]):
            out[line] = np.interp(at, np.arange(cells), lines[line])
        values = np.moveaxis(out, -1, axis)
    return values


def unit_range(values: Array) -> Array:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def over_peak(values: Array) -> Array:
    peak = np.abs(values).max()
    return values / peak if peak > 0 else values


def fused(maps: Sequence[Array], rule: str) -> Array:
    """Maps at image resolution, fine to coarse, each over its peak; then to the peak of the coarsest."""
    parts = [over_peak(one) for one in maps]
    out: Array = parts[0]
    for part in parts[1:]:
        if rule == "max":
            out = np.maximum(out, part)
        elif rule == "product":
            out = relu(out) * relu(part)
        else:
            out = out + part
    return at_peak(out, maps[-1])


def at_peak(values: Array, other: Array) -> Array:
    return over_peak(values) * float(np.abs(other).max())


def softmax(values: Array) -> Array:
    exponents = np.exp(values - values.max())
    return np.asarray(exponents / exponents.sum())


def logits(model: Staged, image: Array) -> Array:
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(image)[None])[0].numpy())


def everything(classes: Sequence[Sequence[int]], ask: Callable[[int, int], Array]) -> Array:
    """What `ask` says of each sample and each of its classes, (B, T, *S)."""
    return np.stack([np.stack([ask(sample, number) for number in of]) for sample, of in enumerate(classes)])
