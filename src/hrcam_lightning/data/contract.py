"""What data modules hand to the task: the batch and the layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hrcam_lightning.data.frame import Frame

TaskKind = Literal["binary", "multiclass", "multilabel"]


@dataclass  # not frozen: Lightning walks through what a batch holds
class SlicePlace:
    """Which slice of which volume an image is.

    Attributes:
        case: Name of the volume.
        axis: Axis of the framed volume that the slices follow one another on.
        index: Which slice, counted from 0 along that axis.
        count: How many slices the framed volume has.
    """

    case: str
    axis: int
    index: int
    count: int


class Batch(TypedDict):
    """A batch, the same for every data module.

    Attributes:
        image: (B, C, *S) float32.
        label: (B,) class numbers, or (B, K) findings for a multilabel task.
        mask: (B, K, *S) bool, the truth for each class. Empty for a case of the class means "not known".
        case: Names, unique within a data set.
        subject: Who was imaged, a name a case; without it each case is a subject.
        cue: (B, *S) bool, where a spurious cue is; only of data that have one.
        affine: Voxel to millimetres, one 4×4 a case; None for pictures, which have no place in space. Of a slice, the
            two axes of the slice come first.
        frame: The way from each file's grid to the image's and back; of a slice, its volume's.
        slice: Where each image lies in its volume; only of data that are slices.
        failed: Name and reason of each case that could not be read, and is not in the batch; only in prediction, where
            a batch of such cases alone has ``case`` and ``failed`` and nothing else.
    """

    image: Tensor
    label: NotRequired[Tensor]
    mask: NotRequired[Tensor]
    case: list[str]
    subject: NotRequired[list[str]]
    cue: NotRequired[Tensor]
    affine: list[np.ndarray[tuple[int, int], np.dtype[np.float64]] | None]
    frame: list[Frame]
    slice: NotRequired[list[SlicePlace]]
    failed: NotRequired[list[tuple[str, str]]]


@dataclass(frozen=True)
class Layout:
    """What the data decide of a network. None: the data do not say (a prediction list has no labels).

    Attributes:
        task: Kind of label.
        classes: Names of the K maps.
        channels: Image channels.
        dims: Spatial axes, 2 or 3.
    """

    task: TaskKind | None
    classes: list[str] | None
    channels: int
    dims: int
