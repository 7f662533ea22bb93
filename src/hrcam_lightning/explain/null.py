"""Null explainers: maps that have not seen the disease. A method must beat them to have found anything."""

from __future__ import annotations

import copy
import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

_BINS = 256


def random_maps(images: Tensor) -> Tensor:
    """Uniform noise in 0..1, (B, 1, *S), for images (B, C, *S).

    An image's noise follows from its content, so that it is the same in whatever batch, order or process.
    """
    maps = np.empty((len(images), 1, *images.shape[2:]), dtype=np.float32)
    for noise, image in zip(maps, images.detach().float().cpu().numpy(), strict=True):
        seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:8], "little")
        noise[:] = np.random.default_rng(seed).random(noise.shape, dtype=np.float32)
    return torch.from_numpy(maps)


def center_maps(images: Tensor) -> Tensor:
    """Minus the distance to the middle of the image in half widths, (B, 1, *S): "it is where it mostly is"."""
    size = images.shape[2:]
    axes = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) / (n / 2) for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    distance: Tensor = torch.linalg.vector_norm(grid, dim=0)
    return (-distance).expand(len(images), 1, *size).clone()


def edge_maps(images: Tensor) -> Tensor:
    """Magnitude of the image's gradient, by central differences, the mean over its channels (B, 1, *S).

    Adebayo et al. (NeurIPS 2018) found several explainers to be little else.
    """
    axes = [axis for axis in range(2, images.ndim) if images.shape[axis] > 1]
    slopes = torch.gradient(images.float(), dim=axes) if axes else [torch.zeros_like(images, dtype=torch.float32)]
    return torch.stack(list(slopes)).square().sum(0).sqrt().mean(1, keepdim=True)


def intensity_maps(images: Tensor) -> Tensor:
    """The image itself, the mean of its channels (B, 1, *S): "it is where it is bright"."""
    return images.float().mean(1, keepdim=True)


def foreground_maps(images: Tensor) -> Tensor:
    """1 where the image is above Otsu's threshold (IEEE Trans. SMC 1979), 0 elsewhere, (B, 1, *S).

    The threshold is each image's own, from 256 bins of the mean of its channels; a flat image has no foreground.
    """
    means = intensity_maps(images).cpu().numpy()
    maps = np.stack([values >= otsu(values) if np.isfinite(values).all() else values * np.nan for values in means])
    return torch.from_numpy(maps.astype(np.float32))


def otsu(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """The lowest value of the upper of two classes with the largest variance between them; infinite without two."""
    counts, edges = np.histogram(values, _BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    below, moments = counts.cumsum(), (counts * middles).cumsum()
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = moments / below - (moments[-1] - moments) / above
    between = np.where(above > 0, below * above * gap**2, 0)[:-1]
    return float(edges[1:][between.argmax()]) if between.max() > 0 else np.inf


NULLS = {
    "random": random_maps,
    "center": center_maps,
    "edge": edge_maps,
    "intensity": intensity_maps,
    "foreground": foreground_maps,
}
"""Maps of the image alone, the same for every class."""

FLOORS = (*NULLS, "random_weights")
"""What a map should beat to have found anything."""


def with_random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a network that has learnt nothing: every layer as before training, drawn by a seed.

    Adebayo et al. (NeurIPS 2018): an explainer whose maps survive this does not explain the network.
    """
    fresh = copy.deepcopy(model)
    with seeded(seed):
        randomize(fresh.modules())
    return fresh


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw by a seed for the time of a block; the random state of all devices is afterwards as it was."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def randomize(modules: Iterable[nn.Module]) -> None:
    """Bring the parameters that modules themselves hold to where they begin, drawn from torch's random state.

    The values of a module that does not say how it begins are shuffled.
    """
    with torch.no_grad():
        for module in modules:
            own = list(module.parameters(recurse=False))
            begin = getattr(module, "reset_parameters", None)
            if callable(begin) and (own or any(True for _ in module.buffers(recurse=False))):
                begin()
            else:
                for parameter in own:
                    order = torch.randperm(parameter.numel()).to(parameter.device)
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))
