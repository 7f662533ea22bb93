"""What Lightning and agreement between views cost in training: ``python benchmarks/training_cost.py [SIZE] [BATCH]``.

The same network (HR-CAM on the default backbone, mean pooling), optimiser and images in memory; a plain PyTorch loop,
our task under a Trainer without views, and our task with views take turns, and the median time of a step is compared.
So are two views under log-sum-exp pooling without and with a loss for each level, which the recipe has at first.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch.optim import AdamW
from torch.utils.data import DataLoader

from hrcam_lightning import LocalizationModel, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.data.frame import Framing, Grid
from hrcam_lightning.data.module import collate
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.pooling import LogSumExpPooling, MeanPooling

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from hrcam_lightning.data.module import Sample

ROUNDS, STEPS = 5, 12


def samples(size: int, batch: int) -> list[Sample]:
    """Noise with labels, enough for one round."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(batch * STEPS, 1, size, size, generator=random)
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    whole = Framing().of(Grid((size, size), np.eye(4)))
    return [
        {"image": image, "label": index % 2, "mask": mask, "case": f"case{index}", "affine": np.eye(4), "frame": whole}
        for index, image in enumerate(images)
    ]


def plain(data: list[Sample], batch: int) -> list[float]:
    """Seconds of each step of a loop that anybody would write."""
    torch.manual_seed(0)
    backbone = ConvPyramid(1, 2)
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 1), MeanPooling())
    optimizer = AdamW(model.parameters())
    times, start = [], time.perf_counter()
    for found in DataLoader(data, batch, collate_fn=collate):  # type: ignore[arg-type]
        loss = F.binary_cross_entropy_with_logits(model.logits(found["image"]), found["label"][:, None].float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(-start + (start := time.perf_counter()))
    return times[2:]


class Clock(Callback):
    """Seconds from the end of one training batch to the end of the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    @property
    def times(self) -> list[float]:
        """Without the first steps, which set up."""
        return [after - before for before, after in zip(self.ends[1:], self.ends[2:], strict=False)]


def ours(data: list[Sample], batch: int, **settings: Any) -> list[float]:  # noqa: ANN401 - those of the task
    """Seconds of each step of our task."""
    clock = Clock()
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "pooling": MeanPooling,
        "consistency": 0.0,
        "level_loss": 0.0,
        "lr_scheduler": "constant",
        **settings,
    }
    task = LocalizationTask("binary", ["a"], 1, 2, **given)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(task, DataLoader(data, batch, collate_fn=collate))  # type: ignore[arg-type]
    return clock.times


def main(size: int = 64, batch: int = 16) -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = samples(size, batch)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        times["plain loop"] += plain(data, batch)
        times["our task"] += ours(data, batch)
        times["with views"] += ours(data, batch, consistency=1.0)
        recipe = {"pooling": LogSumExpPooling, "consistency": 1.0}
        times["recipe"] += ours(data, batch, **recipe)
        times["at first"] += ours(data, batch, **recipe, level_loss=1.0)
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{batch} images of {size} x {size} a step, {torch.get_num_threads()} threads")
    print(f"{'':12s} {'ms':>8s} {'speed':>12s}")
    print(f"{'plain loop':12s} {1000 * median['plain loop']:8.1f}")
    print(f"{'our task':12s} {1000 * median['our task']:8.1f} {median['plain loop'] / median['our task']:6.2f} of it")
    for name, base in {"with views": "our task", "at first": "recipe"}.items():
        print(f"{name:12s} {1000 * median[name]:8.1f} {median[name] / median[base]:6.2f}x time of {base}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
