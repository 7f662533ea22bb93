"""The page of a comparison of studies, which score networks by what they see, and leave no maps to browse."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

import yaml

from hrcam_lightning.compare.plan import read_record
from hrcam_lightning.compare.studies import ORIGINAL
from hrcam_lightning.errors import InputError
from hrcam_lightning.report.board import LEADERBOARD, board_sections, costs_section, read_rows, reference_of
from hrcam_lightning.report.page import Section, write_page
from hrcam_lightning.report.plots import scripts
from hrcam_lightning.report.run import VERSIONS
from hrcam_lightning.report.tables import facts_html, folded, yaml_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ABOUT = (
    "Each study trains networks anew on what heatmaps show, on what they leave out, and on controls; a row is a kind of"
    " image, scored by what the networks trained on it make of test images of that kind."
)
METRICS = "filtered_retrain/metrics.json"
PICTURES = {"examples.png": "The kinds of image", "scores.png": "AUROC of each kind"}


def studies_of(folder: Path) -> dict[str, list[Path]]:
    """By experiment the studies that a leaderboard rests on, a folder a seed; none where maps were compared."""
    found: dict[str, list[Path]] = {}
    for row in read_rows(folder / LEADERBOARD):
        name, _, kind = row["row"].partition("/")
        if row["kind"] != "model" or kind != ORIGINAL:
            continue
        for seed in sorted(map(int, row["seeds"].split())):
            job = folder / name / f"seed_{seed}"
            record = read_record(job)
            if record is not None and record.state == "finished" and (job / METRICS).is_file():
                found.setdefault(name, []).append(job)
    return found


def write_studies(folder: Path, studies: Mapping[str, Sequence[Path]], out: Path) -> tuple[int, str]:
    """Write the page of a comparison of studies on one set.

    Args:
        folder: Of the set, in the comparison's.
        studies: From `studies_of`.
        out: The page.

    Returns:
        Its size in bytes, and a sentence about what it shows.

    Raises:
        InputError: If a file of a study is not there any more.
    """
    rows = read_rows(folder / LEADERBOARD)
    facts = {
        "folder": str(folder),
        "experiments": ", ".join(
            f"{name} (seeds {', '.join(map(str, map(_seed, jobs)))})" for name, jobs in studies.items()
        ),
        "pictures": "of the first seed of each study",
        "this page": VERSIONS,
    }
    try:
        shown = "".join(_study_html(name, jobs[0]) for name, jobs in studies.items())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"{folder}: a file of its studies cannot be read ({error}); run hrcam compare again"
        ) from error
    sections = [
        Section("What was compared", facts_html(facts), "what"),
        *board_sections(folder, rows, reference_of(rows)),
        Section("Studies", shown, "studies"),
        costs_section(folder),
    ]
    title = f"{folder.resolve().parent.name} on {folder.resolve().name}"
    return write_page(out, title, ABOUT, sections, None, scripts()), ABOUT


def _seed(job: Path) -> int:
    return int(job.name.removeprefix("seed_"))


def _study_html(name: str, job: Path) -> str:
    """Its pictures and its settings."""
    results = job / "filtered_retrain"
    pictures = "".join(
        f'<figure><img src="data:image/png;base64,{b64encode((results / file).read_bytes()).decode()}"'
        f' alt="{escape(title)} of {escape(name)}"><figcaption>{escape(title)}</figcaption></figure>'
        for file, title in PICTURES.items()
    )
    config = yaml.safe_load((results / "config.yaml").read_text(encoding="utf-8"))
    return f"<h3>{escape(name)}</h3>{pictures}{folded(f'{name}, seed {_seed(job)}: config.yaml', yaml_html(config))}"
