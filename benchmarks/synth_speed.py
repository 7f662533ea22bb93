"""How fast phantoms are drawn and written: ``python benchmarks/synth_speed.py [CASES]``.

Beside them, where MONAI is installed, the content of ``subtle`` composed from MONAI's synthetic images and
transforms: a disc, two smoothed noises as texture, white noise; no d′, no subvoxel place, no truth but the mask.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth import Phantoms, PhantomSpec
from synth.dataset import generate

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGS = Path(__file__).parents[1] / "configs" / "synth"


def per_second(draw: Callable[[int], object], cases: int) -> float:
    """Draw cases in memory, on one core; return cases per second of processor time."""
    draw(0)
    start = time.process_time()
    for index in range(cases):
        draw(index)
    return cases / (time.process_time() - start)


def drawn_per_second(spec: PhantomSpec, cases: int) -> float:
    """Draw phantoms; return cases per second."""
    return per_second(Phantoms(spec, 0).__getitem__, cases)


def monai_per_second(spec: PhantomSpec, cases: int) -> float | None:
    """Draw the content of ``subtle`` with MONAI; return cases per second, or None where it is not installed."""
    try:
        from monai.data.synthetic import create_test_image_2d
        from monai.transforms.intensity.array import GaussianSmooth, RandGaussianNoise
    except ImportError:
        return None
    width, height = spec.shape
    smooths = [GaussianSmooth(part.length_mm / np.sqrt(2)) for part in spec.texture.components]
    noise = RandGaussianNoise(prob=1, std=spec.noise.sd, sample_std=False)

    def draw(index: int) -> object:
        random = np.random.RandomState(index)
        image, mask = create_test_image_2d(width, height, num_objs=1, rad_min=2, rad_max=5, random_state=random)
        image = image[np.newaxis] * 0.1
        for smooth, part in zip(smooths, spec.texture.components, strict=True):
            field = smooth(random.standard_normal((1, *spec.shape)).astype(np.float32))
            image = image + field * (part.sd / float(field.std()))
        noise.set_random_state(index)
        return noise(image), mask

    return per_second(draw, cases)


def written_per_second(spec: PhantomSpec, cases: int, workers: int) -> float:
    """Write a set, the start of the processes included; return cases per second."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(Path(folder), spec, splits={"train": cases}, workers=workers)
        return cases / (time.perf_counter() - start)


def writing_cost(spec: PhantomSpec, cases: int) -> tuple[float, float]:
    """Return the milliseconds a case that writing adds to drawing, and those of gzip at level 1 alone."""
    phantoms = Phantoms(spec, 0)
    drawn = [phantoms[index] for index in range(cases)]
    volumes = [
        volume for case in drawn for volume in (case.image, *(m.astype(np.uint8) for m in case.masks if m.any()))
    ]
    raw = [b"".join([bytes(352), np.asfortranarray(volume).tobytes("F")]) for volume in volumes]  # header, voxels
    start = time.process_time()
    for content in raw:
        gzip.compress(content, compresslevel=1, mtime=0)
    packed = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        generate(Path(folder), spec, splits={"train": cases})
        written = time.process_time() - start
    return 1000 * (written / cases - 1 / drawn_per_second(spec, cases)), 1000 * packed / cases


def main(cases: int = 2000) -> None:
    """Print the table."""
    demo = PhantomSpec.from_yaml(CONFIGS / "demo.yaml")
    cube = {"shape": [96, 96, 96], "spacing_mm": [1.0, 1.0, 1.0]}
    head = PhantomSpec.from_yaml(CONFIGS / "demo3d.yaml", cube)
    subtle = PhantomSpec.from_yaml(CONFIGS / "subtle.yaml")
    print(f"in memory, demo 64x64      {drawn_per_second(demo, cases):8.1f} cases/s per core")
    print(f"in memory, subtle 128x128  {drawn_per_second(subtle, cases // 2):8.1f} cases/s per core")
    other = monai_per_second(subtle, cases // 4)
    text = f"{other:8.1f} cases/s per core" if other else "not installed"
    print(f"the like of it by MONAI    {text}")
    print(f"in memory, head 96x96x96   {drawn_per_second(head, max(1, cases // 50)):8.1f} cases/s per core")
    added, packed = writing_cost(subtle, max(1, cases // 4))
    print(f"writing subtle adds        {added:8.2f} ms a case; gzip at level 1 alone takes {packed:.2f} ms")
    # In turns, and the best of each: another process on one of two cores would halve the gain of the second worker.
    turns = [[written_per_second(demo, 2 * cases, workers) for workers in (1, 2)] for _ in range(3)]
    one, two = map(max, zip(*turns, strict=True))
    print(f"generate, demo, 1 worker   {one:8.1f} cases/s")
    print(f"generate, demo, 2 workers  {two:8.1f} cases/s ({two / one:.2f} times)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
