"""From tested runs to rows: means over trainings, intervals over cases and trainings, differences to a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.compare.resampling import ACCURACY, AUROC, draws_of, entry_of
from hrcam_lightning.metrics.crossed import percentile_estimate
from hrcam_lightning.metrics.estimate import Estimate, wilson
from hrcam_lightning.metrics.paired import permutation_ps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hrcam_lightning.compare.resampling import Entry, Seeds
    from hrcam_lightning.compare.scores import Run
    from hrcam_lightning.metrics.estimate import Floats

SHARES = (AUROC, ACCURACY, "pointing")
"""Scores of which an interval of no width, at 0 or 1, is not believed."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard.

    Attributes:
        name: Of the experiment, or ``experiment/explainer``.
        kind: ``model``, ``explainer``, ``floor``, ``ceiling`` or ``failed``.
        seeds: Trainings that it rests on.
        cases: Their test cases.
        estimates: Scores with intervals over cases and trainings.
        differences: To the reference, with p where the score is a mean over cases.
        figures: Other figures: mean over trainings and standard deviation, NaN of a single one.
        trainings: All figures of each training, by seed; NaN where undefined.
        efficiency: Share of the ceiling, mean over trainings.
        parameters: Of the network.
        reason: What is not there, and why.
    """

    name: str
    kind: str
    seeds: Seeds = ()
    cases: int = 0
    estimates: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)
    trainings: dict[int, dict[str, float]] = field(default_factory=dict)
    efficiency: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    reason: str = ""

    def value(self, metric: str) -> float:
        """Mean over trainings; NaN where undefined."""
        if metric in self.estimates:
            return self.estimates[metric].value
        return self.figures.get(metric, (math.nan, math.nan))[0]


def leaderboard(
    runs: Mapping[str, Mapping[int, Run]],
    reference: str,
    floors: frozenset[str] = frozenset(),
    resamples: int = 1000,
    permutations: int = 9999,
) -> list[Row]:
    """Rows of all maps, floors and the ceiling, not sorted.

    Args:
        runs: By experiment and seed, all of the same test cases; at least one.
        reference: Experiment whose own map the others are compared with.
        floors: Names of explainers that have not seen the disease; one row each, of the reference or else
            the first that has it.
        resamples: Of the intervals.
        permutations: Of p.
    """
    first = next(iter(next(iter(runs.values())).values()))
    _, subject = np.unique(first.subjects, return_inverse=True)
    shown = {
        experiment: tuple(dict.fromkeys(one for run in of_seeds.values() for one in run.scores))
        for experiment, of_seeds in runs.items()
    }
    first_to_last = sorted(runs, key=lambda experiment: experiment != reference)
    homes = {explainer: experiment for experiment in reversed(first_to_last) for explainer in shown[experiment]}
    entries: dict[str, Entry] = {}
    for experiment, of_seeds in runs.items():
        for explainer in shown[experiment]:
            if explainer in floors and experiment != homes[explainer]:
                continue
            name = experiment if explainer == MODEL else f"{experiment}/{explainer}"
            name = explainer if explainer in floors else name
            having = {seed: run for seed, run in of_seeds.items() if explainer in run.scores}
            entries[name] = entry_of(having, explainer, subject)
    draws, common = draws_of(entries, reference, subject, resamples)
    rows = []
    for name, entry in entries.items():
        seeds = tuple(entry.runs)
        of = draws[seeds][name]
        kind = "floor" if entry.explainer in floors else "model" if entry.explainer == MODEL else "explainer"
        estimates = {
            metric: _cautious(percentile_estimate(values, len(first.cases)), metric, entry)
            for metric, values in of.items()
        }
        differences: dict[str, Estimate] = {}
        if name != reference and common.get(name):
            mine, other = draws[common[name]][name], draws[common[name]][reference]
            differences = {
                metric: percentile_estimate(mine[metric] - other[metric], len(first.cases))
                for metric in mine
                if metric in other
            }
        figures, trainings = _figures(entry, estimates), _trainings(entry)
        shares = _efficiency(entry)
        rows.append(Row(name, kind, seeds, len(first.cases), estimates, differences, figures, trainings, shares))
    rows = _with_p(rows, entries, reference, common, permutations)
    ceiling = {metric: (value, math.nan) for metric, value in first.ceiling.items() if not math.isnan(value)}
    if ceiling:
        kind = first.ceiling_kind.replace("_", " ")
        rows.append(Row(f"ideal observer ({kind})", "ceiling", (), len(first.cases), figures=ceiling))
    return rows


def _cautious(estimate: Estimate, metric: str, entry: Entry) -> Estimate:
    """Wilson's interval where no resample could move a share from 0 or 1."""
    if metric not in SHARES or estimate.low != estimate.high or estimate.value not in (0, 1):
        return estimate
    if metric == AUROC:
        label = next(iter(entry.runs.values())).label
        trials = float(np.minimum(label.sum(0), (1 - label).sum(0)).max())
    else:
        trials = float((next(iter(entry.counts[metric].values())) > 0).sum())
    low, high = wilson(estimate.value * trials, trials)
    return replace(estimate, low=low, high=high)


