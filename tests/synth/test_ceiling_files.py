"""The ceiling that a set carries: the readings behind the scores, and the set that they are of."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from synth.cli import main
from synth.dataset import generate
from synth.scores import area
from synth.verify import open_set, problems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synth import PhantomSpec

HEAD = {"shape": [48, 48], "spacing_mm": [1.0, 1.0], "anatomy": {"kind": "head"}}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ceiling.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_readings_give_the_scores(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    generate(tmp_path, make_spec(), seed=3, splits={"train": 3, "test": 20})
    assert (
        main(["observer", "--dataset", str(tmp_path), "--write", "--templates", "8", "-o", f"{tmp_path}/o.json"]) == 0
    )
    index, found = json.loads((tmp_path / "ceiling.json").read_text()), open_set(tmp_path)
    assert index["hash"] == found.info["hash"]
    assert index["split"] == "test"
    assert {**index, "hash": 0, "split": 0} == {**json.loads((tmp_path / "o.json").read_text()), "hash": 0, "split": 0}
    rows, cases = _rows(tmp_path), [row for row in found.cases if row["split"] == "test"]
    assert [row["case"] for row in rows] == [row["case"] for row in cases]
    present = np.array([row["label"] == "lesion" for row in cases])
    rating, located, hit = (np.array([float(row[name]) for row in rows]) for name in ("rating", "located", "hit"))
    scores, rng = index["classes"]["lesion"], np.random.default_rng(0)
    assert hit[present].mean() == pytest.approx(scores["pointing"]["value"])
    assert not hit[~present].any()
    for ratings, credit, name in ((rating, np.ones(present.sum()), "image_auroc"), (located, hit[present], "lroc")):
        own = area(ratings, present, credit, rng)
        assert own is not None
        assert own.value == pytest.approx(scores[name]["value"])
    assert (located <= rating).all()
    (tmp_path / "o.json").unlink()
    assert problems(tmp_path) == []  # the set is as generated, whatever lies beside its tables
    before = (tmp_path / "ceiling.csv").read_bytes()
    assert main(["observer", "--dataset", str(tmp_path), "--write", "--templates", "8"]) == 0
    assert (tmp_path / "ceiling.csv").read_bytes() == before


def test_a_reader_who_is_told_places_leaves_them_empty(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    lesion = {"radius_mm": [2, 3], "dprime": [3, 4], "count": [1, 2]}
    spec = make_spec(**HEAD, task="multilabel", lesions={"one": lesion, "two": lesion})
    generate(tmp_path, spec, splits={"test": 6})
    assert main(["observer", "--dataset", str(tmp_path), "--write"]) == 0
    assert json.loads((tmp_path / "ceiling.json").read_text())["kind"] == "known_exactly"
    rows = _rows(tmp_path)
    assert [row["class"] for row in rows] == ["one", "two"] * 6
    assert all(row["located"] == row["hit"] == "" for row in rows)
    assert all(np.isfinite(float(row["rating"])) for row in rows)


@pytest.mark.parametrize("more", [["--cases", "3"], None])
def test_part_of_a_set_or_none_has_no_ceiling_to_leave(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str] | None
) -> None:
    generate(tmp_path / "set", make_spec(), splits={"test": 4})
    make_spec().to_yaml(tmp_path / "spec.yaml")
    source = ["--dataset", str(tmp_path / "set"), *more] if more else [str(tmp_path / "spec.yaml")]
    assert main(["observer", *source, "--write"]) == 2
    assert "--write leaves the ceiling of the whole test split of a set" in capsys.readouterr().err
    assert not (tmp_path / "set/ceiling.json").exists()
