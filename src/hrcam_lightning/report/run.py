"""The page of a run: what the test wrote, and the maps of its cases."""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any

import lightning
import torch

from hrcam_lightning import __version__
from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.compare.plan import test_data
from hrcam_lightning.report.browser import Browser, CaseView, MapKind
from hrcam_lightning.report.evaluation import read_evaluation
from hrcam_lightning.report.facts import ERRORS, case_facts, order_of
from hrcam_lightning.report.figures import calibration_section, curves_section
from hrcam_lightning.report.maps import collect
from hrcam_lightning.report.page import Section, write_page
from hrcam_lightning.report.plots import scripts
from hrcam_lightning.report.tables import all_figures_html, facts_html, figures_html, folded, paragraph, yaml_html

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hrcam_lightning.report.arrays import Floats
    from hrcam_lightning.report.evaluation import Evaluation, ScoredMap
    from hrcam_lightning.report.facts import CaseFacts
    from hrcam_lightning.report.maps import Build, Built, SeenMaps

VERSIONS = (
    f"hrcam-lightning {__version__}, torch {torch.__version__}, lightning {lightning.__version__}, "
    f"Python {platform.python_version()}"
)
FIGURES = (
    "Every figure is the one that hrcam test wrote to metrics.json, with its 95 % interval over subjects; "
    "docs/metrics.md says what each is. Floors are maps that have not seen the disease."
)
CURVES = (
    "From curves.csv. Recall and size or d′: shares of the lesions found at the threshold that was set on "
    "validation cases, in bins, with 95 % intervals; hover for the number of lesions. The ideal observer, where "
    "there is one, is the best that any reader could do on these cases; it guesses one place a case, as pointing "
    "asks of a map, and so has no curve of recall."
)


def write_run(folder: Path, out: Path, limit: int | None, words: Sequence[str], build: Build) -> tuple[int, str]:
    """Write the page of a tested run.

    Args:
        folder: Of the run.
        out: The page.
        limit: How many cases it shows; None for as many as make a page of some 10 MB.
        words: Options that its test was given, the checkpoint among them.
        build: From the words of a command to what it comes to.

    Returns:
        Its size in bytes, and a sentence about the cases that it shows.

    Raises:
        InputError: If the run was never tested, or something that it was made of is not there any more.
    """
    tested = read_evaluation(folder)
    built = build(test_words(folder, *words))
    made = collect(tested, built, order_of(outcomes_of(tested)), limit)
    classes = built.task.classes
    assert classes is not None
    facts = case_facts(tested, classes, {case: one.spacing for case, one in made.seen.items()})
    broken, offsets = made.drop_broken(), made.offsets()
    cases = [_view(case, made.seen[case], facts[case], classes, offsets) for case in sorted(made.seen)]
    kinds = [
        kind_of(one, one.name, classes, made.thresholds)
        for one in tested.maps
        if (one.name == MODEL or one.explainer is not None) and one.name not in broken
    ]
    about = shown_sentence(tested, [one.outcome for one in cases])
    unknown = [one.name for one in tested.maps if one.name != MODEL and one.explainer is None]
    if unknown:
        about += f" Not shown, for the test did not say how they are made: {', '.join(unknown)}."
    if broken:
        about += f" Not shown, for they hold NaN or infinity: {', '.join(sorted(broken))}."
    maps = [one.name for one in tested.maps]
    sections = [
        Section("What was run", what_html(tested, built), "run"),
        Section(
            "Figures",
            figures_html(tested.figures, maps, tested.floors)
            + paragraph(FIGURES)
            + folded("All figures", all_figures_html(tested.figures)),
            "figures",
        ),
        curves_section(tested.curves, tested.floors, CURVES),
        calibration_section({folder.name: tested.scores}, classes),
    ]
    browser = Browser(tuple(classes), tuple(kinds), tuple(cases))
    return write_page(out, f"{folder.resolve().name}: test", about, sections, browser, scripts()), about


def test_words(folder: Path, *words: str) -> list[str]:
    """What is typed to test a run, in one process and without a logger; with further words."""
    return [
        "test", "-c", str(folder / "config.yaml"),
        "--trainer.default_root_dir", str(folder), "--trainer.logger", "false", "--trainer.callbacks", "null",
        "--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto",
        *test_data(folder), *words,
    ]  # fmt: skip


def outcomes_of(tested: Evaluation) -> dict[str, str]:
    """What became of every case of a test."""
    facts = case_facts(tested, tested.classes or [""], dict.fromkeys(tested.scores.cases, ()))
    return {case: one.outcome for case, one in facts.items()}


