"""What a study leaves: ``results.csv``, ``cases.csv``, ``dice.csv``, ``metrics.json``, ``table.md``, two pictures."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hrcam_lightning.files import replacing, write_csv, write_json
from hrcam_lightning.filtered.dice import RULES, four
from hrcam_lightning.filtered.intervals import resampled, weighted_accuracy, weighted_auroc
from hrcam_lightning.filtered.pictures import draw_examples, draw_scores
from hrcam_lightning.metrics.crossed import percentile_estimate
from hrcam_lightning.metrics.estimate import mean_estimate

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.callbacks.explainers import Explainer
    from hrcam_lightning.data.module import Split
    from hrcam_lightning.filtered.study import Findings, Protocol
    from hrcam_lightning.metrics import Estimate
    from hrcam_lightning.metrics.estimate import Floats

PAIRS = (
    ("inside", "random_inside"),
    ("outside", "random_outside"),
    ("outside", "truth_outside"),
    ("truth_inside", "truth_outside"),
)
"""Differences that are told beside those from the originals."""

SCORED: tuple[Split, ...] = ("train", "test")

Scores = dict[str, dict[str, "Estimate"]]


def report(folder: Path, protocol: Protocol, explainer: Explainer, findings: Findings) -> None:
    """Write all files and print the tables."""
    overlap, thresholds, cases = _dice(findings, protocol)
    scores = _scores(findings)
    labels = findings.facts["test"].labels.astype(np.float64)
    one = np.ones((1, len(labels)))
    rows = [
        {
            "kind": kind,
            "seed": protocol.seed + number,
            "auroc": f"{weighted_auroc(logits, labels, one)[0]:.6g}",
            "accuracy": f"{weighted_accuracy(logits, labels, one)[0]:.6g}",
        }
        for kind, trainings in findings.logits.items()
        for number, logits in enumerate(trainings)
    ]
    settings = {**asdict(protocol), "explainer": explainer.key, "mask_pixels": findings.area}
    counts = {split: len(facts.names) for split, facts in findings.facts.items()}
    content = {
        "settings": settings,
        "cases": counts,
        "thresholds": thresholds,
        "dice": {f"{split}/{rule}": found.to_dict() for split, of in overlap.items() for rule, found in of.items()},
        **{name: {kind: found.to_dict() for kind, found in of.items()} for name, of in scores.items()},
    }
    write_csv(folder / "results.csv", rows, ["kind", "seed", "auroc", "accuracy"])
    tested = _tested(findings, protocol.seed)
    write_csv(folder / "cases.csv", tested, list(tested[0]))
    write_csv(folder / "dice.csv", cases, ["split", "case", "subject", "fold", "lesion_pixels", *RULES])
    for name, figure in {"examples": draw_examples(findings), "scores": draw_scores(scores["auroc"])}.items():
        with replacing(folder / f"{name}.png") as part:
            figure.savefig(part, dpi=110, metadata={"Software": None})
    tables = [_retrained(scores), _overlaps(overlap, thresholds)]
    with replacing(folder / "table.md") as part:
        part.write_text("\n".join(_markdown(*table) for table in tables), encoding="utf-8")
    write_json(folder / "metrics.json", content)  # last: who finds it finds all
    console = Console()
    for table in tables:
        console.print(_rich(*table))
    console.print(f"Files: {folder}", highlight=False, soft_wrap=True)


def _tested(findings: Findings, seed: int) -> list[dict[str, Any]]:
    """Rows of ``cases.csv``: each test case, and its logit by each training."""
    facts = findings.facts["test"]
    columns = {
        f"{kind}/seed_{seed + number}": logits
        for kind, trainings in findings.logits.items()
        for number, logits in enumerate(trainings)
    }
    return [
        # Nine digits tell any two float32 apart.
        {"case": name, "subject": subject, "label": label, **{key: f"{of[row]:.9g}" for key, of in columns.items()}}
        for row, (name, subject, label) in enumerate(
            zip(facts.names, facts.subjects, facts.labels.tolist(), strict=True)
        )
    ]


def _dice(findings: Findings, protocol: Protocol) -> tuple[Scores, dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Mean Dice, thresholds and the rows of ``dice.csv``, of training cases (out of fold) and test cases."""
    means: Scores = {}
    thresholds: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for split in SCORED:
        facts = findings.facts[split]
        positives = np.flatnonzero(facts.labels == 1)
        by_rule, found = four(findings.curves[split], findings.curves["val"])
        thresholds[split] = {"fixed": protocol.threshold, **found}
        means[split] = {}
        for rule, values in by_rule.items():
            known = np.isfinite(values)
            subject = facts.subject_numbers[positives]
            reason = "no positive case has a mask"
            means[split][rule] = mean_estimate(
                np.where(known, values, 0), known.astype(np.float64), reason, subject=subject, signed=True
            )
        for row, index in enumerate(positives.tolist()):
            texts = {rule: "" if math.isnan(of[row]) else f"{of[row]:.6g}" for rule, of in by_rule.items()}
            home = int(findings.fold[index]) if split == "train" else ""
            where = {"split": split, "case": facts.names[index], "subject": facts.subjects[index], "fold": home}
            rows.append({**where, "lesion_pixels": int(facts.areas[index]), **texts})
    return means, thresholds, rows


def _scores(findings: Findings) -> Scores:
    """AUROC and accuracy of each kind, and their differences."""
    facts = findings.facts["test"]
    kinds = list(findings.logits)
    logits = np.stack(list(findings.logits.values()))
    found: Scores = {}
    for name, score in {"auroc": weighted_auroc, "accuracy": weighted_accuracy}.items():
        draws = resampled(score, logits, facts.labels.astype(np.float64), facts.subject_numbers)
        of: dict[str, Floats] = dict(zip(kinds, draws, strict=True))
        pairs = [(kind, "original") for kind in kinds[1:]] + [pair for pair in PAIRS if set(pair) <= set(kinds)]
        cases = len(facts.names)
        found[name] = {kind: percentile_estimate(of[kind], cases) for kind in kinds}
        found[f"{name}_difference"] = {f"{a}-{b}": percentile_estimate(of[a] - of[b], cases) for a, b in pairs}
    return found


def _retrained(scores: Scores) -> tuple[str, list[str], list[list[str]]]:
    gaps = scores["auroc_difference"]
    rows = [
        [
            kind,
            _text(scores["auroc"][kind]),
            _text(gaps[f"{kind}-original"], "+") if kind != "original" else "",
            _text(scores["accuracy"][kind]),
        ]
        for kind in scores["auroc"]
    ]
    rows += [
        [pair.replace("-", " − "), "", _text(gap, "+"), ""] for pair, gap in gaps.items() if "original" not in pair
    ]
    return "trained and tested on", ["", "test AUROC", "difference from original", "test accuracy"], rows


def _overlaps(means: Scores, thresholds: dict[str, dict[str, float]]) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [rule, *(text for split in SCORED for text in (_limit(thresholds[split].get(rule)), _text(means[split][rule])))]
        for rule in RULES
    ]
    header = ["threshold", "train, out of fold: at", "mean Dice", "test: at", "mean Dice"]
    return "maps as segmentations of positive cases", header, rows


def _limit(value: float | None) -> str:
    return "each its own" if value is None else f"{value:.2f}"


def _text(found: Estimate, sign: str = "") -> str:
    if math.isnan(found.value):
        return "undefined"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _markdown(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [
        f"{title}, 95 % intervals:",
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)),
    ]
    return "\n".join(lines) + "\n"


def _rich(title: str, header: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table
