"""``hrcam report``: a run, a comparison or predictions as one page that opens from disk."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from hrcam_lightning.errors import InputError
from hrcam_lightning.files import check_writable
from hrcam_lightning.report.run import write_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrcam_lightning.report.maps import Build

SUMMARY = "Write a run, a comparison or predictions as one page with tables, curves and a case browser."
PAGE = "report.html"
LARGE = 10_000_000
"""Bytes above which a page is slow to open, and to mail."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave with one sentence, without the usage."""
        raise InputError(f"{message} (see {self.prog} --help)")


def run(args: Sequence[str], build: Build) -> None:
    """Run ``hrcam report`` with the words that follow it.

    Args:
        args: The words.
        build: From the words of a command to the network and data that it comes to.

    Raises:
        InputError: If there is nothing to report on; no page was written by then.
    """
    arguments = _parser().parse_args(args)
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a run, of a comparison or of predictions")
    started = time.monotonic()
    out: Path = arguments.out or folder / PAGE
    check_writable(out.parent)
    size, about = write_run(folder, out, arguments.cases, arguments.ckpt_path, build)
    console = Console(soft_wrap=True, highlight=False)
    console.print(about, markup=False)
    seconds = time.monotonic() - started
    console.print(f"Page: {out} ({size / 1e6:.1f} MB, {seconds:.0f} s)", markup=False)


def _parser() -> _Parser:
    parser = _Parser(prog="hrcam report", description=SUMMARY)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_COMPARISON_OR_PREDICTIONS")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"the page; {PAGE} in the folder if not given")
    parser.add_argument(
        "--cases", type=_count, metavar="N",
        help="how many cases can be browsed; if not given as many as make a page of some 10 MB, 400 at most",
    )  # fmt: skip
    parser.add_argument(
        "--ckpt_path", default="best", metavar="FILE", help="checkpoint that was tested: a file, best or last (best)"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count
