"""Pictures of maps. One colour scale for all of them, in logits: a normal image must look normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from hrcam_lightning.files import replacing
from hrcam_lightning.geometry import voxel_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from torch import Tensor

Array = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Limits = tuple[float, float]

COLOURS = "RdBu_r"  # diverging, white at the middle, and told apart by the colour-blind
TRUTH = "#00b050"


@dataclass(frozen=True)
class Panel:
    """What is drawn of one case, all of it 2D and upright.

    Attributes:
        title: Beside the image.
        image: (H, W).
        truth: (H, W) bool.
        levels: Level maps, (H, W) each.
        fused: The class map (H, W).
        aspect: Height of a pixel over its width.
    """

    title: str
    image: Array
    truth: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    levels: list[Array]
    fused: Array
    aspect: float


def make_panel(
    title: str,
    image: Tensor,
    truth: Tensor,
    levels: Sequence[Tensor],
    fused: Tensor,
    affine: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None,
) -> Panel:
    """Bring a case of one class to upright 2D.

    Volumes show the slice along the last axis that holds most of the lesion, or the map's peak where there is none.
    With an affine, axis 0 runs to the right and axis 1 upwards, which is upright for R-A-S and L-A-S storage; pictures
    stay as they are. Nothing is turned to a canonical frame.

    Args:
        title: Beside the image.
        image: (C, *S); the mean of its channels is drawn.
        truth: bool (*S).
        levels: (*S) each.
        fused: (*S).
        affine: Voxel to millimetres, None for a picture.
    """
    tensors = [image.float().mean(0), truth, *levels, fused]
    arrays: list[Array] = [tensor.detach().cpu().float().numpy() for tensor in tensors]
    if fused.ndim == 3:
        where = arrays[1] if arrays[1].any() else arrays[-1] == arrays[-1].max()
        index = int(where.sum((0, 1)).argmax())
        arrays = [array[..., index] for array in arrays]
    aspect = 1.0
    if affine is not None:
        spacing = voxel_size(affine)
        aspect = float(spacing[1] / spacing[0]) if spacing.all() else 1.0
        arrays = [array.T[::-1] for array in arrays]
    return Panel(title, arrays[0], arrays[1] > 0, arrays[2:-1], arrays[-1], aspect)


def draw_panels(panels: Sequence[Panel], limits: Limits) -> Figure:
    """One row a case: image, image with truth, each level's map, fused map; one colour bar for all."""
    columns = ["image", "truth", *(f"level {n}" for n in range(len(panels[0].levels))), "fused"]
    figure = Figure(figsize=(1.5 * len(columns) + 1.8, 1.5 * len(panels) + 0.3))
    figure.set_layout_engine("constrained", rect=(0.02, 0, 0.98, 1))  # room for the names at the left
    axes = figure.subplots(len(panels), len(columns), squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        _show(row[0], panel.image, panel.aspect, panel.title)
        _show(row[1], panel.image, panel.aspect)
        if panel.truth.any():
            row[1].contour(panel.truth, [0.5], colors=TRUTH, linewidths=1)
        for axis, values in zip(row[2:], [*panel.levels, panel.fused], strict=True):
            axis.imshow(
                values,
                cmap=COLOURS,
                vmin=limits[0],
                vmax=limits[1],
                aspect=panel.aspect,
                interpolation="nearest",
            )
            if panel.truth.any():
                axis.contour(panel.truth, [0.5], colors=TRUTH, linewidths=0.6)
            axis.set_axis_off()
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=7)
    scale = ScalarMappable(Normalize(*limits), COLOURS)
    bar = figure.colorbar(scale, ax=axes, fraction=0.04, shrink=min(0.9, 2 / len(panels)), extend="both")
    bar.set_label("evidence (logits)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def pixels(figure: Figure, dpi: int = 100) -> Pixels:
    """Render a figure to (H, W, 3)."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save(path: Path, figure: Figure) -> Pixels:
    """Render a figure to (H, W, 3), and write that as PNG."""
    picture = pixels(figure)
    with replacing(path) as part:
        Image.fromarray(picture).save(part)
    return picture


def overlay(image: Array, fused: Array, limits: Limits) -> Pixels:
    """The map over its image, pixel by pixel, (H, W, 3): the stronger the evidence, the more opaque.

    Args:
        image: (H, W), shown from its lowest to its highest value.
        fused: (H, W) in logits.
        limits: Logits of the two ends of the colour scale.
    """
    low, high = float(image.min()), float(image.max())
    grey = (image - low) / ((high - low) or 1.0)
    position = np.clip((fused - limits[0]) / (limits[1] - limits[0]), 0, 1)
    colour = mpl.colormaps[COLOURS](position)[..., :3]
    opacity = (0.7 * np.abs(2 * position - 1))[..., None]
    return np.asarray(255 * ((1 - opacity) * grey[..., None] + opacity * colour), dtype=np.uint8)


def _show(axis: Axes, image: Array, aspect: float, title: str = "") -> None:
    axis.imshow(image, cmap="gray", aspect=aspect, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_ylabel(title, fontsize=6, rotation=0, ha="right", va="center")
