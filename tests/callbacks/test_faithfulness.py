"""Faithfulness from the command line: figures that can be found again, the same files, bad input."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning import LocalizationTask
from hrcam_lightning.callbacks import FaithfulnessMetrics, faithfulness, faithfulness_report
from hrcam_lightning.callbacks.faithfulness_report import report, report_sanity
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import explain
from hrcam_lightning.explain.faithfulness import deletion, drop_and_increase, insertion
from hrcam_lightning.explain.road import road
from hrcam_lightning.explain.sanity import sanity_check
from tests.command_line import CASES, again, error_of, rows_of

if TYPE_CHECKING:
    from pathlib import Path

ADD = "--trainer.callbacks+=FaithfulnessMetrics"
FILES = ("faithfulness.json", "faithfulness.csv", "sanity.csv", "sanity.png")


def test_a_test_run_writes_what_the_functions_say_and_the_same_again(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = again(
        "test", fitted, tiny_set / "cases.csv", ADD, "--trainer.callbacks.cases=2", "--trainer.callbacks.steps=5",
        "--trainer.callbacks.fill=0.5", "--trainer.callbacks.sanity=true",
        "--trainer.callbacks.explainers=[{method: hirescam, name: hires}, center]",
    )  # fmt: skip
    main(command)
    shown = capsys.readouterr().out
    assert "faithfulness" in shown
    assert "5 steps" in shown
    first = {name: (fitted / "test" / name).read_bytes() for name in FILES}
    main(command)
    assert {name: (fitted / "test" / name).read_bytes() for name in FILES} == first

    task = LocalizationTask.load_from_checkpoint(fitted / "best.ckpt", weights_only=True).eval()
    data = CaseDataModule(str(tiny_set / "cases.csv"))
    data.setup("test")
    dataset = data.dataset("test")
    cases = [dataset[index] for index in range(len(dataset)) if dataset[index]["label"] == 1][:2]
    images = torch.stack([case["image"] for case in cases])
    with torch.no_grad():
        maps = {"model": task(images).maps}
    maps |= {name: explain(task.network, images, name, target=1) for name in ("hirescam", "center")}
    found = rows_of(fitted / "test/faithfulness.csv")
    assert [row["case"] for row in found] == [case["case"] for case in cases for _ in range(3)]
    assert {row["class"] for row in found} == {"lesion"}
    for row in found:
        number = [case["case"] for case in cases].index(row["case"])
        method = {"hires": "hirescam"}.get(row["explainer"], row["explainer"])
        asked = (task.network, images[[number]], maps[method][[number]], 1)
        masked = drop_and_increase(*asked)
        expected = {
            "insertion": insertion(*asked, steps=5, fill=0.5).area,
            "deletion": deletion(*asked, steps=5, fill=0.5).area,
            "drop": masked.drop,
            "increase": masked.increase,
            "road": road(*asked).difference,
        }
        for name, figure in expected.items():
            assert float(row[name]) == pytest.approx(float(figure), rel=1e-4, abs=1e-6), (row, name)

    figures = json.loads(first["faithfulness.json"])
    assert figures.pop("settings") == {"cases": 2, "steps": 5, "fill": 0.5}
    assert len(figures) == 15
    for key, explainer in {"test/drop": "model", "test/hires/drop": "hires", "test/center/drop": "center"}.items():
        values = [float(row["drop"]) for row in found if row["explainer"] == explainer]
        assert figures[key]["value"] == pytest.approx(np.mean(values), rel=1e-4)
        assert figures[key]["n"] == 2
        assert figures[key]["low"] <= figures[key]["value"] <= figures[key]["high"]

    stages = sanity_check(task.network, images, "hirescam", target=1)
    rows = [row for row in rows_of(fitted / "test/sanity.csv") if row["explainer"] == "hires"]
    assert [row["layer"] for row in rows[: len(stages)]] == [stage.layer for stage in stages]
    assert rows[0]["layer"] == "decoder"
    expected_rows = [(stage.spearman[n], stage.ssim[n]) for n in range(2) for stage in stages]
    for row, pair in zip(rows, expected_rows, strict=True):
        for text, similarity in zip((row["spearman"], row["ssim"]), pair, strict=True):
            assert float(text or "nan") == pytest.approx(float(similarity), rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("cases=0", "cases is 0"),
        ("steps=0", "steps is 0"),
        ("chunk=-1", "chunk is -1"),
        ("fill=grey", "fill"),
        ("explainers=[gradkam]", "there is no explainer 'gradkam'"),
        ("explainers=[center, center]", "two rows are called center"),
    ],
)
def test_bad_input_is_one_sentence(
    option: str,
    words: str,
    tmp_path: Path,
    tiny_set: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", *CASES, str(tiny_set / "cases.csv"), ADD, f"--trainer.callbacks.{option}"]
    assert words in error_of(capsys, monkeypatch, *arguments)


FACTORS = torch.tensor([1.0, -1, 2])


class _Network(torch.nn.Module):
    """A probability for each of three classes, and maps that tell cases and classes apart."""

    task, classes, device = "multilabel", ["a", "b", "c"], torch.device("cpu")

    @property
    def network(self) -> _Network:
        return self

    def forward(self, images: torch.Tensor) -> Any:
        maps = images * FACTORS.view(1, 3, 1, 1)
        return SimpleNamespace(logits=maps.mean((2, 3)), maps=maps)


class _Data:
    """Two batches of four cases; the findings of each."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def in_order(self, split: str) -> list[dict[str, Any]]:
        assert split == "test"
        images = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        return [
            {"image": images[s : s + 4], "label": self.labels[s : s + 4], "case": [f"case{n}" for n in range(s, s + 4)]}
            for s in (0, 4)
        ]


