"""Sets that several comparisons draw, and what a network costs on the images of one."""

from __future__ import annotations

import fcntl
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hrcam_lightning.cli import main
from hrcam_lightning.compare import cost, datasets
from hrcam_lightning.compare.schema import DataSet
from hrcam_lightning.errors import InputError
from tests.command_line import CASES, SMALL

if TYPE_CHECKING:
    from pathlib import Path


def test_two_comparisons_draw_a_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    said: list[str] = []
    wanted = DataSet("demo", tmp_path / "data/demo/cases.csv", ("demo.yaml",), ceiling=True)

    def synth(*words: str, lock: int) -> None:
        assert lock > 2
        drawn.append(words[0])
        path = wanted.cases.with_name("cases.csv" if words[0] == "generate" else "ceiling.json")
        path.parent.mkdir(exist_ok=True)
        path.touch()

    monkeypatch.setattr(datasets, "_synth", synth)
    wanted.cases.parent.parent.mkdir()

    def other(file: Any) -> None:
        synth("generate", lock=3)
        fcntl.flock(file, fcntl.LOCK_UN)

    with (tmp_path / "data/.demo.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, other, [file])
        timer.start()
        datasets.draw(wanted, said.append)
        timer.join()
    assert drawn == ["generate", "observer"]
    assert said[0].startswith("another comparison draws ")
    assert said[1].startswith("the ideal observer reads ")
    datasets.draw(wanted, said.append)
    assert len(drawn) == len(said) == 2


def test_a_set_of_another_specification_is_refused(tiny_set: Path, spec_path: Path) -> None:
    said: list[str] = []
    same = DataSet("demo", tiny_set / "cases.csv", (str(spec_path), "--seed", "3"))
    before = (tiny_set / "cases.csv").stat().st_mtime_ns
    datasets.draw(same, said.append)
    with pytest.raises(InputError, match=r"holds a set with another seed \(3, not 99\)"):
        datasets.draw(replace(same, generate=(str(spec_path), "--seed", "99")), said.append)
    assert said == []
    assert (tiny_set / "cases.csv").stat().st_mtime_ns == before
    index = tiny_set / "dataset.json"  # what an earlier version drew cannot be drawn again
    index.write_text(json.dumps(json.loads(index.read_text()) | {"generator": "synth 0.1.0"}), encoding="utf-8")
    datasets.draw(replace(same, generate=(str(spec_path), "--seed", "99")), said.append)


def test_a_cost_is_of_images_that_the_network_sees(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, run = tiny_set / "cases.csv", tmp_path / "run"
    main(["fit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(run), "--trainer.max_epochs", "1"])
    whole = torch.load(run / "best.ckpt", weights_only=True)
    parameters, ratio = cost.measure(run / "best.ckpt", cases)
    assert parameters == sum(v.numel() for k, v in whole["state_dict"].items() if "weight" in k or "bias" in k)
    assert ratio is not None
    assert ratio > 0
    state = whole["CaseDataModule"]
    for changed in (
        {"CaseDataModule": {**state, "framing": {**state["framing"], "shape": [8, 8], "fit": "stretch"}}},
        {"CaseDataModule": {**state, "slices": "axial"}},
        {"hyper_parameters": {**whole["hyper_parameters"], "window": [8, 8]}},
    ):
        torch.save({**whole, **changed}, run / "changed.ckpt")
        assert cost.measure(run / "changed.ckpt", cases) == (parameters, None)
    table = tmp_path / "cases.csv"  # labels that only the run's settings explain
    table.write_text("image,label,mask\n" + "".join(
        f"{image},{label},\n"
        for image, label in zip(sorted(tiny_set.glob("images/*")), ("benign", "malignant"), strict=False)
    ))  # fmt: skip
    assert cost.measure(run / "best.ckpt", table)[1] is not None

    def full(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cost, "read_image", full)
    assert cost.measure(run / "best.ckpt", cases) == (parameters, None)
