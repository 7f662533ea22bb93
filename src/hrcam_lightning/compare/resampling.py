"""Scores of all rows on the same resamples of cases and trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hrcam_lightning.callbacks.explainers import MODEL
from hrcam_lightning.metrics.crossed import crossed_weights
from hrcam_lightning.metrics.roc import weighted_lroc_area

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hrcam_lightning.compare.scores import Run
    from hrcam_lightning.metrics.estimate import Floats, Ints

AUROC, ACCURACY = "auroc", "accuracy"

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """The trainings of a row-to-be: sums over classes of each score, and how many there are, by seed and subject."""

    runs: dict[int, Run]
    explainer: str
    sums: dict[str, dict[int, Floats]]
    counts: dict[str, dict[int, Floats]]


def entry_of(runs: dict[int, Run], explainer: str, subject: Ints) -> Entry:
    """Sum up the scores of an explainer by subject.

    Args:
        runs: By seed.
        explainer: Whose scores.
        subject: (n,) number of whose each case is.
    """
    units = int(subject.max()) + 1
    sums: dict[str, dict[int, Floats]] = {}
    counts: dict[str, dict[int, Floats]] = {}
    for seed, run in runs.items():
        values = dict(run.scores[explainer])
        if explainer == MODEL and ACCURACY in run.figures[MODEL]:
            right = run.probability.argmax(1) == run.label.argmax(1)
            values[ACCURACY] = right[:, None].astype(np.float64)
        told = run.figures.get(explainer, {})
        for metric, of_cases in values.items():
            # What the test calls undefined, for maps or probabilities with NaN, is no mean of the cases that are left.
            known = np.isfinite(of_cases) & (not math.isnan(told.get(metric, 0.0)))
            total = np.where(known, of_cases, 0).sum(1)
            sums.setdefault(metric, {})[seed] = np.bincount(subject, total, units).astype(np.float64)
            counts.setdefault(metric, {})[seed] = np.bincount(subject, known.sum(1), units).astype(np.float64)
    return Entry(runs, explainer, sums, counts)


def draws_of(
    entries: Mapping[str, Entry], reference: str, subject: Ints, resamples: int
) -> tuple[dict[Seeds, dict[str, dict[str, Floats]]], dict[str, Seeds]]:
    """Resampled scores by trainings, row and metric; and the trainings that each row shares with the reference.

    A row that lacks a training, one having failed, is compared with the reference on those that both have.
    """
    wanted: dict[Seeds, list[str]] = {}
    common: dict[str, Seeds] = {}
    for name, entry in entries.items():
        wanted.setdefault(tuple(entry.runs), []).append(name)
        if reference in entries:
            shared = tuple(seed for seed in entry.runs if seed in entries[reference].runs)
            common[name] = shared
            if shared:
                wanted.setdefault(shared, []).extend([name, reference])
    return {
        seeds: _resample({name: entries[name] for name in dict.fromkeys(names)}, seeds, subject, resamples)
        for seeds, names in wanted.items()
    }, common


def _resample(
    entries: Mapping[str, Entry], seeds: Seeds, subject: Ints, resamples: int
) -> dict[str, dict[str, Floats]]:
    units = int(subject.max()) + 1
    means = [(name, metric) for name, entry in entries.items() for metric in entry.sums]
    columns = np.stack(
        [
            of[metric][seed]
            for name, metric in means
            for of in (entries[name].sums, entries[name].counts)
            for seed in seeds
        ],
        axis=1,
    )
    found: dict[str, dict[str, Floats]] = {name: {} for name in entries}
    ratios = np.empty((len(means), 1 + resamples))
    areas = {name: np.empty(1 + resamples) for name, entry in entries.items() if _has_auroc(entry)}
    for part, of_units, of_trainings in crossed_weights(units, len(seeds), len(subject), resamples):
        totals = (of_units @ columns).reshape(len(of_units), len(means), 2, len(seeds))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios[:, part] = ((totals[:, :, 0] / totals[:, :, 1]) * of_trainings[:, None]).sum(2).T / len(seeds)
        of_cases = of_units[:, subject]
        for name in areas:
            values = np.stack([_auroc(entries[name].runs[seed], of_cases) for seed in seeds], axis=1)
            areas[name][part] = (values * of_trainings).sum(1) / len(seeds)
    for (name, metric), values in zip(means, ratios, strict=True):
        if not math.isnan(values[0]):
            found[name][metric] = values
    for name, values in areas.items():
        if not math.isnan(values[0]):
            found[name][AUROC] = values
    return found


def _has_auroc(entry: Entry) -> bool:
    return entry.explainer == MODEL and all(
        math.isfinite(run.figures[MODEL].get(AUROC, math.nan)) for run in entry.runs.values()
    )


def _auroc(run: Run, weights: Floats) -> Floats:
    """Mean over the classes that have cases of both kinds."""
    label = run.label
    both = np.flatnonzero((label.min(0) == 0) & (label.max(0) == 1))
    if not both.size:
        return np.full(len(weights), math.nan)
    whole = np.ones(len(label))
    return np.asarray(
        np.mean([weighted_lroc_area(run.probability[:, k], label[:, k], whole, weights) for k in both], axis=0)
    )
