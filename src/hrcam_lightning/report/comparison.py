"""The page of a comparison on one set: leaderboard, differences, curves of all, and their maps side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.callbacks.curves import OBSERVER, Curves, Point
from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.compare.plan import read_record
from hrcam_lightning.errors import InputError
from hrcam_lightning.report.board import LEADERBOARD, board_sections, costs_section, read_rows, reference_of
from hrcam_lightning.report.browser import Browser, CaseView
from hrcam_lightning.report.evaluation import read_evaluation
from hrcam_lightning.report.facts import case_facts, order_of
from hrcam_lightning.report.figures import calibration_section, curves_section
from hrcam_lightning.report.maps import collect
from hrcam_lightning.report.page import Section, write_page
from hrcam_lightning.report.plots import scripts
from hrcam_lightning.report.run import VERSIONS, data_facts, kind_of, outcomes_of, shown_sentence, test_words
from hrcam_lightning.report.tables import facts_html, folded, yaml_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hrcam_lightning.report.evaluation import Evaluation, Row
    from hrcam_lightning.report.facts import CaseFacts
    from hrcam_lightning.report.maps import Build, Built, MapCollector

Trainings = dict[str, dict[int, "Evaluation"]]
"""By experiment and seed."""

CURVES = (
    "Means over the trainings of each experiment, of its own map. In bins the bars reach from the lowest to the "
    "highest training, and where there is one training alone they are its 95 % interval. Floors are those of the "
    "reference."
)


def sets_of(folder: Path) -> list[Path]:
    """The sets of a comparison: folders with a leaderboard; the folder itself if it is such a one."""
    if (folder / LEADERBOARD).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{LEADERBOARD}"))


def write_comparison(
    folder: Path, out: Path, limit: int | None, build: Build, seed: int | None = None
) -> tuple[int, str]:
    """Write the page of a comparison on one set.

    Args:
        folder: Of the set, in the comparison's.
        out: The page.
        limit: How many cases it shows; None for as many as make a page of some 10 MB.
        build: From the words of a command to what it comes to.
        seed: Of the trainings whose maps and calibration are shown; None for the first of each experiment.

    Returns:
        Its size in bytes, and a sentence about the cases that it shows.

    Raises:
        InputError: If nothing is finished, or nothing of this seed, or something that a run was made of is not there
            any more.
    """
    rows = read_rows(folder / LEADERBOARD)
    trainings = finished(folder, rows)
    if not trainings:
        raise InputError(f"{folder}: no experiment is finished, so there is nothing to report; run hrcam compare again")
    reference = reference_of(rows)
    chosen = _chosen(folder, trainings, seed)
    home = reference if reference in chosen else next(iter(chosen))
    chosen = {home: chosen[home]} | chosen  # so that it has the first colour in every figure
    trainings = {home: trainings[home]} | trainings
    order = order_of(outcomes_of(chosen[home]))
    builts: dict[str, Built] = {}
    made: dict[str, MapCollector] = {}
    for name, tested in chosen.items():
        builts[name] = build(test_words(tested.folder, "--ckpt_path", "best"))
        count = limit if name == home else len(made[home].seen)
        made[name] = collect(tested, builts[name], order, count, len(chosen) - 1)
    classes = builts[home].task.classes
    assert classes is not None
    browser, about = _browser(chosen, made, classes, home)
    sections = [
        Section("What was compared", _what(folder, chosen, trainings, builts[home], reference), "what"),
        *board_sections(folder, rows, reference),
        curves_section(joined_curves(trainings, home), chosen[home].floors, CURVES),
        calibration_section({name: tested.scores for name, tested in chosen.items()}, classes),
        costs_section(folder),
    ]
    title = f"{folder.resolve().parent.name} on {folder.resolve().name}"
    return write_page(out, title, about, sections, browser, scripts()), about


def finished(folder: Path, rows: Sequence[Row]) -> Trainings:
    """The trainings that each experiment's row rests on, in the order of the leaderboard, all of the same test cases.

    Other trainings may lie beside them, of seeds that the comparison had before.

    Args:
        folder: Of the set.
        rows: Of the leaderboard.
    """
    found: Trainings = {}
    cases: tuple[str, ...] | None = None
    for name, seeds in ((row["row"], row["seeds"]) for row in rows if row["kind"] == "model"):
        for seed in sorted(map(int, seeds.split())):
            path = folder / name / f"seed_{seed}"
            record = read_record(path)
            if record is None or record.state != "finished" or not (path / "test/metrics.json").is_file():
                continue
            tested = read_evaluation(path)
            cases = cases or tested.scores.cases
            if tested.scores.cases == cases:
                found.setdefault(name, {})[seed] = tested
    return found


def _chosen(folder: Path, trainings: Trainings, seed: int | None) -> dict[str, Evaluation]:
    """Of each experiment the training of this seed, if it has one, or its first."""
    if seed is None:
        return {name: _first(runs) for name, runs in trainings.items()}
    chosen = {name: runs[seed] for name, runs in trainings.items() if seed in runs}
    if not chosen:
        seeds = ", ".join(map(str, sorted({one for runs in trainings.values() for one in runs})))
        raise InputError(f"--seed is {seed}, but what is finished in {folder} has the seeds {seeds}: give one of them")
    return chosen


def _first(runs: Mapping[int, Evaluation]) -> Evaluation:
    return runs[min(runs)]


def joined_curves(trainings: Trainings, home: str) -> Curves:
    """The curves of all experiments' own maps, each the mean over its trainings; floors and the ideal observer once."""
    joined: Curves = {}
    for name, runs in trainings.items():
        others = [OBSERVER, *_first(runs).floors] if name == home else []
        for panel in dict.fromkeys(panel for run in runs.values() for panel in run.curves):
            for row in (MODEL, *others):
                points = [run.curves[panel][row] for run in runs.values() if row in run.curves.get(panel, {})]
                if points:
                    joined.setdefault(panel, {})[name if row == MODEL else row] = _mean(points)
    return joined


