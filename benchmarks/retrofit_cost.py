"""What a retrofit costs beside a forward pass over its cases.

``python benchmarks/retrofit_cost.py [CASES] [NETWORK] [SPEC]``: phantoms of the demo set, or of another specification,
in memory, a network of MONAI with random weights (the cost does not depend on them), 64 validation cases. The published
form and the default are compared with the forward pass alone, in the same run; both include the choice of λ and L2 and
the solver. Processor time counts threads that wait for each other, so that ``OMP_NUM_THREADS=1`` tells most.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import MonaiBackbone
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.data.module import collate
from hrcam_lightning.decoders import CAM
from hrcam_lightning.pooling import MeanPooling
from hrcam_lightning.retrofit.choice import RIDGES, STRENGTHS, candidates, choose
from hrcam_lightning.retrofit.equivariance import Equivariance, Sampling
from hrcam_lightning.retrofit.features import Reading, on_disk
from hrcam_lightning.retrofit.gather import Gathered, aim, gather
from hrcam_lightning.retrofit.head import head_of, neighbours_of
from hrcam_lightning.retrofit.solver import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.data import Batch

    Sample = dict[str, Any]

SPEC = Path(__file__).parents[1] / "configs" / "synth" / "demo.yaml"
BATCH, VALIDATION = 16, 64


def draw(cases: int, spec: str) -> list[Sample]:
    """Phantoms."""
    data = PhantomDataModule(spec, counts={"train": cases}).dataset("train")
    return [data[index] for index in range(cases)]


def batched(samples: list[Sample]) -> list[Batch]:
    """Batches of them, in order."""
    return [collate(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]


@torch.no_grad()
def forward(model: LocalizationModel, batches: list[Batch]) -> None:
    """The pass that anybody needs."""
    for batch in batches:
        model.logits(batch["image"])


def retrofit(model: LocalizationModel, samples: list[Sample], batches: list[Batch], *, cured: bool) -> None:
    """All of the second stage."""
    levels = model.backbone.levels
    taps = list(range(len(levels)))
    reading = Reading(model, taps, "receptive_field", neighbours_of(levels, taps, None, held=cured))
    views = Equivariance(reading, Sampling()) if cured else None

    def read(part: list[Batch], cases: int, penalty: Equivariance | None) -> Gathered:
        with on_disk(Path(tempfile.gettempdir()), cases, reading.channels) as values:
            return gather(part, reading, values, penalty)

    training = read(batches, len(samples), views)
    validation = read(batches[: VALIDATION // BATCH], VALIDATION, None)
    matrices = views.matrices() if views else None
    problem = Problem.of(training.pooled, "binary", ["lesion"], matrices, reading.owners)
    if views:
        first = problem.solve(sorted(RIDGES)[len(RIDGES) // 2], max(STRENGTHS))
        numbers = views.sampling.aims([bool(label) for label in training.pooled.labels])
        head = head_of(reading, *problem.folded(first))
        aim(batched([samples[number] for number in numbers]), numbers, head, views, lambda _: [0])
        problem = problem.held(views.matrices(), reading.owners)
    choose(candidates(problem, validation.pooled, STRENGTHS if cured else (0.0,), RIDGES))


def main(cases: int = 2000, network: str = "resnet18", spec: str = str(SPEC)) -> None:
    """Print the table."""
    torch.manual_seed(0)
    backbone = MonaiBackbone(1, 2, network, stem_stride=2)
    model = LocalizationModel(backbone, CAM(backbone.levels, 1), MeanPooling()).eval()
    samples = draw(cases, spec)
    batches = batched(samples)
    forward(model, batches[:4])
    processor, clock = {}, {}
    runs: dict[str, Callable[[], None]] = {
        "one forward pass": lambda: forward(model, batches),
        "as published": lambda: retrofit(model, samples, batches, cured=False),
        "with the penalty": lambda: retrofit(model, samples, batches, cured=True),
    }
    for name, run in runs.items():
        start, started = time.process_time(), time.perf_counter()
        run()
        processor[name], clock[name] = time.process_time() - start, time.perf_counter() - started
    rule = Sampling()
    found = sum(bool(sample["label"]) for sample in samples)
    looked = (3 * min(rule.cases, cases) + min(rule.aimed, found)) * rule.draws
    print(f"{network}, {cases} cases; the penalty looks at {looked} patches and views ({looked / cases:.1f} passes)")
    print(f"{torch.get_num_threads()} threads; processor time, then the clock's")
    for name in runs:
        cells = [f"{s[name]:7.1f} s {s[name] / s['one forward pass']:6.2f} passes" for s in (processor, clock)]
        print(f"{name:18s} {'   '.join(cells)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])  # type: ignore[arg-type]
