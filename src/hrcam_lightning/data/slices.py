"""A 2D data set of volumes: their slices, which of them have the finding, and an order that spares the disk."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from nibabel.orientations import io_orientation
from torch.utils.data import Dataset

from hrcam_lightning.data.contract import SlicePlace
from hrcam_lightning.data.frame import Grid
from hrcam_lightning.data.module import Sample
from hrcam_lightning.data.sampling import EpochSampler, generator_of
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from hrcam_lightning.data.scan import Affine, Bools, Floats
    from hrcam_lightning.data.table import Case, CaseTable

Plane = Literal["sagittal", "coronal", "axial"]
PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")  # whose slices follow one another along x, y, z
FAINT = 1e-3  # of an image's range: a voxel that is no further from the background belongs to it


class Volumes(Protocol):
    """Volumes that slices are taken of."""

    cases: list[Case]
    table: CaseTable

    def __getitem__(self, index: int) -> Sample: ...

    def grid(self, index: int) -> Grid:
        """The network's grid."""
        ...


class SliceDataset(Dataset[Sample]):
    """Slices of volumes, in the order of the volumes.

    A slice has the label that its mask shows, for each class whose mask the case brings; for the others it inherits
    the label of the case. A slice in which no more than `min_foreground` of the voxels are foreground is left out,
    unless a mask shows something in it. Foreground differs from the background, the commonest value on the outer
    faces of the volume. In a multiclass task the slices of a case that its mask does not touch are of the class
    `negative`, or left out where there is no such class.

    Args:
        volumes: The volumes.
        plane: Which way they are cut.
        min_foreground: Share of the voxels, 0 to 1.
        negative: Name of the class without any finding.
        keep: Volumes that are kept in memory, the ones last asked for.
        whole: Take every slice, as prediction does.

    Raises:
        InputError: If no slice is left.
    """

    def __init__(
        self, volumes: Volumes, plane: Plane, min_foreground: float, negative: str, keep: int, *, whole: bool = False
    ) -> None:
        self.volumes, self.plane, self.keep = volumes, plane, keep
        self.places: list[tuple[int, SlicePlace]] = []
        self.labels: list[int | tuple[int, ...] | None] = []
        self._negative = negative
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        for number in range(len(volumes.cases)):
            if whole:
                self._add_all(number)
            else:
                self._add_chosen(number, min_foreground)
        if not self.places:
            raise InputError("no slice is left; lower data.min_foreground, or look at the masks and labels")
        if not whole:
            self._warn_of_inherited()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        number, place = self.places[index]
        volume = self._volume(number)
        sample: Sample = {
            **volume,
            "image": _cut(volume["image"], place),
            "case": f"{place.case}_{self.plane}{place.index:03d}",
            "affine": slice_affine(volume["affine"], place.axis, place.index),
            "slice": place,
        }
        if "label" in volume:
            sample["label"], sample["mask"] = self.labels[index], _cut(volume["mask"], place)
        if "cue" in volume:
            sample["cue"] = volume["cue"].select(place.axis, place.index).clone()
        return sample

    def order(self, epoch: Callable[[], int]) -> VolumeOrder:
        """An order for training that asks for few volumes at a time."""
        groups: dict[int, list[int]] = {}
        for index, (number, _) in enumerate(self.places):
            groups.setdefault(number, []).append(index)
        return VolumeOrder(list(groups.values()), self.keep, epoch)

    def _volume(self, number: int) -> Sample:
        if number not in self._kept:
            self._kept[number] = self.volumes[number]
            while len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _add_all(self, number: int) -> None:
        case, grid = self.volumes.cases[number], self.volumes.grid(number)
        axis = axis_of(grid, self.plane, str(case.images[0]))
        count = grid.shape[axis]
        self.places += [(number, SlicePlace(case.name, axis, index, count)) for index in range(count)]
        self.labels += [case.label] * count

    def _add_chosen(self, number: int, min_foreground: float) -> None:
        case, volume = self.volumes.cases[number], self._volume(number)
        axis = axis_of(volume["frame"].grid, self.plane, str(case.images[0]))
        shares = foreground(volume["image"].numpy(), axis)
        touched = volume["mask"].movedim(1 + axis, 1).flatten(2).any(2).numpy()  # (K, slices)
        for index, share in enumerate(shares):
            label = self._label(case, touched[:, index])
            if label is not None and (share > min_foreground or touched[:, index].any()):
                self.places.append((number, SlicePlace(case.name, axis, index, len(shares))))
                self.labels.append(label)

    def _label(self, case: Case, touched: Bools) -> int | tuple[int, ...] | None:
        classes = self.volumes.table.classes or []
        if isinstance(case.label, tuple):
            pairs = zip(classes, case.label, touched, strict=True)
            return tuple(int(there) if name in case.masks else label for name, label, there in pairs)
        if self.volumes.table.task == "binary":
            return int(touched[0]) if case.label and case.masks else case.label
        assert case.label is not None
        if classes[case.label] not in case.masks or touched[case.label]:
            return case.label
        return classes.index(self._negative) if self._negative in classes else None

    def _inherits(self, case: Case) -> bool:
        """Whether a finding of the case has no mask."""
        classes, label = self.volumes.table.classes or [], case.label
        if isinstance(label, tuple):
            return any(there and name not in case.masks for name, there in zip(classes, label, strict=True))
        if self.volumes.table.task == "binary":
            return bool(label) and not case.masks
        return label is not None and classes[label] not in (*case.masks, self._negative)

    def _warn_of_inherited(self) -> None:
        heirs = [case.name for case in self.volumes.cases if self._inherits(case)]
        if heirs:
            warnings.warn(
                f"{len(heirs)} cases, {heirs[0]} first, have a finding and no mask of it: all their slices inherit the "
                "label, also those that the finding does not touch",
                stacklevel=2,
            )