def _mean(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean of several curves at the places that all have; of a single one itself."""
    if len(curves) == 1:
        return list(curves[0])
    places = [{point.x: point for point in curve} for curve in curves]
    shared = [x for x in places[0] if all(x in of for of in places)]
    means = []
    for x in shared:
        points = [of[x] for of in places]
        values, binned = [point.y for point in points], points[0].n > 0
        low, high = (min(values), max(values)) if binned else (math.nan, math.nan)
        means.append(points[0]._replace(y=float(np.mean(values)), low=low, high=high))
    return means


def _browser(
    chosen: Mapping[str, Evaluation], made: Mapping[str, MapCollector], classes: Sequence[str], home: str
) -> tuple[Browser, str]:
    """The cases with the maps of all experiments, where they are on one grid."""
    own = made[home].seen
    spacings = {case: one.spacing for case, one in own.items()}
    facts = {name: case_facts(tested, classes, spacings) for name, tested in chosen.items()}
    shapes = {case: one.image.shape for case, one in own.items()}
    fits = [
        name
        for name, one in made.items()
        if {case: of.image.shape for case, of in one.seen.items()} == shapes and not one.drop_broken()
    ]
    cases = []
    for case in sorted(own):
        seen, told = own[case], facts[home][case]
        cases.append(
            CaseView(
                case=case,
                image=seen.image,
                spacing=seen.spacing or (1.0,) * seen.image.ndim,
                truth=told.truth,
                called=told.called,
                probabilities=told.probabilities,
                outcome=told.outcome,
                masks=dict(zip(classes, seen.masks, strict=True)),
                maps={name: dict(zip(classes, made[name].seen[case].maps[MODEL], strict=True)) for name in fits},
                size_mm=told.size_mm,
                dprime=told.dprime,
                facts={name: _words(of[case], classes) for name, of in facts.items()},
                affine=seen.affine,
            )
        )
    kinds = [kind_of(chosen[name].maps[0], name, classes, made[name].thresholds) for name in fits]
    about = shown_sentence(chosen[home], [one.outcome for one in cases])
    about += f" Outcomes, and the probabilities in the list, are those of {home}, seed {_seed(chosen[home])}."
    left = [name for name in made if name not in fits]
    if left:
        about += f" The maps of {', '.join(left)} are on another grid, or hold NaN, and are not shown."
    return Browser(tuple(classes), tuple(kinds), tuple(cases)), about


def _words(facts: CaseFacts, classes: Sequence[str]) -> str:
    """``hit, P 0.98``; of several classes the probability of each."""
    names = [f"P({name})" if len(classes) > 1 else "P" for name in classes]
    chances = [f"{name} {facts.probabilities[label]:.2f}" for name, label in zip(names, classes, strict=True)]
    return ", ".join([facts.outcome] * bool(facts.outcome) + chances)


def _seed(tested: Evaluation) -> str:
    return tested.folder.name.removeprefix("seed_")


def _what(folder: Path, chosen: Mapping[str, Evaluation], trainings: Trainings, built: Built, reference: str) -> str:
    facts = {
        "folder": str(folder),
        **data_facts(next(iter(chosen.values())), built),
        "reference": reference,
        "experiments": ", ".join(f"{name} ({_count(len(runs))})" for name, runs in trainings.items()),
        "maps and calibration": ", ".join(f"{name}: seed {_seed(tested)}" for name, tested in chosen.items()),
        "this page": VERSIONS,
    }
    configs = "".join(
        folded(f"{name}, seed {_seed(tested)}: config.yaml", yaml_html(tested.config))
        for name, tested in chosen.items()
    )
    return facts_html(facts) + configs


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"
