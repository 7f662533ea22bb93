"""``hrcam cases``: write a table of cases from data as they lie on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hrcam_lightning.errors import InputError
from hrcam_lightning.importers.bids import read_bids
from hrcam_lightning.importers.folder import read_folder
from hrcam_lightning.importers.nih import read_nih
from hrcam_lightning.importers.rows import NEGATIVE, show, write_table
from hrcam_lightning.importers.vindr import read_vindr
from hrcam_lightning.importers.voc import read_voc
from hrcam_lightning.words import WordParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from hrcam_lightning.importers.rows import Row

SUMMARY = "Write the table of cases (cases.csv) of a folder, NIH, VinDr-CXR, Pascal VOC or BIDS."


def run(args: Sequence[str]) -> None:
    """Run ``hrcam cases`` with the words that follow it.

    Raises:
        InputError: If the command line or the data cannot be used.
    """
    arguments = _parser().parse_args(args)
    out: Path = arguments.out or arguments.home(arguments) / "cases.csv"
    if out.exists() and not arguments.overwrite:  # said before a large set is read
        raise InputError(f"{out} is there already: replace it with --overwrite, or choose another --out")
    rows: list[Row] = arguments.read(arguments)
    write_table(out, rows)
    show(out, rows, multilabel=arguments.multilabel)


def _parser() -> argparse.ArgumentParser:
    parser = WordParser(prog="hrcam cases", description=SUMMARY)
    kinds = parser.add_subparsers(required=True, metavar="KIND")

    kind = _add(kinds, "folder", "one subfolder a class", _folder, _folder_home)
    kind.add_argument("folder", type=Path, metavar="DIR")
    kind.add_argument("--masks", type=Path, metavar="DIR", help="tree of the same form, of masks")
    kind.add_argument("--negative", default=NEGATIVE, metavar="NAME", help="subfolder of the cases without any finding")

    kind = _add(kinds, "nih", "NIH ChestX-ray14", _nih, lambda arguments: arguments.images, multilabel=True)
    kind.add_argument("--images", type=Path, required=True, metavar="DIR", help="the images, however deep they lie")
    kind.add_argument("--labels", type=Path, required=True, metavar="CSV", help="Data_Entry_2017.csv")
    kind.add_argument("--boxes", type=Path, metavar="CSV", help="BBox_List_2017.csv")
    kind.add_argument("--splits", type=Path, metavar="DIR", help="holds train_val_list.txt and test_list.txt")
    text = "all 14 (default), or the 8 that have boxes"
    kind.add_argument("--findings", choices=("all", "boxed"), default="all", help=text)
    _add_val(kind)

    kind = _add(kinds, "vindr", "VinDr-CXR", _vindr, lambda arguments: arguments.images, multilabel=True)
    kind.add_argument("--images", type=Path, required=True, metavar="DIR", help="the images, however deep they lie")
    kind.add_argument("--annotations", type=Path, required=True, metavar="CSV", help="annotations_train.csv")
    kind.add_argument("--labels", type=Path, metavar="CSV", help="image_labels_train.csv")
    kind.add_argument("--test_annotations", type=Path, metavar="CSV", help="annotations_test.csv")
    kind.add_argument("--test_labels", type=Path, metavar="CSV", help="image_labels_test.csv")
    text = "image_id, dim0, dim1: height and width that the boxes were drawn on, where images were resized"
    kind.add_argument("--sizes", type=Path, metavar="CSV", help=text)
    text = "a finding counts that more than half of the radiologists saw (default), or any"
    kind.add_argument("--agreement", choices=("any", "majority"), default="majority", help=text)
    _add_val(kind)

    kind = _add(kinds, "voc", "Pascal VOC", _voc, lambda arguments: arguments.folder, multilabel=True)
    kind.add_argument("folder", type=Path, metavar="DIR", help="holds JPEGImages, or VOC<year> that does")
    kind.add_argument("--year", type=int, metavar="YEAR")
    text = "masks of boxes (default), or of SegmentationClass where an image has one"
    kind.add_argument("--masks", choices=("boxes", "segmentation", "none"), default="boxes", help=text)
    text = "objects marked so count (default), or are left out"
    kind.add_argument("--difficult", choices=("keep", "drop"), default="keep", help=text)

    kind = _add(kinds, "bids", "a BIDS data set", _bids, lambda arguments: arguments.folder)
    kind.add_argument("folder", type=Path, metavar="DIR")
    text = "table and column, as in participants.tsv:diagnosis"
    kind.add_argument("--labels", required=True, metavar="TSV:COLUMN", help=text)
    kind.add_argument(
        "--suffix", nargs="+", default=["T1w"], metavar="NAME", help="kinds of scan; several are channels"
    )
    text = "such as acq-3d run-1, where a session has several scans of a kind"
    kind.add_argument("--entities", nargs="+", default=[], metavar="KEY-VALUE", help=text)
    kind.add_argument("--negative", default=NEGATIVE, metavar="NAME", help="label without any finding")
    text = "names of mask files below derivatives, as in '*_label-lesion_mask.nii.gz'"
    kind.add_argument("--masks", metavar="PATTERN", help=text)
    return parser


def _add(
    kinds: argparse._SubParsersAction[WordParser],
    name: str,
    text: str,
    read: Callable[[argparse.Namespace], list[Row]],
    home: Callable[[argparse.Namespace], Path],
    *,
    multilabel: bool = False,
) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=text, description=f"Write the table of cases of {text}")
    kind.add_argument("-o", "--out", type=Path, metavar="CSV", help="the table; cases.csv beside the data if not given")
    kind.add_argument("--overwrite", action="store_true", help="replace a table that is there")
    kind.add_argument("--skip_missing", action="store_true", help="leave out what is listed but not there")
    kind.set_defaults(read=read, home=home, multilabel=multilabel)
    return kind


def _add_val(kind: argparse.ArgumentParser) -> None:
    text = "share of the training cases for validation, whole patients (default 0.1)"
    kind.add_argument("--val", type=float, default=0.1, metavar="SHARE", help=text)


def _folder_home(arguments: argparse.Namespace) -> Path:
    """The folder that holds images and masks, so that no path of the table leads out of it."""
    folders = [arguments.folder, *([arguments.masks] if arguments.masks else [])]
    return Path(os.path.commonpath([folder.absolute() for folder in folders])) if arguments.masks else folders[0]


def _folder(arguments: argparse.Namespace) -> list[Row]:
    return read_folder(
        arguments.folder, arguments.masks, negative=arguments.negative, skip_missing=arguments.skip_missing
    )


def _nih(arguments: argparse.Namespace) -> list[Row]:
    console = Console(stderr=True)
    return read_nih(
        arguments.images,
        arguments.labels,
        arguments.boxes,
        arguments.splits,
        findings=arguments.findings,
        val=arguments.val,
        skip_missing=arguments.skip_missing,
        say=lambda text: console.print(text, highlight=False, soft_wrap=True),
    )


def _vindr(arguments: argparse.Namespace) -> list[Row]:
    return read_vindr(
        arguments.images,
        arguments.annotations,
        arguments.labels,
        test_annotations=arguments.test_annotations,
        test_labels=arguments.test_labels,
        sizes=arguments.sizes,
        agreement=arguments.agreement,
        val=arguments.val,
        skip_missing=arguments.skip_missing,
    )


def _voc(arguments: argparse.Namespace) -> list[Row]:
    return read_voc(
        arguments.folder,
        arguments.year,
        masks=arguments.masks,
        difficult=arguments.difficult,
        skip_missing=arguments.skip_missing,
    )


def _bids(arguments: argparse.Namespace) -> list[Row]:
    return read_bids(
        arguments.folder,
        arguments.labels,
        arguments.suffix,
        entities=arguments.entities,
        negative=arguments.negative,
        masks=arguments.masks,
        skip_missing=arguments.skip_missing,
    )
