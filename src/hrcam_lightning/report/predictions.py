"""The page of predictions: maps over images without truth, from the files that `predict` wrote."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from PIL import Image

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.callbacks.journal import Journal
from hrcam_lightning.data.readers import read_image
from hrcam_lightning.data.table import files_of_source
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import safe_name
from hrcam_lightning.report.browser import Browser, CaseView, MapKind
from hrcam_lightning.report.facts import by_hash
from hrcam_lightning.report.maps import affordable
from hrcam_lightning.report.page import Section, write_page
from hrcam_lightning.report.plots import histogram_figure, plots_html, scripts, styles_of
from hrcam_lightning.report.tables import facts_html, paragraph
from hrcam_lightning.views import spacing_of

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.data.scan import Scan
    from hrcam_lightning.report.arrays import Bools, Floats
    from hrcam_lightning.report.evaluation import Row

PREDICTIONS = "predictions.csv"
NEEDED = ("case", "class", "probability", "lesions")
SHOWN = ("peak", "lesions", "lesion_mm3", "peak_x_mm", "peak_y_mm", "peak_z_mm")
ABOUT = (
    "There is no truth here, and so no outcome. A class counts as called where its map reaches the threshold that"
    " was found on validation cases, which is what the masks are of; the slider starts at the lowest value that "
    "lies in any mask."
)


def write_predictions(folder: Path, out: Path, limit: int | None) -> tuple[int, str]:
    """Write the page of a folder of predictions.

    Args:
        folder: That `predict` wrote.
        out: The page.
        limit: How many cases it shows; None for as many as make a page of some 10 MB.

    Returns:
        Its size in bytes, and a sentence about the cases that it shows.

    Raises:
        InputError: If there are none, or a map or an image is not there any more.
    """
    rows = _rows(folder)
    classes = list(dict.fromkeys(row["class"] for of in rows.values() for row in of))
    journal = Journal(folder)
    sources = journal.sources()
    cases: list[CaseView] = []
    lowest: dict[str, float] = {}
    order = by_hash(rows)
    while order and len(cases) < (limit or affordable((1 + len(classes)) * cases[0].image.size if cases else 1)):
        case = order.pop(0)
        view, masks = _case(folder, case, rows[case], sources.get(case, ""))
        cases.append(view)
        for name, mask in masks.items():
            if mask.any():
                lowest[name] = min(lowest.get(name, math.inf), float(view.maps[MODEL][name][mask].min()))
    about = f"{len(cases):,} of {len(rows):,} predicted cases are shown below"
    about = f"{about}, by a hash of their names." if order else f"All {len(rows):,} predicted cases are shown below."
    head = journal.head()
    unreadable = folder / "unreadable.csv"
    failed = len(unreadable.read_text(encoding="utf-8").splitlines()) - 1 if unreadable.is_file() else 0
    facts = {
        "folder": str(folder),
        "cases": f"{len(rows):,}" + (f"; {failed:,} could not be read ({unreadable})" if failed else ""),
        "classes": ", ".join(classes),
        "checkpoint": f"SHA-256 {head['checkpoint']}" if head.get("checkpoint") else "",
        **{str(name): str(value) for name, value in head.get("settings", {}).items()},
    }
    every = [row for of in rows.values() for row in of]
    chances = {name: [float(row["probability"]) for row in every if row["class"] == name] for name in classes}
    sections = [
        Section("What was predicted", facts_html(facts) + paragraph(ABOUT), "what"),
        Section(
            "Probabilities",
            plots_html({"plot-probabilities": histogram_figure(chances, styles_of(classes, ()))}),
            "spread",
        ),
    ]
    cases.sort(key=lambda one: one.case)
    browser = Browser(tuple(classes), (MapKind(MODEL, lowest or None, "logit"),), tuple(cases))
    return write_page(out, f"{folder.resolve().parent.name}: predictions", about, sections, browser, scripts()), about


def _rows(folder: Path) -> dict[str, list[Row]]:
    """Rows by case."""
    path = folder / PREDICTIONS
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[Row] = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); predict again") from error
    if not rows:
        raise InputError(f"{path} tells of no case: there is nothing to show")
    if missing := [name for name in NEEDED if name not in rows[0]]:
        raise InputError(f"{path} has no column {missing[0]}; predict again")
    found: dict[str, list[Row]] = {}
    for row in rows:
        for name in ("probability", *(name for name in SHOWN if row.get(name))):
            if not _is_number(row[name]):
                raise InputError(f"{path}: {name} of {row['case']} is '{row[name]}', which is no number; predict again")
        found.setdefault(row["case"], []).append(row)
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _case(folder: Path, case: str, rows: list[Row], source: str) -> tuple[CaseView, dict[str, Bools]]:
    """A case, and the masks of its classes where there are any."""
    scan = _image(folder, case, source)
    size, names = scan.voxels.shape[1:], [row["class"] for row in rows]
    base = folder / safe_name(case)
    stored = scan.affine is not None
    maps = _stack(base.with_name(f"{base.name}_map{'.nii.gz' if stored else '.npy'}"), size, len(names))
    # Where the network saw nothing, outside of a crop, is nothing: the page knows no NaN.
    maps = np.where(np.isnan(maps), np.nanmin(maps), maps)
    masks: dict[str, Bools] = {}
    if stored and any(row["lesions"] for row in rows):
        found = _stack(base.with_name(f"{base.name}_mask.nii.gz"), size, len(names)) > 0
        masks = dict(zip(names, found, strict=True))
    elif not stored:
        for row in rows:
            path = base.with_name(f"{base.name}_{safe_name(row['class'])}_mask.png")
            if row["lesions"] and path.is_file():
                masks[row["class"]] = np.asarray(Image.open(path)) > 0
    facts: dict[str, str | float] = {}
    for row in rows:
        ending = f", {row['class']}" if len(rows) > 1 else ""
        facts |= {f"{name}{ending}": float(row[name]) for name in SHOWN if row.get(name)}
    view = CaseView(
        case=case,
        image=scan.voxels.mean(0),
        spacing=tuple(spacing_of(scan.affine, len(size)) or (1.0,) * len(size)),
        truth=None,
        called=tuple(row["class"] for row in rows if row["lesions"] not in ("", "0")),
        probabilities={row["class"]: float(row["probability"]) for row in rows},
        outcome="",
        masks={},
        maps={MODEL: dict(zip(names, maps, strict=True))},
        facts=facts,
        affine=scan.affine,
    )
    return view, masks


def _image(folder: Path, case: str, source: str) -> Scan:
    paths = files_of_source(source)
    if not paths:
        raise InputError(f"{folder}: its journal (.done-0.jsonl) does not say which image {case} is of; predict again")
    try:
        return read_image(paths)
    except InputError as error:
        raise InputError(f"{case}: the image that was predicted cannot be shown: {error}") from error


def _stack(path: Path, size: tuple[int, ...], count: int) -> Floats:
    """Maps or masks as (K, *S)."""
    try:
        if path.suffix == ".npy":
            found: Any = np.load(path)
        else:
            data = np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
            found = np.moveaxis(data.reshape(*data.shape[:3], -1), -1, 0)  # one class has no axis of its own
            found = found.reshape(found.shape[0], *size) if found[0].size == math.prod(size) else found
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: is missing or damaged ({error}); predict again") from error
    if found.shape != (count, *size):
        raise InputError(
            f"{path}: holds {len(found)} maps of {found.shape[1:]} voxels, but there are {count} classes and the image "
            f"has {size}: the image is not the one that was predicted, or more than was seen of it; predict again"
        )
    return np.asarray(found, dtype=np.float32)
