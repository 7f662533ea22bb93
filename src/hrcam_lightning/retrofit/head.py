"""The head as an ordinary decoder, and what becomes of a task that is given it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.errors import InputError
from hrcam_lightning.model import LocalizationModel
from hrcam_lightning.pooling import MeanPooling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.geometry import Level, Resampling
    from hrcam_lightning.retrofit.features import Floats
    from hrcam_lightning.task import LocalizationTask


def taps_of(levels: Sequence[Level], wanted: Sequence[int] | None) -> list[int]:
    """The levels to read, by index from 0; all of them if none are named.

    Raises:
        InputError: If one is not there, or is named twice.
    """
    chosen = list(range(len(levels))) if wanted is None else list(wanted)
    there = range(-len(levels), len(levels))
    taps = [level % len(levels) for level in chosen if level in there]
    if not chosen or len(set(taps)) < len(chosen):
        raise InputError(
            f"levels is {chosen}, but the backbone has levels 0 to {len(levels) - 1}: name some of these, each once"
        )
    return taps


def settings(taps: Sequence[int], resampling: Resampling) -> dict[str, object]:
    """What a retrofitted model's settings have in place of its base's: plain data, as a configuration file has it."""
    return {
        "decoder": {"class_path": f"{HRCAM.__module__}.HRCAM", "init_args": {"taps": list(taps)}},
        "pooling": {"class_path": f"{MeanPooling.__module__}.MeanPooling", "init_args": {}},
        "resampling": resampling,
        "consistency": 0.0,
    }


def install(task: LocalizationTask, taps: Sequence[int], resampling: Resampling, weight: Floats, bias: Floats) -> None:
    """Give a task a linear head in place of its decoder and pooling; the backbone stays as it is.

    Args:
        task: Of the frozen network.
        taps: Levels that the head reads.
        resampling: Where their cells are taken to lie.
        weight: (K, C) for the pooled channels of these levels as they are.
        bias: (K,).
    """
    backbone = task.network.backbone
    decoder = HRCAM(backbone.levels, len(bias), taps)
    first = 0
    with torch.no_grad():
        for own in decoder.weights:
            own.copy_(torch.from_numpy(weight[:, first : first + own.shape[1]]))
            first += own.shape[1]
        decoder.bias.copy_(torch.from_numpy(bias))
    like = task.network.decoder.bias
    model = LocalizationModel(backbone, decoder.to(like.device, like.dtype), MeanPooling(), resampling)
    task.model = model.train(mode=task.training)
    task.resampling, task.consistency = resampling, 0.0
    task.make_decoder, task.make_pooling = partial(HRCAM, taps=list(taps)), MeanPooling
    made_from_python = callable(task.hparams["decoder"])  # such settings are given again when the file is loaded
    task.hparams.update(settings(taps, resampling))
    if made_from_python:
        task.hparams.update(decoder=task.make_decoder, pooling=task.make_pooling)
