"""A folder of images, one subfolder a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrcam_lightning.data.listing import scans_in
from hrcam_lightning.data.table import image_stem
from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.rows import NEGATIVE, Row, refuse_missing
from hrcam_lightning.importers.sources import require_folder

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = {"train", "val", "test"}


def read_folder(
    folder: Path, masks: Path | None = None, *, negative: str = NEGATIVE, skip_missing: bool = False
) -> list[Row]:
    """Read the folder, however deep the images of a class lie.

    Args:
        folder: ``<class>/.../<image>``; or ``train``, ``val`` and ``test``, or two of these, that hold the classes.
        masks: A tree of the same form, whose files are called like the images but for the ending; those of a negative
            case may be missing, or must be empty.
        negative: The class without any finding, whatever its case.
        skip_missing: Where masks are given, leave out positive cases without one.

    Raises:
        InputError: If there are no classes, a class has no images, a mask is missing, or no class is called `negative`.
    """
    known = _by_stem(masks) if masks else {}
    tops = _folders(require_folder(folder))
    split = len(tops) > 1 and {top.name for top in tops} <= SPLITS
    _check_negative(folder, {place.name for top in tops for place in (_folders(top) if split else [top])}, negative)
    rows, missing = [], []
    for top in tops:
        for place in _folders(top) if split else [top]:
            images = scans_in(place)
            if not images:
                raise InputError(f"{place}: holds no image that can be read; each subfolder of {folder} is a class")
            label = () if place.name.lower() == negative.lower() else (place.name,)
            for image in images:
                name = image_stem(image.relative_to(folder).as_posix())
                if masks and label and name not in known:
                    missing.append(name)
                    continue
                mask = {(label or (NEGATIVE,))[0]: known[name]} if name in known else {}
                rows.append(Row(name, (image,), label, mask, top.name if split else ""))
    refuse_missing(masks or folder, missing, "masks are missing", skip=skip_missing)
    return rows


def _check_negative(folder: Path, names: set[str], negative: str) -> None:
    if negative != NEGATIVE and negative.lower() not in {name.lower() for name in names}:
        raise InputError(f"{folder}: no subfolder is called --negative {negative}, only {', '.join(sorted(names))}")


def _folders(folder: Path) -> list[Path]:
    found = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: has no subfolders; one a class is needed, with the images of the class in it")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in scans_in(require_folder(folder), ours=True):
        name = image_stem(path.relative_to(folder).as_posix())
        if name in found:
            raise InputError(f"{found[name]} and {path}: two masks for '{name}'; keep one")
        found[name] = path
    return found