def shown_sentence(tested: Evaluation, outcomes: Sequence[str]) -> str:
    """Which cases are shown, of how many."""
    total, errors = len(tested.scores.cases), sum(one in ERRORS for one in outcomes)
    if not any(outcomes):
        return f"{len(outcomes):,} of {total:,} test cases are shown below; what the network decides is not known."
    if len(outcomes) == total:
        return (
            f"All {total:,} test cases are shown below, {errors:,} of them missed, beside the lesion or false alarms."
        )
    return (
        f"{len(outcomes):,} of {total:,} test cases are shown below, {errors:,} of them missed, beside the lesion or "
        "false alarms: errors and others in turn, each in the order of a hash of their names. The figures are of all "
        "cases."
    )


def _view(
    case: str, seen: SeenMaps, facts: CaseFacts, classes: Sequence[str], offsets: Sequence[Sequence[float]]
) -> CaseView:
    levels = zip(seen.levels.items(), offsets, strict=False)
    return CaseView(
        case=case,
        image=seen.image,
        spacing=seen.spacing or (1.0,) * seen.image.ndim,
        truth=facts.truth,
        called=facts.called,
        probabilities=facts.probabilities,
        outcome=facts.outcome,
        masks=dict(zip(classes, seen.masks, strict=True)),
        maps={name: dict(zip(classes, one, strict=True)) for name, one in seen.maps.items()},
        levels={
            name: {label: one + offset for label, one, offset in zip(classes, level, own, strict=True)}
            for (name, level), own in levels
        },
        size_mm=facts.size_mm,
        dprime=facts.dprime,
        facts=facts.scores,
        affine=seen.affine,
    )


def kind_of(made: ScoredMap, name: str, classes: Sequence[str], own: Floats) -> MapKind:
    """How a map is shown.

    Args:
        made: The map.
        name: That it goes by in the browser.
        classes: Names of the K classes.
        own: (K,) thresholds of the model's evidence.
    """
    model = made.name == MODEL
    limits = own.tolist() if model else made.thresholds or []
    threshold = {label: limit for label, limit in zip(classes, limits, strict=False) if math.isfinite(limit)}
    return MapKind(name, threshold or None, "logit" if model else "", floor=made.floor)


def what_html(tested: Evaluation, built: Built) -> str:
    """Configuration, data and versions."""
    config = tested.config
    model, trainer = config.get("model", {}), config.get("trainer", {})
    content = torch.load(built.checkpoint, map_location="cpu", weights_only=True, mmap=True)
    facts = {
        "run": str(tested.folder),
        "checkpoint": f"{built.checkpoint} (epoch {content['epoch']}, step {content['global_step']:,})",
        **data_facts(tested, built),
        "backbone": _part(model.get("backbone")),
        "decoder": _part(model.get("decoder")),
        "pooling": _part(model.get("pooling")),
        "views averaged": "yes" if built.task.view_averaging else "no",
        "seed": str(config.get("seed_everything", "")),
        "epochs": str(trainer.get("max_epochs", "")),
        "trained with": f"lightning {content['pytorch-lightning_version']}",
        "this page": VERSIONS,
    }
    return facts_html(facts) + folded("config.yaml", yaml_html(config))


def data_facts(tested: Evaluation, built: Built) -> dict[str, str]:
    """What the data are known by."""
    data, scores = tested.config.get("data", {}), tested.scores
    given = data.get("init_args") or {}
    trained_on = str(given.get("cases") or data.get("class_path", ""))
    tested_on = test_data(tested.folder)[-1:]
    if tested_on and given.get("spec"):
        trained_on = f"phantoms drawn from {given['spec']}"
    sets = {"trained on": trained_on, "tested on": tested_on[0]} if tested_on else {"data": trained_on}
    return {
        **sets,
        "hash of the tested set" if tested_on else "data hash": built.data.data_hash,
        "test cases": f"{len(scores.cases):,} of {len(set(scores.subjects)):,} subjects",
        "task": f"{built.task.task}: {', '.join(built.task.classes or ())}",
    }


def _part(settings: Any) -> str:  # noqa: ANN401 - whatever the file holds
    """``{class_path: a.b.HRCAM, init_args: {width: 16}}`` in short."""
    if not isinstance(settings, dict):
        return str(settings or "")
    given = ", ".join(f"{name} {value}" for name, value in (settings.get("init_args") or {}).items())
    name = str(settings.get("class_path", "")).rpartition(".")[2]
    return f"{name} ({given})" if given else name
