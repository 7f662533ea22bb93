"""How fast phantoms are drawn and written: ``python benchmarks/synth_speed.py [CASES]``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from synth import Phantoms, PhantomSpec
from synth.dataset import generate

CONFIGS = Path(__file__).parents[1] / "configs" / "synth"


def drawn_per_second(spec: PhantomSpec, cases: int) -> float:
    """Draw cases in memory, on one core; return cases per second."""
    phantoms = Phantoms(spec, 0)
    phantoms[0]
    start = time.perf_counter()
    for index in range(cases):
        phantoms[index]
    return cases / (time.perf_counter() - start)


def written_per_second(spec: PhantomSpec, cases: int, workers: int) -> float:
    """Write a set, the start of the processes included; return cases per second."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(Path(folder), spec, splits={"train": cases}, workers=workers)
        return cases / (time.perf_counter() - start)


def main(cases: int = 2000) -> None:
    """Print the table."""
    demo = PhantomSpec.from_yaml(CONFIGS / "demo.yaml")
    cube = {"shape": [96, 96, 96], "spacing_mm": [1.0, 1.0, 1.0]}
    head = PhantomSpec.from_yaml(CONFIGS / "demo3d.yaml", cube)
    print(f"in memory, demo 64x64      {drawn_per_second(demo, cases):8.1f} cases/s per core")
    print(f"in memory, head 96x96x96   {drawn_per_second(head, max(1, cases // 50)):8.1f} cases/s per core")
    one, two = (written_per_second(demo, cases, workers) for workers in (1, 2))
    print(f"generate, demo, 1 worker   {one:8.1f} cases/s")
    print(f"generate, demo, 2 workers  {two:8.1f} cases/s ({two / one:.2f} times)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
