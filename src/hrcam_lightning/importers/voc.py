"""Pascal VOC, and sets in its form: a label wherever an object is, boxes or class numbers as masks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.masks import Box, Boxes, Mask, Numbers
from hrcam_lightning.importers.rows import Row, refuse_missing
from hrcam_lightning.importers.sources import number, read_list, require_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The class numbers of SegmentationClass, from 1; 0 is background and 255 the border that belongs to nothing.
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ENDINGS = (".jpg", ".jpeg", ".png")


def read_voc(
    folder: Path,
    year: int | None = None,
    *,
    masks: Literal["boxes", "segmentation", "none"] = "boxes",
    difficult: Literal["keep", "drop"] = "keep",
    skip_missing: bool = False,
) -> list[Row]:
    """Read the set.

    Args:
        folder: Holds ``Annotations`` and ``JPEGImages``, or ``VOC<year>`` that do.
        year: Which of several.
        masks: What masks are made of. Boxes: of every object. Segmentation: of the images that have one, of the 20
            classes; the border is outside.
        difficult: Whether objects marked so count; dropped, they give neither label nor box.
        skip_missing: Leave out cases that are listed but whose annotation or image is not there.

    Returns:
        Cases of ``ImageSets/Main/{train,val,test}.txt`` with their splits; all annotated ones where there is none.

    Raises:
        InputError: If an annotation or image is missing or damaged, or a class is unknown to the segmentation.
    """
    root = _root(require_folder(folder), year)
    home: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        for name in read_list(path) if path.is_file() else []:
            if home.setdefault(name, split) != split:
                raise InputError(f"{path}: {name} is in {home[name]}.txt as well; keep it in one")
    names = sorted(home) or sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    rows, missing = [], []
    for name in names:
        annotation = root / "Annotations" / f"{name}.xml"
        image = next((path for end in ENDINGS if (path := root / "JPEGImages" / f"{name}{end}").is_file()), None)
        if image is None or not annotation.is_file():
            missing.append(name)
            continue
        objects, size = _objects(annotation, difficult == "keep")
        labels = tuple(sorted(objects))
        found: Mapping[str, Mask] = {}
        if masks == "boxes":
            found = {label: Boxes(image, tuple(boxes), size, annotation) for label, boxes in objects.items()}
        elif masks == "segmentation":
            picture = root / "SegmentationClass" / f"{name}.png"
            found = {label: _numbers(annotation, picture, label) for label in labels if picture.is_file()}
        rows.append(Row(name, (image,), labels, found, home.get(name, "")))
    refuse_missing(root, missing, "cases have no annotation or no image", skip=skip_missing)
    return rows


def _root(folder: Path, year: int | None) -> Path:
    if year is not None:
        return require_folder(folder / f"VOC{year}")
    if (folder / "Annotations").is_dir():
        return folder
    found = sorted(path for path in folder.glob("VOC*") if (path / "Annotations").is_dir())
    if len(found) != 1:
        names = (
            f"holds {', '.join(path.name for path in found)}: say which by --year" if found else "has no Annotations"
        )
        raise InputError(f"{folder}: {names}; the folder of JPEGImages and Annotations is needed")
    return found[0]


def _objects(path: Path, keep_difficult: bool) -> tuple[dict[str, list[Box]], tuple[float, float] | None]:
    """Boxes by class, and height and width of the picture that they were drawn on."""
    try:
        tree = ET.parse(path).getroot()
    except (ET.ParseError, OSError) as error:
        raise InputError(f"{path}: cannot be read as XML ({error}); mend it, or leave the case out") from error
    objects: dict[str, list[Box]] = defaultdict(list)
    for found in tree.iter("object"):
        name = (found.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{path}: an object has no name; mend it, or leave the case out")
        if (found.findtext("difficult") or "0").strip() == "1" and not keep_difficult:
            continue
        left, top, right, bottom = (
            number(path, (found.findtext(f"bndbox/{corner}") or "").strip(), f"{corner} of a {name}")
            for corner in ("xmin", "ymin", "xmax", "ymax")
        )
        objects[name].append((left - 1, top - 1, right, bottom))  # pixels are counted from 1, and the last is in
    size = [number(path, (tree.findtext(f"size/{name}") or "0").strip(), name) for name in ("height", "width")]
    return dict(objects), (size[0], size[1]) if min(size) > 0 else None


def _numbers(annotation: Path, picture: Path, label: str) -> Numbers:
    if label not in CLASSES:
        raise InputError(
            f"{annotation}: the class '{label}' is none of the 20 whose numbers {picture} may hold; use --masks boxes"
        )
    return Numbers(picture, CLASSES.index(label) + 1)