class VolumeOrder(EpochSampler):
    """Slices in a random order in which those of a few volumes are mixed, then those of the next few.

    So a volume is read once an epoch and loader process, and follows, as any order, from the run's seed and the epoch.

    Args:
        groups: Numbers of the slices, a list a volume.
        together: Volumes that are mixed.
        epoch: Says which epoch it is.
    """

    def __init__(self, groups: Sequence[Sequence[int]], together: int, epoch: Callable[[], int]) -> None:
        super().__init__(sum(len(group) for group in groups), epoch)
        self.groups, self.together = groups, together

    def __iter__(self) -> Iterator[int]:
        rng = generator_of(self.epoch())
        volumes = rng.permutation(len(self.groups))
        for first in range(0, len(volumes), self.together):
            mixed = [index for volume in volumes[first : first + self.together] for index in self.groups[volume]]
            yield from (mixed[n] for n in rng.permutation(len(mixed)))


def axis_of(grid: Grid, plane: Plane, name: str) -> int:
    """The axis that slices of a plane follow one another on: the one nearest to x, y or z.

    Raises:
        InputError: If the image is no volume in space; `name` says which.
    """
    if grid.affine is None or len(grid.shape) != 3:
        raise InputError(f"{name}: is no volume with an affine, so it has no {plane} slices; leave out data.slices")
    return int(np.flatnonzero(io_orientation(grid.affine)[:, 0] == PLANES.index(plane))[0])  # type: ignore[no-untyped-call]


def slab(grid: Grid, axis: int, span: tuple[int, int], name: str) -> tuple[tuple[slice, ...], Grid]:
    """Where the slices `span` of a volume lie in its array, and the grid that they make.

    Raises:
        InputError: If the volume has not so many slices; `name` says which.
    """
    if span[1] > grid.shape[axis]:
        raise InputError(f"{name}: has {grid.shape[axis]} slices, but the table wants {span[0]}:{span[1]} of them")
    assert grid.affine is not None
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, axis] * span[0]
    shape = tuple(span[1] - span[0] if n == axis else size for n, size in enumerate(grid.shape))
    return tuple(slice(*span) if n == axis else slice(None) for n in range(3)), Grid(shape, affine)


def slice_affine(affine: Affine, axis: int, index: int) -> Affine:
    """Affine of a slice: its own two axes first, then the axis that it was cut across."""
    order = [*(n for n in range(3) if n != axis), axis]
    moved = affine[:, [*order, 3]].copy()
    moved[:3, 3] += affine[:3, axis] * index
    return moved


def foreground(image: Floats, axis: int) -> Floats:
    """Share of each slice of an image (C, *S) whose voxels differ from the background in any channel, (slices,).

    The background is the commonest value on the outer faces of the volume; a voxel differs from it by more than a
    thousandth of the image's range.
    """
    differs = np.zeros(image.shape[1:], dtype=bool)
    for channel in image:
        faces = [channel.take(end, n).ravel() for n in range(3) for end in (0, -1)]
        values, counts = np.unique(np.concatenate(faces), return_counts=True)
        differs |= abs(channel - values[counts.argmax()]) > FAINT * float(np.ptp(channel))
    return np.asarray(differs.mean(tuple(n for n in range(3) if n != axis)), dtype=np.float32)


def _cut(volume: Tensor, place: SlicePlace) -> Tensor:
    return volume.select(1 + place.axis, place.index).clone()  # not a view, which would keep the whole volume
