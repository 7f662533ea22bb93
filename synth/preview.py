"""A contact sheet: each case beside itself with its truth outlined."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synth.files import Voxels, read_nifti

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synth.phantom import Phantoms
    from synth.verify import StoredSet

COLOURS = ("tab:red", "tab:cyan", "tab:orange", "tab:green", "tab:pink", "tab:olive")
PAIRS_PER_ROW = 4


class Picture(NamedTuple):
    """What the sheet shows of a case: image ``(*S)``, masks ``(K, *S)`` and caption."""

    image: Voxels
    masks: npt.NDArray[np.bool_]
    caption: str


def drawn(phantoms: Phantoms, cases: int) -> Iterator[Picture]:
    """Yield the first cases of a specification."""
    for case in (phantoms[index] for index in range(cases)):
        dprimes = [lesion.dprime for lesion in case.lesions]
        yield Picture(case.image, case.masks, _caption(case.name, case.label_text, dprimes))


def stored(found: StoredSet, cases: int) -> Iterator[Picture]:
    """Yield the first cases of a set on disk.

    Raises:
        DatasetError: a file is missing or broken.
    """
    for row in islice(found.cases, cases):
        image, _ = read_nifti(found.folder / row["image"])
        masks = np.zeros((len(found.spec.classes), *image.shape), bool)
        for name, path in found.masks(row).items():
            masks[found.spec.classes.index(name)] = read_nifti(path)[0] != 0
        dprimes = [float(lesion["dprime"]) for lesion in found.lesions.get(row["case"], ())]
        yield Picture(image, masks, _caption(row["case"], row["label"], dprimes))


def _caption(name: str, label: str, dprimes: list[float]) -> str:
    detectability = " d′ " + ", ".join(f"{value:.1f}" for value in dprimes) if dprimes else ""
    return f"{name}\n{label}{detectability}"


def contact_sheet(pictures: Iterator[Picture], path: Path, spacing_mm: tuple[float, ...]) -> None:
    """Write the pictures to a PNG, all on one grey scale; of a volume, the slice with the most truth.

    Args:
        pictures: what to draw.
        path: the file.
        spacing_mm: size of a voxel along each axis.

    Raises:
        OSError: the file could not be written.
    """
    shown = [_slice(picture) for picture in pictures]
    low, high = np.percentile([np.percentile(picture.image, [0, 99.9]) for picture in shown], [0, 100])
    aspect = spacing_mm[1] / spacing_mm[0]
    rows = -(-len(shown) // PAIRS_PER_ROW)
    columns = 2 * min(len(shown), PAIRS_PER_ROW)
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, picture in enumerate(shown):
        row, pair = divmod(number, PAIRS_PER_ROW)
        for axis in axes[row, 2 * pair : 2 * pair + 2]:
            axis.imshow(picture.image.T, origin="lower", aspect=aspect, cmap="gray", vmin=low, vmax=high)
        axes[row, 2 * pair].set_title(picture.caption, fontsize=7, loc="left")
        for mask, colour in zip(picture.masks, COLOURS * len(picture.masks), strict=False):
            if mask.any():
                axes[row, 2 * pair + 1].contour(mask.T, levels=[0.5], colors=colour, linewidths=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _slice(picture: Picture) -> Picture:
    if picture.image.ndim == 2:
        return picture
    truth = picture.masks.any(axis=0).sum(axis=(0, 1))
    level = int(truth.argmax()) if truth.any() else picture.image.shape[2] // 2
    return Picture(picture.image[..., level], picture.masks[..., level], picture.caption)
