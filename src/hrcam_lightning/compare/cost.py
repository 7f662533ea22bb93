"""What a network costs: its parameters, and its maps beside the backbone alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from hrcam_lightning.data.readers import read_image
from hrcam_lightning.data.table import read_table
from hrcam_lightning.errors import InputError
from hrcam_lightning.task import LocalizationTask

if TYPE_CHECKING:
    from collections.abc import Callable
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
        9 rounds that take turns; None where images do not come to the network as they are stored.
    """
    network = LocalizationTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval().network
    parameters = sum(one.numel() for one in network.parameters())
    try:
        voxels = read_image(read_table(cases, allow_outside=True).cases[0].images).voxels
        image = torch.from_numpy(voxels).float()[None]
        ways: dict[str, Callable[[Tensor], object]] = {"features": network.features, "maps": network}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                way(image)
                if number:  # the first warms up
                    times[name].append(time.perf_counter() - started)
    except InputError:  # slices of volumes, a framing, a table that only the run's settings can read
        return parameters, None
    return parameters, round(min(times["maps"]) / min(times["features"]), 3)
