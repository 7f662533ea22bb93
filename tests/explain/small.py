"""Tiny networks and images that the tests of the explainers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hrcam_lightning.explain import FLOORS, NAMES, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = 4
ANY_NETWORK = tuple(name for name in NAMES if name != "model")
"""What explains a network that is not ours; mean pooling and one dense layer follow, so that CAM is among them."""
LOOKING = tuple(name for name in ANY_NETWORK if name not in FLOORS or name == "random_weights")
"""What looks into the network."""
OPTIONS: dict[str, dict[str, Any]] = {"occlusion": {"patch": 4, "step": 4}}
"""Fewer passes."""
SIZES = {2: (16, 12), 3: (8, 12, 8)}


def network(dims: int = 2, *, classes: int = CLASSES, bias: bool = True, seed: int = 10) -> nn.Sequential:
    """Three resolutions, mean pooling and a dense layer; with `bias` also batch norm as after training, and dropout."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        conv, norm, drop = (
            (nn.Conv2d, nn.BatchNorm2d, nn.Dropout2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.Dropout3d)
        )
        parts: list[nn.Module] = []
        for inputs, outputs, stride in ((2, 4, 1), (4, 6, 2), (6, 6, 2)):
            parts.append(conv(inputs, outputs, 3, stride, 1, bias=bias))
            if bias:
                made = norm(outputs)
                nn.init.normal_(made.running_mean, std=0.2)  # type: ignore[arg-type]
                nn.init.uniform_(made.running_var, 0.1, 0.5)  # type: ignore[arg-type]
                parts += [made, nn.ReLU(inplace=True), drop(0.3)]
            else:
                parts.append(nn.ReLU())
        pool = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool3d(1)
        head = nn.Linear(6, classes, bias=bias)
        nn.init.normal_(head.weight)
        return nn.Sequential(nn.Sequential(*parts), pool, nn.Flatten(), head).eval()


def maps(model: nn.Module, pictures: Tensor, name: str, **settings: Any) -> Tensor:
    """`explain`, in few passes."""
    return explain(model, pictures, name, **{**OPTIONS.get(name, {}), **settings})


def layers_of(model: nn.Module) -> list[str]:
    """The activations at each of the three resolutions."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]


def images(batch: int, dims: int = 2, size: Sequence[int] | None = None) -> Tensor:
    return torch.randn(batch, 2, *(size or SIZES[dims]), generator=torch.Generator().manual_seed(batch))


def near(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    """Both maps differ by no more than a share of each map's peak, NaN being NaN."""
    assert one.shape == other.shape
    peak = other.abs().flatten(2).amax(-1)
    gap = (one - other).abs().flatten(2).amax(-1)
    assert bool((gap <= tolerance * peak).all()), f"{(gap / peak).max():.3g} of the peak"
