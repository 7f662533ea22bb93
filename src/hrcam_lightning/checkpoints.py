"""Looking at a checkpoint before anything is built from it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jsonargparse import Namespace

# What a trained network may be given anew: none of it shapes weights.
SWITCHES = (
    "consistency",
    "level_loss",
    "full_skill",
    "views",
    "view_averaging",
    "window",
    "window_overlap",
    "optimizer",
    "lr_scheduler",
    "stop_rate",
    "weights",
)


def find_checkpoint(name: str, root: str) -> Path:
    """The file that ``--ckpt_path`` means: a path, or ``best`` or ``last`` of the run folder.

    Raises:
        InputError: If it is missing, damaged, not one of ours, or would run code when it is read.
    """
    path = Path(root) / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: is not a checkpoint, is damaged, or would run code when read") from error
    if not _is_ours(content):
        raise InputError(f"{path}: holds no run of hrcam; give the best.ckpt or last.ckpt that hrcam fit has written")
    return path


def _is_ours(content: Any) -> bool:  # noqa: ANN401 - whatever a file may hold
    keys = {"state_dict", "pytorch-lightning_version", "hyper_parameters"}
    return isinstance(content, dict) and keys <= content.keys() and "classes" in content["hyper_parameters"]


def honour_switches(given: Iterable[str], asked: Namespace, merged: Namespace) -> None:
    """Let ``--model.KEY`` on the command line win over a checkpoint where that is possible.

    Lightning lets the checkpoint's settings win, silently.

    Args:
        given: Words of the command line.
        asked: The model section as the user wrote it.
        merged: The same after the checkpoint's settings were merged in; changed in place.

    Raises:
        InputError: If an option asks for another network than the trained one.
    """
    keys = {
        word.removeprefix("--model.").partition("=")[0].split(".")[0] for word in given if word.startswith("--model.")
    }
    for key in sorted(keys):
        if key in SWITCHES:
            merged[key] = asked[key]
        elif asked[key] != merged[key]:
            raise InputError(
                f"the checkpoint was trained with another --model.{key}; leave the option out, or train anew with it"
            )
