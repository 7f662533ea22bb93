"""Explainers of the user's own: a function in a file of theirs, by its dotted name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from torch import Tensor, nn

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


def is_dotted(method: str) -> bool:
    """Whether a method is named as a function in a module: ``my_explainers.saliency``."""
    return "." in method and all(part.isidentifier() for part in method.split("."))


def find(method: str) -> Callable[..., object]:
    """The function of a dotted name. Its module is imported, and so runs.

    Raises:
        InputError: If there is no such module, or no such function in it.
    """
    where, _, name = method.rpartition(".")
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):  # a module that theirs asks for
            raise
        raise InputError(
            f"explainer {method}: there is no module {error.name} on Python's path; if it is a file of this folder, "
            "type `export PYTHONPATH=.` first"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"explainer {method}: {module.__file__ or where} has no function {name}")
    return function  # type: ignore[no-any-return]


def ask(function: Callable[..., object], model: nn.Module, images: Tensor, classes: int, **options: object) -> Tensor:
    """Maps (B, K, *S) float32 of all classes, as the function makes them from network and images (B, C, *S).

    Raises:
        InputError: If what it returns is not that.
    """
    maps = function(model, images, **options)
    wanted = (len(images), classes, *images.shape[2:])
    if not isinstance(maps, Tensor) or maps.shape != wanted:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
        raise InputError(
            f"the explainer {function.__module__}.{function.__name__} returned {got}, but a tensor {wanted} is needed: "
            "a map of every class for each image, at image resolution"
        )
    return maps.detach().float()
