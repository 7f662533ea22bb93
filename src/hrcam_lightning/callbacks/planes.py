"""A map over its volume, in the three planes that radiologists know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hrcam_lightning.callbacks.drawing import COLOURS, overlay
from hrcam_lightning.geometry import voxel_size

if TYPE_CHECKING:
    from hrcam_lightning.callbacks.drawing import Array, Limits

PLANES = ("sagittal", "coronal", "axial")
ENDS = (("P", "A"), ("L", "R"), ("L", "R"))  # at the left and at the right of each plane's picture


def draw_planes(title: str, image: Array, evidence: Array, affine: np.ndarray[Any, Any], limits: Limits) -> Figure:
    """Slices through the middle (above) and through the map's peak (below), in three planes.

    Turned to R-A-S: axial and coronal slices show the patient's left at the left, as in nibabel's viewer, and letters
    say so. An oblique volume is shown along its own axes. Slices are numbered as in the file, from 0.

    Args:
        title: Above all.
        image: (X, Y, Z), NaN where there is nothing; shown from its lowest to its highest value.
        evidence: (X, Y, Z) in logits, NaN where the network saw nothing.
        affine: Voxel to millimetres.
        limits: Logits of the two ends of the colour scale.
    """
    turn = nib.orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
    image = np.nan_to_num(nib.orientations.apply_orientation(image, turn), nan=float(np.nanmin(image)))  # type: ignore[no-untyped-call]
    evidence = nib.orientations.apply_orientation(evidence, turn)  # type: ignore[no-untyped-call]
    spacing = voxel_size(affine)[np.argsort(turn[:, 0])]
    upright = turn[np.argsort(turn[:, 0]), 1]  # below 0 where the file counts the other way
    peak = np.unravel_index(int(np.nanargmax(evidence)), evidence.shape)
    coloured = overlay_volume(image, evidence, limits)
    figure = Figure(figsize=(8.4, 5.6))
    figure.set_layout_engine("constrained", rect=(0.03, 0, 0.97, 1))  # room for the words at the left
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(2, 3)
    for row, where in zip(axes, ([n // 2 for n in evidence.shape], [int(n) for n in peak]), strict=True):
        for normal, axis in enumerate(row):
            right, up = (n for n in range(3) if n != normal)
            picture = np.flipud(np.swapaxes(coloured.take(where[normal], normal), 0, 1))
            axis.imshow(picture, aspect=float(spacing[up] / spacing[right]), interpolation="nearest")
            stored = where[normal] if upright[normal] > 0 else evidence.shape[normal] - 1 - where[normal]
            axis.set_title(f"{PLANES[normal]}, slice {stored}", fontsize=7)
            for x, letter in zip((0.02, 0.98), ENDS[normal], strict=True):
                side = "left" if x < 0.5 else "right"
                axis.text(x, 0.5, letter, color="white", fontsize=7, ha=side, va="center", transform=axis.transAxes)
            axis.set_axis_off()
    row[0].figure.text(0.005, 0.70, "middle", rotation=90, fontsize=8, va="center")
    row[0].figure.text(0.005, 0.25, "peak", rotation=90, fontsize=8, va="center")
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), COLOURS), ax=axes, shrink=0.6, extend="both")
    bar.set_label("evidence (logits)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def overlay_volume(image: Array, evidence: Array, limits: Limits) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """`overlay` for any number of axes: (*S, 3). Where the evidence is NaN the image shows plain."""
    middle = (limits[0] + limits[1]) / 2
    flat = overlay(image.reshape(len(image), -1), np.nan_to_num(evidence, nan=middle).reshape(len(image), -1), limits)
    return np.asarray(flat.reshape(*image.shape, 3))
