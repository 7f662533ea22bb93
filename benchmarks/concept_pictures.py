"""The pictures of docs/concepts.md: ``python benchmarks/concept_pictures.py [CAM HRCAM OURS]``, into docs/images.

The three are run folders of ``configs/cam.yaml``, ``configs/hrcam_mean.yaml`` and ``configs/demo.yaml``; without them
only the pictures that need no network are drawn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hrcam_lightning import LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.metrics import peak_displacements
from synth import Phantoms, PhantomSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
SPECS = ROOT / "configs/synth"
TRUTH = "#00b050"
NAMES = ("CAM", "HR-CAM, plain", "our HR-CAM recipe")
DPRIMES = (0.0, 2.0, 4.0, 6.0, 9.0)
FIRST_TEST, TESTS = 4400, 400  # of configs/synth/demo.yaml
SHOWN = 4


def main(runs: list[str]) -> None:
    """Draw what can be drawn."""
    mpl.rcParams["font.size"] = 9
    subtlety(IMAGES / "dprime.png")
    cells(IMAGES / "cells.png")
    if runs:
        drift([Path(run) for run in runs], IMAGES / "drift.png", IMAGES / "displacement.png")


def subtlety(path: Path, index: int = 3) -> None:
    """The same lesion at the same place in the same texture, ever plainer."""
    figure = _figure(2 * len(DPRIMES), 2.3)
    limits = None
    for axes, dprime in zip(figure.subplots(1, len(DPRIMES)), DPRIMES, strict=True):
        spec = PhantomSpec.from_yaml(SPECS / "subtle.yaml", {"lesions.lesion.dprime": dprime, "prevalence": 1.0})
        case = Phantoms(spec, seed=0)[index]
        limits = limits or (case.image.min(), case.image.max() * 1.1)  # one scale of grey for all
        _show(axes, case.image, f"d′ = {dprime:g}", limits=limits)
        if dprime == DPRIMES[-1]:
            _outline(axes, case.masks[0])
    _save(figure, path)


def cells(path: Path, pixels: int = 33) -> None:
    """Where the cells of each level look, and where half-pixel upsampling takes them to be."""
    figure = _figure(8, 2.2)
    axes = figure.subplots()
    levels = ConvPyramid(channels=1, dims=2, depth=5).levels
    for row, level in enumerate(levels):
        stride, offset = level.stride[0], level.offset[0]
        look = offset + stride * np.arange(pixels // stride + 1)
        taken = (stride - 1) / 2 + stride * np.arange(pixels // stride)
        axes.plot(look, np.full_like(look, row), "o", color="black", markersize=5)
        axes.plot(taken, np.full_like(taken, row), "x", color="#d62728", markersize=6)
    axes.set(
        xlim=(-1, pixels), ylim=(len(levels) - 0.5, -0.5), xlabel="pixel of the image", yticks=range(len(levels)),
        yticklabels=[f"stride {level.stride[0]:g}" for level in levels],
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def drift(runs: list[Path], maps_path: Path, scatter_path: Path) -> None:
    """Maps of three networks on the same unseen phantoms, and where their peaks lie from the lesions."""
    data = PhantomDataModule(str(SPECS / "demo.yaml"))
    cases = [data.dataset("test")[index] for index in range(TESTS)]
    images = torch.stack([case["image"] for case in cases])
    masks = torch.stack([case["mask"] for case in cases])
    evidence = [_evidence(run, images) for run in runs]
    chosen = masks.flatten(1).any(1).nonzero().flatten().tolist()[: SHOWN - 1]
    chosen.append(int((~masks.flatten(1).any(1)).nonzero()[0]))  # and one without a lesion

    figure = _figure(1.9 * (len(runs) + 1), 1.9 * SHOWN + 0.3)
    grid = figure.subplots(SHOWN, len(runs) + 1)
    for row, index in zip(grid, chosen, strict=True):
        _show(row[0], images[index, 0].numpy(), "image, truth" if index == chosen[0] else "")
        for axes, name, maps in zip(row[1:], NAMES, evidence, strict=True):
            limit = float(maps[masks.flatten(1).any(1)].flatten(1).amax(1).quantile(0.9))
            _show(axes, maps[index, 0].numpy(), name if index == chosen[0] else "", "RdBu_r", (-limit, limit))
            place = np.unravel_index(int(maps[index, 0].argmax()), maps.shape[2:])
            if masks[index].any():
                axes.plot(*place, "+", color="black", markersize=9)
        for axes in row:
            if masks[index].any():
                _outline(axes, masks[index, 0].numpy())
    _save(figure, maps_path)

    figure = _figure(2.6 * len(runs), 3.3)
    for axes, name, maps in zip(figure.subplots(1, len(runs), sharey=True), NAMES, evidence, strict=True):
        found = peak_displacements(maps, masks).reshape(-1, 2)
        found = found[found.isfinite().all(1)]
        axes.axhline(0, color="0.8", linewidth=0.8)
        axes.axvline(0, color="0.8", linewidth=0.8)
        axes.plot(found[:, 0], found[:, 1], ".", color="#1f77b4", markersize=3)
        axes.set(title=name, xlim=(-25, 25), ylim=(-25, 25), aspect="equal", xlabel="pixels from the lesion")
        beyond = int((found.abs() > 25).any(1).sum())
        if beyond:
            axes.text(24, -24, f"{beyond} farther off", ha="right", va="bottom", color="0.4", fontsize=8)
    _save(figure, scatter_path)


@torch.no_grad()
def _evidence(run: Path, images: torch.Tensor) -> torch.Tensor:
    """The network's maps with its bias, (B, K, *S), as `hrcam test` has them."""
    task = LocalizationTask.load_from_checkpoint(run / "best.ckpt", weights_only=True, map_location="cpu").eval()
    return torch.cat([task(part).evidence for part in torch.split(images, 50)])


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, values: Any, title: str, colours: str = "gray", limits: Any = (None, None)) -> None:  # noqa: ANN401
    axes.imshow(values.T, cmap=colours, vmin=limits[0], vmax=limits[1], origin="lower", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _outline(axes: Axes, mask: Any) -> None:  # noqa: ANN401
    axes.contour(mask.T, levels=[0.5], colors=TRUTH, linewidths=1)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
