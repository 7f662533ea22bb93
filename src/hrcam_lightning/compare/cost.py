"""What a network costs: its parameters, and its maps beside the backbone alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning.data.readers import read_image
from hrcam_lightning.data.table import read_table
from hrcam_lightning.task import LocalizationTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

ROUNDS = 9


@torch.inference_mode()
def measure(checkpoint: Path, cases: Path) -> tuple[int, float | None]:
    """Count the parameters of a network, and time it on the first image of a set, on the CPU.

    Args:
        checkpoint: Of a run.
        cases: Table of the set.

    Returns:
        Number of parameters, and the time of logits and maps over that of the backbone's features, the quickest of
        9 rounds that take turns; None where images do not come to the network as they are stored and whole, or where
        that fails, as for want of memory: the cost of a network ends no comparison.
    """
    network = LocalizationTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval().network
    parameters = sum(one.numel() for one in network.parameters())
    if not _as_stored(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)):
        return parameters, None
    try:
        voxels = read_image(read_table(cases, labelled=False, allow_outside=True).cases[0].images).voxels
        image = torch.from_numpy(voxels).float()[None]
        ways: dict[str, Callable[[Tensor], object]] = {"features": network.features, "maps": network}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                way(image)
                if number:  # the first warms up
                    times[name].append(time.perf_counter() - started)
    except Exception:  # noqa: BLE001 - whatever a network of one's own may do on the CPU
        return parameters, None
    return parameters, round(min(times["maps"]) / min(times["features"]), 3)


def _as_stored(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the network of a run sees images as they lie on disk: no framing, no slices, no windows."""
    changes = [checkpoint["hyper_parameters"].get("window")]
    for state in checkpoint.values():
        if isinstance(state, dict) and "framing" in state:  # of the data module, whatever its class
            framing = state["framing"]
            changes += [state.get("slices"), *(framing.get(name) for name in ("orientation", "spacing", "shape"))]
    return all(change is None for change in changes)
