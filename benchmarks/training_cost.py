"""What Lightning and agreement between views cost in training.

``python benchmarks/training_cost.py [SIZE] [BATCH] [CLASSES] [NETWORK]``: the same network (HR-CAM on the default
backbone, or on one of MONAI's by name; mean pooling), optimiser and images in memory. A plain PyTorch loop, our task
under a Trainer without views, with twice the images a step, and with two views of each image take turns, and the median
time of a step is compared: two views cannot cost less than twice the images. So are, under log-sum-exp pooling, one
view, two views, and two with a loss for each level, which the recipe has at first.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch.optim import AdamW
from torch.utils.data import DataLoader

from hrcam_lightning import LocalizationModel, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid, MonaiBackbone
from hrcam_lightning.data.frame import Framing, Grid
from hrcam_lightning.data.module import collate
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.pooling import LogSumExpPooling, MeanPooling

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from hrcam_lightning.backbones import Backbone
    from hrcam_lightning.data.module import Sample

ROUNDS, STEPS = 5, 12


@dataclass(frozen=True)
class Case:
    """What is trained."""

    size: int = 64
    batch: int = 16
    classes: int = 1
    network: str = "ConvPyramid"

    def backbone(self, channels: int = 1, dims: int = 2) -> Backbone:
        """Makes the backbone."""
        if self.network == "ConvPyramid":
            return ConvPyramid(channels, dims)
        return MonaiBackbone(channels, dims, self.network, stem_stride=2)

    def samples(self) -> list[Sample]:
        """Noise with labels, enough for one round of double batches."""
        random = torch.Generator().manual_seed(0)
        images = torch.randn(2 * self.batch * STEPS, 1, self.size, self.size, generator=random)
        mask = torch.zeros(1, self.size, self.size, dtype=torch.bool)
        whole = Framing().of(Grid((self.size, self.size), np.eye(4)))
        found = [0] * (self.classes - 1)
        return [
            {
                "image": image, "label": torch.tensor([index % 2, *found]), "mask": mask, "case": f"case{index}",
                "affine": np.eye(4), "frame": whole,
            }
            for index, image in enumerate(images)
        ]  # fmt: skip


def plain(data: list[Sample], case: Case) -> list[float]:
    """Seconds of each step of a loop that anybody would write."""
    torch.manual_seed(0)
    backbone = case.backbone()
    model = LocalizationModel(backbone, HRCAM(backbone.levels, case.classes), MeanPooling())
    optimizer = AdamW(model.parameters())
    times, start = [], time.perf_counter()
    for found in DataLoader(data[: len(data) // 2], case.batch, collate_fn=collate):  # type: ignore[arg-type]
        loss = F.binary_cross_entropy_with_logits(model.logits(found["image"]), found["label"].float())
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


def ours(data: list[Sample], case: Case, *, double: bool = False, **settings: Any) -> list[float]:  # noqa: ANN401 - those of the task
    """Seconds of each step of our task."""
    clock = Clock()
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "backbone": case.backbone,
        "pooling": MeanPooling,
        "consistency": 0.0,
        "level_loss": 0.0,
        "lr_scheduler": "constant",
        **settings,
    }
    task = LocalizationTask("multilabel", [f"class{number}" for number in range(case.classes)], 1, 2, **given)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    images = data if double else data[: len(data) // 2]
    trainer.fit(task, DataLoader(images, case.batch * (1 + double), collate_fn=collate))  # type: ignore[arg-type]
    return clock.times


def main(size: int = 64, batch: int = 16, classes: int = 1, network: str = "ConvPyramid") -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    case = Case(size, batch, classes, network)
    data = case.samples()
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        times["plain loop"] += plain(data, case)
        times["our task"] += ours(data, case)
        times["twice the images"] += ours(data, case, double=True)
        times["two views"] += ours(data, case, consistency=1.0)
        times["log-sum-exp, one view"] += ours(data, case, pooling=LogSumExpPooling)
        times["log-sum-exp, two views"] += ours(data, case, pooling=LogSumExpPooling, consistency=1.0)
        times["the same at first"] += ours(data, case, pooling=LogSumExpPooling, consistency=1.0, level_loss=1.0)
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    print(f"{network}, {batch} images of {size} x {size} a step, {classes} classes, {torch.get_num_threads()} threads")
    print(f"{'plain loop':24s} {median['plain loop']:8.1f} ms")
    print(
        f"{'our task':24s} {median['our task']:8.1f} ms {median['plain loop'] / median['our task']:6.2f} of its speed"
    )
    for name, base in {
        "twice the images": "our task",
        "two views": "our task",
        "log-sum-exp, two views": "log-sum-exp, one view",
        "the same at first": "log-sum-exp, two views",
    }.items():
        print(f"{name:24s} {median[name]:8.1f} ms {median[name] / median[base]:6.2f} times that of: {base}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:5])  # type: ignore[arg-type]