def _figures(entry: Entry, estimates: Mapping[str, Estimate]) -> dict[str, tuple[float, float]]:
    """Figures that no case has of its own: mean and spread over the trainings that have them."""
    found = {}
    of_runs = [run.figures[entry.explainer] for run in entry.runs.values()]
    for metric in dict.fromkeys(name for figures in of_runs for name in figures):
        values = [figures.get(metric, math.nan) for figures in of_runs]
        if metric in estimates or any(math.isnan(value) for value in values):
            continue
        found[metric] = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return found


def _trainings(entry: Entry) -> dict[int, dict[str, float]]:
    """What a mean over trainings hides: the figures that the test told, and means of scores of which it told none."""
    found = {}
    for seed, run in entry.runs.items():
        told = run.figures.get(entry.explainer, {})
        missing = [name for name, of in entry.counts.items() if name not in told and of[seed].any()]
        found[seed] = told | {name: float(_share(entry, name, seed).sum()) for name in missing}
    return found


def _efficiency(entry: Entry) -> dict[str, float]:
    if entry.explainer != MODEL:
        return {}
    of_runs = [run.efficiency for run in entry.runs.values()]
    means = {metric: float(np.mean([one.get(metric, math.nan) for one in of_runs])) for metric in of_runs[0]}
    return {metric: value for metric, value in means.items() if not math.isnan(value)}


def _with_p(
    rows: list[Row], entries: Mapping[str, Entry], reference: str, common: Mapping[str, Seeds], permutations: int
) -> list[Row]:
    """Permutation p of all differences that are means over cases, swapping the two a subject at a time.

    A subject's difference is its mean over the trainings, so that p is of these trainings, not of others.
    """
    gaps: dict[tuple[str, str], Floats] = {}
    for row in rows:
        for metric in row.differences:
            mine, other = entries[row.name], entries[reference]
            if metric in mine.sums:
                gaps[row.name, metric] = np.sum(
                    [_share(mine, metric, seed) - _share(other, metric, seed) for seed in common[row.name]], axis=0
                )
    if not gaps:
        return rows
    found = dict(zip(gaps, permutation_ps(np.stack(list(gaps.values()), axis=1), permutations).tolist(), strict=True))
    return [
        replace(
            row,
            differences={
                metric: replace(gap, p=found.get((row.name, metric), math.nan))
                for metric, gap in row.differences.items()
            },
        )
        for row in rows
    ]


def _share(entry: Entry, metric: str, seed: int) -> Floats:
    """What each subject adds to the mean of a training."""
    return np.asarray(entry.sums[metric][seed] / entry.counts[metric][seed].sum())


def lower_is_better(metric: str) -> bool:
    """Whether a low value is a good one."""
    return metric in ("normal/false_activation", "cue/relevance_mass", "displacement_px")


def ordered(rows: Sequence[Row], sort_by: str) -> list[Row]:
    """Best first; floors, the ceiling and what failed at the end, in this order."""
    last = {"floor": 1, "ceiling": 2, "failed": 3}

    def rank(row: Row) -> tuple[int, float, str]:
        value = row.value(sort_by)
        signed = value if lower_is_better(sort_by) else -value
        return last.get(row.kind, 0), math.inf if math.isnan(value) else signed, row.name

    return sorted(rows, key=rank)


def clear_winner(rows: Sequence[Row], metric: str) -> Row | None:
    """The best map if its interval lies apart from those of all others; floors and the ceiling do not compete."""
    known = [row for row in rows if row.kind in ("model", "explainer") and metric in row.estimates]
    known = [row for row in known if not math.isnan(row.estimates[metric].low)]
    if len(known) < 2:
        return None
    best = max(known, key=lambda row: row.estimates[metric].value)
    others = [row.estimates[metric].high for row in known if row is not best]
    return best if best.estimates[metric].low > max(others) else None
