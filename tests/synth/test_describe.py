from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from synth import Phantoms, PhantomSpec
from synth.dataset import generate
from synth.describe import histograms, summarise
from synth.verify import open_set

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWO = {"a": {"radius_mm": [2.2, 2.6], "cnr": 3}, "b": {"radius_mm": 2.2, "cnr": [1, 2], "polarity": "dark"}}


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_summary_agrees_with_the_cases(
    make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path, task: str
) -> None:
    spec = make_spec(dimensions, task=task, lesions=TWO)
    generate(tmp_path / "out", spec, splits={"train": 20, "val": 0, "test": 10})
    summary = summarise(open_set(tmp_path / "out"))
    phantoms = Phantoms(spec, 0)
    cases = {"train": [phantoms[index] for index in range(20)], "test": [phantoms[index] for index in range(20, 30)]}
    assert {split: sum(labels.values()) for split, labels in summary.splits.items()} == {
        "train": 20,
        "val": 0,
        "test": 10,
    }
    for name, shares in summary.prevalence.items():
        having = {split: np.mean([name in case.label_text.split("|") for case in own]) for split, own in cases.items()}
        assert shares == pytest.approx(having)
        lesions = [lesion for own in cases.values() for case in own for lesion in case.lesions]
        lesions = [lesion for lesion in lesions if lesion.class_name == name]
        measures = summary.measures[name]
        assert measures["dprime"] == pytest.approx([lesion.dprime for lesion in lesions])
        assert measures["delta"] == pytest.approx([lesion.delta for lesion in lesions])
        diameters = [2 * np.prod(lesion.radii_mm) ** (1 / dimensions) for lesion in lesions]
        assert measures["diameter_mm"] == pytest.approx(diameters)
    assert {name for name, own in summary.measures.items() if (own["delta"] < 0).all()} == {"b"}
    histograms(summary, tmp_path / "out.png")
    assert np.asarray(Image.open(tmp_path / "out.png")).std() > 10


def test_a_set_without_lesions_is_described(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    generate(tmp_path / "out", make_spec(prevalence=0), splits={"test": 3})
    summary = summarise(open_set(tmp_path / "out"))
    assert summary.prevalence == {"lesion": {"test": 0}}
    assert summary.measures["lesion"]["cnr"].size == 0
    histograms(summary, tmp_path / "out.png")