FINDINGS = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]])


def _run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, labels: torch.Tensor, processes: int = 1, kind: str = "multilabel"
) -> list[dict[str, str]]:
    """What each of several processes finds, one after the other, written as a whole by the first."""
    network, callback = _Network(), FaithfulnessMetrics(cases=4, steps=3, explainers=["center"])
    network.task, network.classes = kind, (["a", "b", "c"] if kind == "multilabel" else ["a", "normal", "c"])
    parts: list[list[Any]] = []
    for rank in reversed(range(processes)):
        trainer = SimpleNamespace(
            fast_dev_run=False, world_size=processes, global_rank=rank, is_global_zero=rank == 0,
            default_root_dir=str(folder), datamodule=_Data(labels),
        )  # fmt: skip
        calls: list[Any] = []

        def gather(part: Any, calls: list[Any] = calls) -> list[Any]:
            calls.append(part)
            return [part, *(others[len(calls) - 1] for others in parts)]

        monkeypatch.setattr(faithfulness, "gather", gather)
        callback.on_test_epoch_end(trainer, network)  # type: ignore[arg-type]
        parts.append(calls)
    return rows_of(folder / "test/faithfulness.csv")


@pytest.mark.filterwarnings("ignore:.*trace.*")
def test_the_first_positive_cases_and_all_of_their_classes_in_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = _run(tmp_path / "one", monkeypatch, FINDINGS)
    pairs = [(row["case"], row["class"]) for row in alone if row["explainer"] == "model"]
    assert pairs == [("case1", "a"), ("case1", "c"), ("case3", "b"), ("case4", "c"), ("case6", "a")]
    figures = json.loads((tmp_path / "one/test/faithfulness.json").read_text())
    assert figures["test/road"]["n"] == 4  # cases, not classes
    for row in alone:
        if row["explainer"] == "model":
            image = _Data(FINDINGS).in_order("test")[int(row["case"][4]) // 4]["image"][[int(row["case"][4]) % 4]]
            k = "abc".index(row["class"])
            area = insertion(_Network(), image, image * FACTORS[k], k, steps=3, score="sigmoid").area
            assert float(row["insertion"]) == pytest.approx(float(area), rel=1e-4)
    shared = _run(tmp_path / "two", monkeypatch, FINDINGS, processes=2)
    assert [{name: row[name] for name in ("case", "class", "explainer")} for row in shared] == [
        {name: row[name] for name in ("case", "class", "explainer")} for row in alone
    ]
    for one, other in zip(alone, shared, strict=True):
        for name in faithfulness_report.METRICS:
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-4, abs=1e-6)


def test_normal_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _run(tmp_path, monkeypatch, torch.tensor([1, 0, 1, 2, 1, 1, 0, 2]), kind="multiclass")
    assert [(row["case"], row["class"]) for row in rows[::2]] == [
        ("case1", "a"), ("case3", "c"), ("case6", "a"), ("case7", "c"),
    ]  # fmt: skip


def test_without_a_positive_case_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, monkeypatch, torch.zeros(8, 3)) == []
    assert "undefined: no positive case" in capsys.readouterr().out
    figures = json.loads((tmp_path / "test/faithfulness.json").read_text())
    assert figures["test/road"]["value"] is None
    assert figures["test/road"]["reason"] == "no positive case"


def test_what_is_undefined_is_empty_and_not_counted(tmp_path: Path) -> None:
    metrics = dict.fromkeys(faithfulness_report.METRICS, 0.5)
    rows = [
        {"place": place, "case": f"c{place}", "class": "a", "explainer": "model", **metrics, "drop": drop}
        for place, drop in ((1, math.nan), (0, 0.25), (2, 0.75))
    ]
    report(tmp_path, rows, ["model"], [], {"cases": 3, "steps": 1, "fill": "blur"})
    found = rows_of(tmp_path / "faithfulness.csv")
    assert [(row["case"], row["drop"]) for row in found] == [("c0", "0.25"), ("c1", ""), ("c2", "0.75")]
    figures = json.loads((tmp_path / "faithfulness.json").read_text())
    assert (figures["test/drop"]["value"], figures["test/drop"]["n"]) == (0.5, 2)
    assert figures["test/road"]["n"] == 3


def test_the_sanity_curves_are_means_over_what_is_defined(tmp_path: Path) -> None:
    rows = [
        {"place": place, "case": f"c{place}", "class": "a", "explainer": "model", "stage": stage, "layer": layer,
         "spearman": rho, "ssim": 0.5}
        for stage, layer, values in ((1, "head", (0.2, 0.4)), (2, "", (math.nan, 0.1)))
        for place, rho in enumerate(values)
    ]  # fmt: skip
    axes = faithfulness_report.draw_sanity(rows).axes
    assert np.asarray(axes[0].lines[0].get_ydata()).tolist() == pytest.approx([1, 0.3, 0.1])
    assert np.asarray(axes[1].lines[0].get_ydata()).tolist() == [1, 0.5, 0.5]
    assert [text.get_text() for text in axes[1].get_xticklabels()] == ["as trained", "head", "the network's own"]
    report_sanity(tmp_path, rows)
    assert (tmp_path / "sanity.png").stat().st_size > 1000


def test_it_needs_a_data_module() -> None:
    with pytest.raises(InputError, match="test with a data module"):
        FaithfulnessMetrics().on_test_start(SimpleNamespace(), _Network())  # type: ignore[arg-type]
