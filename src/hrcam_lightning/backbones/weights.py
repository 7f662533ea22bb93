"""Weights from a file, checked before they are used."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a state dict, or a checkpoint that holds one as ``state_dict``, without running code from the file.

    Args:
        path: A file of ``torch.save`` or, where safetensors is installed, a ``.safetensors`` file.

    Raises:
        InputError: If the file is missing, damaged, would run code, or holds no weights.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file of weights")
    content = _read(path)
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise InputError(f"{path}: holds no state dict; save the network's with torch.save(network.state_dict(), ...)")
    return content


def _read(path: str) -> Any:  # noqa: ANN401 - whatever a file may hold
    if path.endswith(".safetensors"):
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise InputError(f"{path}: needs safetensors: pip install safetensors") from error
        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: is no file of weights, is damaged, or would run code when read; save a plain state dict"
        ) from error


def load_weights(network: nn.Module, path: str, unused: Sequence[str] = ()) -> None:
    """Load weights that fit a network exactly, see `fitting_weights`.

    Args:
        network: Changed in place.
        path: See `read_weights`.
        unused: Modules that the file may hold and the network has given up, such as its classifier.

    Raises:
        InputError: If the weights do not fit.
    """
    expected = network.state_dict()
    found = fitting_weights(expected, path, unused)
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise InputError(
                f"{path}: {name} is {tuple(found[name].shape)}, but {tuple(value.shape)} in the network: "
                "give weights for the same channels and axes"
            )
    network.load_state_dict(found)


def fitting_weights(expected: Mapping[str, Tensor], path: str, unused: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read weights under the names that a network expects, none more and none less.

    All names in the file may have a prefix, such as ``module.``; and there may be more in it without that prefix, as in
    a checkpoint.

    Args:
        expected: The network's state dict.
        path: See `read_weights`.
        unused: Modules that the file may hold beyond the network.

    Raises:
        InputError: If the names are not the network's.
    """
    found = read_weights(path)
    prefix = _prefix(found, expected)
    beyond = tuple(f"{module}." for module in unused)
    found = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    found = {name: value for name, value in found.items() if not name.startswith(beyond)}
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        gaps = [f"misses {missing[0]} (of {len(missing)})"] if missing else []
        gaps += [f"has {unexpected[0]} (of {len(unexpected)}) beyond it"] if unexpected else []
        raise InputError(f"{path}: does not fit the network: it {' and '.join(gaps)}; give the weights of this network")
    return found


def _prefix(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What stands before all the names of a network in a file, such as ``module.``; nothing if they do not fit."""
    first = next(iter(expected), "")
    candidates = [name.removesuffix(first) for name in found if name == first or name.endswith(f".{first}")]
    return next((prefix for prefix in candidates if all(prefix + name in found for name in expected)), "")
