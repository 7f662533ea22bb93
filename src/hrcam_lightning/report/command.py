"""``hrcam report``: a run, a comparison or predictions as one page that opens from disk."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hrcam_lightning.errors import InputError
from hrcam_lightning.files import check_writable
from hrcam_lightning.report.comparison import sets_of, write_comparison
from hrcam_lightning.report.predictions import PREDICTIONS, write_predictions
from hrcam_lightning.report.run import write_run
from hrcam_lightning.report.studies import studies_of, write_studies
from hrcam_lightning.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.report.maps import Build

SUMMARY = "Write a run, a comparison or predictions as one page with tables, curves and a case browser."
PAGE = "report.html"
Page = tuple[Path, Callable[[Path], tuple[int, str]]]
"""Where to, and what writes it: gives its size and a sentence about its cases."""
LARGE = 10_000_000
"""Bytes above which a page is slow to open, and to mail."""


def run(args: Sequence[str], build: Build) -> None:
    """Run ``hrcam report`` with the words that follow it.

    Args:
        args: The words.
        build: From the words of a command to the network and data that it comes to.

    Raises:
        InputError: If there is nothing to report on; no page was written by then.
    """
    arguments, more = _parser().parse_known_args(args)
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a run, of a comparison or of predictions")
    console = Console(soft_wrap=True, highlight=False)
    for out, write in _pages(folder, arguments, more, build):
        started = time.monotonic()
        check_writable(out.parent, "--out")
        size, about = write(out)
        console.print(about, markup=False)
        console.print(f"Page: {out} ({size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s)", markup=False)
        if size > LARGE:
            console.print("It is large to open and to mail: --cases makes it smaller.")


def _pages(folder: Path, arguments: argparse.Namespace, more: list[str], build: Build) -> list[Page]:
    """What is to be written, and by whom.

    Raises:
        InputError: If the folder is of none of the kinds, or an option does not fit it.
    """
    out, limit = arguments.out, arguments.cases
    if (folder / "config.yaml").is_file():
        _refuse_seed(arguments)
        words = ["--ckpt_path", arguments.ckpt_path or "best", *more]
        return [(out or folder / PAGE, lambda page: write_run(folder, page, limit, words, build))]
    if more or arguments.ckpt_path:
        raise InputError(f"{(more or ['--ckpt_path'])[0]} is of a run, but {folder} is none: leave it out")
    if (folder / PREDICTIONS).is_file():
        _refuse_seed(arguments)
        return [(out or folder / PAGE, lambda page: write_predictions(folder, page, limit))]
    sets = sets_of(folder)
    if not sets:
        raise InputError(
            f"{folder} holds no run (config.yaml), no comparison (leaderboard.csv in the folder of a set) and no "
            f"predictions ({PREDICTIONS}): give the folder that hrcam fit, compare or predict has written"
        )
    if out and len(sets) > 1:
        raise InputError(f"{folder} holds {len(sets)} sets, a page each: give one of them with --out, as {sets[0]}")
    return [(out or one / PAGE, partial(_comparison, one, arguments, build)) for one in sets]


def _refuse_seed(arguments: argparse.Namespace) -> None:
    if arguments.seed is not None:
        raise InputError(f"--seed is of a comparison, but {arguments.folder} is none: leave it out")


def _comparison(folder: Path, arguments: argparse.Namespace, build: Build, page: Path) -> tuple[int, str]:
    studies = studies_of(folder)
    if not studies:
        return write_comparison(folder, page, arguments.cases, build, arguments.seed)
    for option, value in (("--cases", arguments.cases), ("--seed", arguments.seed)):
        if value is not None:
            raise InputError(f"{option} is of maps, but {folder} compares studies, which have none: leave it out")
    return write_studies(folder, studies, page)


def _parser() -> WordParser:
    about = f"{SUMMARY} Of a run, options that its test was given are given again, as --data.test_split reversed."
    parser = WordParser(prog="hrcam report", description=about, allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_COMPARISON_OR_PREDICTIONS")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"the page; {PAGE} in the folder if not given")
    parser.add_argument(
        "--cases", type=_count, metavar="N",
        help="how many cases can be browsed; if not given as many as make a page of some 10 MB, 400 at most",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="N",
        help="of a comparison: the training of each experiment whose maps are shown; the first if not given",
    )  # fmt: skip
    parser.add_argument(
        "--ckpt_path",
        metavar="FILE",
        help="of a run: the checkpoint that was tested; a file, best (if not given) or last",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    return int(text)
