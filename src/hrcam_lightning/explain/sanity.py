"""The sanity check: what is left of a map when the network forgets, from its output backwards."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torchmetrics.functional.image import structural_similarity_index_measure

from hrcam_lightning.explain.fusion import unit_range
from hrcam_lightning.explain.methods import explain
from hrcam_lightning.explain.null import randomize, seeded
from hrcam_lightning.explain.probe import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


class Stage(NamedTuple):
    """How a map still resembles the original one.

    Attributes:
        layer: The layer that has lost its weights at this stage, as all those before it have.
        spearman: (B,), rank correlation over the pixels, with its sign; NaN if either map is flat or not finite.
        ssim: (B,), structural similarity of the maps, each brought to 0..1 (a flat one to 0); NaN if not finite.
    """

    layer: str
    spearman: Tensor
    ssim: Tensor


def sanity_check(
    model: nn.Module,
    images: Tensor,
    method: str = "gradcam",
    *,
    target: int | Tensor,
    seed: int = 0,
    **settings: Any,  # noqa: ANN401 - whatever `explain` takes
) -> list[Stage]:
    """Cascading randomization (Adebayo et al., NeurIPS 2018): an explainer whose map survives does not explain.

    The network is a copy. Layers lose their weights from the output backwards, in the reverse of the order in which
    modules that hold parameters are called (the last call counts); parameters of modules that are not called go with
    the module around them. "Lost" is as in `hrcam_lightning.explain.null.randomize`.

    Args:
        model: Any network, as for `explain`.
        images: (B, C, *S).
        method: Of `explain`.
        target: A class, or a class a sample (B,).
        seed: Of the random weights.
        **settings: Of `explain`.

    Returns:
        A stage a layer; at the last one the network has learnt nothing.
    """

    def maps_of(network: nn.Module) -> Tensor:
        return explain(network, images, method, target=target, **settings)

    original = maps_of(model)
    with torch.inference_mode(mode=False):  # parameters made under it could be given no gradient
        forgetful = copy.deepcopy(model)
    stages = []
    with seeded(seed):
        for layer, modules in layers_from_the_output(forgetful, images).items():
            randomize(modules)
            maps = maps_of(forgetful)
            stages.append(Stage(layer, spearman(original, maps), ssim(original, maps)))
    return stages


def layers_from_the_output(model: nn.Module, images: Tensor) -> dict[str, list[nn.Module]]:
    """Modules that hold parameters, the last called first, each with those inside it that are never called."""
    calls: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, object], None]:
        return lambda _module, _inputs: calls.append(name)

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in model.named_modules()]
    try:
        with undisturbed(model, images), torch.no_grad():
            model(images[:1].detach().clone())
    finally:
        for handle in handles:
            handle.remove()
    order = {name: place for place, name in enumerate(calls)}
    found: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            host = name
            while host not in order:
                host = host.rpartition(".")[0]
            found.setdefault(host, []).append(module)
    return {name: found[name] for name in sorted(found, key=order.__getitem__, reverse=True)}


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of maps (B, 1, *S), equal values at their mean rank, (B,); NaN if one is flat or not finite."""
    ranks = [rankdata(maps.flatten(1).double().cpu().numpy(), axis=1) for maps in (first, second)]
    one, other = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return torch.from_numpy(values).to(first).masked_fill(_unfit(first, second), torch.nan)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of maps (B, 1, *S), each brought to 0..1, (B,).

    A Gaussian window of sigma 1.5 over 11 pixels, smaller where the image has fewer than 6 along an axis.
    """
    reach = min(5, *(n - 1 for n in first.shape[2:]))
    sigma = 1.5 if reach == 5 else (reach + 0.4) / 3.5  # torchmetrics' window reaches 3.5 sigma, rounded
    values = structural_similarity_index_measure(
        unit_range(first), unit_range(second), sigma=sigma, kernel_size=2 * reach + 1, data_range=1.0, reduction="none"
    )
    assert isinstance(values, torch.Tensor)
    return values.view(-1).masked_fill(_unfit(first, second), torch.nan)


def _unfit(first: Tensor, second: Tensor) -> Tensor:
    return ~(first.flatten(1).isfinite().all(1) & second.flatten(1).isfinite().all(1))
