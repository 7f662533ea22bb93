"""What all scores cost beside the forward passes: ``python benchmarks/metrics_cost.py CKPT [CASES] [SIZE]``.

CKPT is of a network trained on ``configs/synth/demo.yaml``, such as ``runs/demo/best.ckpt``; it sees phantoms of that
specification at SIZE². Passes and scores take turns batch by batch, so that both meet the same machine; what is
counted is CPU time of one thread. Scores are all of `CaseScores`, of the model's map and of the two floors that every
test shows beside it, at thresholds from other phantoms, and the figures at the end with their 1,000 resamples. Drawing
phantoms and writing files belong to neither.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from hrcam_lightning import LocalizationTask
from hrcam_lightning.callbacks.explainers import MODEL, explainers_of
from hrcam_lightning.callbacks.localization import DEFAULT, one_hot
from hrcam_lightning.data.module import collate
from hrcam_lightning.data.normalization import Normalization, Scaling
from hrcam_lightning.data.phantoms import PhantomDataset
from hrcam_lightning.metrics import CaseScores
from synth import Phantoms, PhantomSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hrcam_lightning.metrics.table import ScoreTable

BATCH, VALIDATION = 16, 96


class Stopwatch:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add what happens within."""
        start = time.thread_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.thread_time() - start


def scored(
    task: LocalizationTask, phantoms: PhantomDataset, limits: Mapping[str, list[float]], watch: Stopwatch
) -> dict[str, ScoreTable]:
    """The scores of all phantoms: of the model's map and of the floors, by name."""
    floors = explainers_of(DEFAULT)
    scores = {name: CaseScores(limits.get(name)) for name in (MODEL, *(floor.name for floor in floors))}
    for batch in DataLoader(phantoms, BATCH, collate_fn=collate):
        with watch("one pass"):
            task.network(batch["image"])
        with watch("passes"):
            output = task(batch["image"])
        maps = {MODEL: output.maps, **{floor.name: floor.maps(task.network, batch["image"]) for floor in floors}}
        for name, some in scores.items():
            with watch(name):
                labels = one_hot(batch["label"], 1)
                some.update(batch["case"], labels, task.probabilities(output.logits), maps[name], batch["mask"])
    tables = {}
    for name, some in scores.items():
        with watch(name):
            tables[name] = some.compute()
    return tables


@torch.inference_mode()
def main(checkpoint: str, cases: int = 2000, size: int = 128) -> None:
    """Print seconds and shares."""
    torch.set_num_threads(1)
    task = LocalizationTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    spec = PhantomSpec.from_yaml("configs/synth/demo.yaml", {"shape": [size, size]})

    def phantoms(first: int, count: int) -> PhantomDataset:
        return PhantomDataset(Phantoms(spec, seed=1), first, count, Scaling(Normalization("zscore")))

    before = scored(task, phantoms(cases, VALIDATION), {}, Stopwatch())
    points = {name: table.operating_points() for name, table in before.items()}
    watch = Stopwatch()
    tables = scored(task, phantoms(0, cases), {name: some["overlap"] for name, some in points.items()}, watch)
    for name, table in tables.items():
        with watch(name):
            table.localization(before[name].thresholds(), operating_points=points[name])
    passes = watch.seconds["passes"]
    watch.seconds["all scores"] = sum(watch.seconds[name] for name in tables)
    print(f"{cases} cases of {size} x {size}, flips averaged: {task.view_averaging}")
    for name, seconds in watch.seconds.items():
        print(f"{name:10} {seconds:7.2f} s, {100 * seconds / passes:6.1f} % of the passes")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
