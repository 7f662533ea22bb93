"""The head as an ordinary decoder, and what becomes of a task that is given it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.errors import InputError
from hrcam_lightning.model import LocalizationModel
from hrcam_lightning.pooling import MeanPooling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.geometry import Level
    from hrcam_lightning.retrofit.features import Floats, Reading
    from hrcam_lightning.task import LocalizationTask

NEAR = 2.0
"""Pixels between cells up to which neighbours are read. On the demo set neighbours of deeper levels added little or
nothing, while the penalty's outer products grow with the square of the channels."""


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


def neighbours_of(
    levels: Sequence[Level], taps: Sequence[int], wanted: Sequence[int] | None, *, held: bool
) -> list[int]:
    """The levels of which neighbours are read, by index from 0.

    If none are named, those of the taps whose cells are `NEAR` each other; without a penalty none, for labels alone
    say next to nothing of what neighbours add.

    Args:
        levels: Of the backbone.
        taps: Levels that are read.
        wanted: Levels by index, or nothing.
        held: Whether there is a penalty.

    Raises:
        InputError: If one is not read, or is named twice.
    """
    if wanted is None:
        return [tap for tap in taps if held and max(levels[tap].stride) <= NEAR]
    found = [level % len(levels) for level in wanted if -len(levels) <= level < len(levels)]
    if not set(found) <= set(taps) or len(set(found)) < len(wanted):
        raise InputError(f"neighbours is {list(wanted)}: name levels that are read ({list(taps)}), each once")
    return found


def settings(reading: Reading) -> dict[str, object]:
    """What a retrofitted model's settings have in place of its base's: plain data, as a configuration file has it."""
    return {
        "decoder": {"class_path": f"{HRCAM.__module__}.HRCAM", "init_args": _decoder(reading)},
        "pooling": {"class_path": f"{MeanPooling.__module__}.MeanPooling", "init_args": {}},
        "resampling": reading.resampling,
        "consistency": 0.0,
        "level_loss": 0.0,
    }


def head_of(reading: Reading, weight: Floats, bias: Floats) -> LocalizationModel:
    """The network that was read, with a linear head in place of its decoder and pooling; they share the backbone.

    Args:
        reading: What the head reads.
        weight: (K, C) for the pooled channels as they are.
        bias: (K,).
    """
    like = reading.model.decoder.bias
    decoder = HRCAM(reading.levels, len(bias), **_decoder(reading))
    first = 0
    with torch.no_grad():
        for tap, own in zip(decoder.taps, decoder.weights, strict=True):
            beside = decoder.beside[str(tap)] if tap in decoder.neighbours else own.new_empty(0, *own.shape)
            for term in (own, *beside):
                term.copy_(torch.from_numpy(weight[:, first : first + own.shape[1]]))
                first += own.shape[1]
        decoder.bias.copy_(torch.from_numpy(bias))
    placed = decoder.to(like.device, like.dtype)
    return LocalizationModel(reading.model.backbone, placed, MeanPooling(), reading.resampling)


def install(task: LocalizationTask, reading: Reading, head: LocalizationModel) -> None:
    """Give a task the network with the new head; the backbone stays as it is.

    Args:
        task: Of the frozen network.
        reading: What the head reads.
        head: Of `head_of`.
    """
    task.model = head.train(mode=task.training)
    task.resampling, task.consistency, task.level_loss = reading.resampling, 0.0, 0.0
    task.make_decoder, task.make_pooling = partial(HRCAM, **_decoder(reading)), MeanPooling
    made_from_python = callable(task.hparams["decoder"])  # such settings are given again when the file is loaded
    task.hparams.update(settings(reading))
    if made_from_python:
        task.hparams.update(decoder=task.make_decoder, pooling=task.make_pooling)


def _decoder(reading: Reading) -> dict[str, Any]:
    """Settings of the decoder: neighbours only where some are read, so that older versions know the others."""
    beside = {"neighbours": list(reading.neighbours)} if reading.neighbours else {}
    return {"taps": list(reading.taps), **beside}
