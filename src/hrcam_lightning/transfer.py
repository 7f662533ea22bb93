"""Starting a network from the weights of another, and what of it is held still."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

Frozen = Literal["none", "statistics", "backbone"]
"""What of a backbone is not trained: nothing, the statistics of its batch norm alone, or all of it."""


def load_matching(model: nn.Module, path: Path, whole: str | None = None) -> str:
    """Take every tensor of a file that a network has by the same name and shape; leave the rest of both as they are.

    A head of other classes is thereby left out, while the backbone is taken (PYLON's transfer between data sets).

    Args:
        model: The network, changed in place.
        path: A checkpoint that `hrcam fit` wrote, or a state dict of the network. It is read without running code.
        whole: A part of the network that must be there whole, such as ``backbone``.

    Returns:
        What was taken and what was not, in one sentence.

    Raises:
        InputError: If the file cannot be read, nothing in it fits, or not all of the part `whole`.
    """
    theirs = _tensors(path)
    own = model.state_dict()
    fitting = {name: theirs[name] for name in own if name in theirs and theirs[name].shape == own[name].shape}
    if not fitting:
        raise InputError(
            f"{path}: none of its {len(theirs)} tensors fits the network by name and shape; give weights of a network "
            "with the same backbone or the same decoder"
        )
    gaps = {name for name in own.keys() - fitting if whole is not None and name.startswith(f"{whole}.")}
    if gaps:
        raise InputError(f"{path}: does not hold the {whole} that is asked for{_named('; it misses ', gaps)}")
    model.load_state_dict(fitting, strict=False)
    sentence = f"{path}: {len(fitting)} of the network's {len(own)} tensors start from it"
    return f"{sentence}{_named('; new: ', own.keys() - fitting)}{_named('; left out: ', theirs.keys() - fitting)}"


def hold_still(backbone: nn.Module, what: Frozen, statistics: bool) -> None:
    """Hold parts of a backbone still; to be called again whenever its training mode was set.

    Args:
        backbone: Changed in place.
        what: See `Frozen`.
        statistics: Whether a frozen ``backbone`` keeps its statistics too. It has no dropout then either.

    Raises:
        InputError: If statistics are to be kept, and there are none.
    """
    if what == "backbone":
        backbone.requires_grad_(requires_grad=False)
        backbone.train(backbone.training and not statistics)
    if what == "statistics":
        norms = [part for part in backbone.modules() if isinstance(part, _NormBase) and part.track_running_stats]
        if not norms:
            raise InputError("model.freeze is statistics, but this backbone has no batch norm whose they would be")
        for norm in norms:
            norm.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights; --model.weights takes the best.ckpt of a run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: holds no weights, is damaged, or would run code when read") from error
    ours = isinstance(content, dict) and "state_dict" in content
    named = content["state_dict"] if ours else content
    if not isinstance(named, dict):
        raise InputError(f"{path}: holds no weights; --model.weights takes the best.ckpt of a run, or a state dict")
    # In a checkpoint of ours the network is the task's `model`, beside thresholds that belong to its data.
    tensors = {str(name).removeprefix("model.") if ours else str(name): value for name, value in named.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor) and name != "thresholds"}


def _named(introduction: str, names: set[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:4])
    return f"{introduction}{len(names)} ({shown}{', ...' if len(names) > 4 else ''})"
