"""Explainers on the command line: rows of the table, of the files, and bad wishes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from hrcam_lightning.callbacks import LocalizationMetrics
from hrcam_lightning.cli import main
from tests.command_line import CASES, SMALL, again, error_of, rows_of

if TYPE_CHECKING:
    from pathlib import Path

ROWS = ("cam", "gradcam", "respondcam", "random", "center", "edge")
PUBLISHED = [
    "--model.decoder", "CAM", "--model.resampling", "half_pixel", "--model.pooling", "MeanPooling",
    "--model.view_averaging", "false", "--model.consistency", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory, tiny_set: Path) -> Path:
    """The published CAM, two epochs."""
    folder = tmp_path_factory.mktemp("classic") / "run"
    run = ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "2"]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *PUBLISHED, *run])
    return folder


def test_explainers_are_rows_scored_on_the_same_cases_and_twice_the_same(classic: Path, tiny_set: Path) -> None:
    words = [
        *again("test", classic, tiny_set / "cases.csv"), *PUBLISHED[:6],
        "--explainers", f"[model, {', '.join(ROWS)}]",
    ]  # fmt: skip
    main(words)
    figures = json.loads((classic / "test/metrics.json").read_text())
    cases = rows_of(classic / "test/cases.csv")
    assert len(cases) == 6
    for row in ROWS:
        assert {f"{row}/pointing", f"{row}/pixel_ap"} <= set(cases[0])
        for metric in ("pointing", "pixel_ap", "normal/false_activation"):
            entry = figures[f"test/{row}/{metric}"]
            assert not entry.get("reason"), row  # thresholds were set on validation cases
            assert 0 <= entry["value"] <= 1
    for row in ("cam", "respondcam"):  # on mean pooling and one dense layer they are the model's map, up to a factor
        for metric in ("pointing", "pixel_ap"):
            assert figures[f"test/{row}/{metric}"]["value"] == pytest.approx(
                figures[f"test/{metric}"]["value"], abs=1e-4
            )
            assert [case[f"{row}/{metric}"] == "" for case in cases] == [case[metric] == "" for case in cases]
            for case in cases:
                if case[metric]:
                    assert float(case[f"{row}/{metric}"]) == pytest.approx(float(case[metric]), abs=1e-4)
    # A positive factor moves the threshold as it moves the map.
    own = figures["test/normal/false_activation"]["value"]
    assert figures["test/cam/normal/false_activation"]["value"] == pytest.approx(own)
    shutil.copytree(classic / "test", classic.parent / "first")
    main([*words, "--trainer.inference_mode", "false"])
    for name in ("metrics.json", "cases.csv"):
        assert (classic / "test" / name).read_bytes() == (classic.parent / "first" / name).read_bytes()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_explainers_run_in_half_precision(classic: Path, tiny_set: Path, precision: str) -> None:
    words = [*again("test", classic, tiny_set / "cases.csv"), "--explainers", "[gradcam, eigencam, random]"]
    main([*words, "--trainer.precision", precision])
    figures = json.loads((classic / "test/metrics.json").read_text())
    for row in ("gradcam", "eigencam", "random"):
        assert 0 <= figures[f"test/{row}/pixel_ap"]["value"] <= 1
        assert figures[f"test/{row}/normal/false_activation"]["value"] is not None


def test_fitting_with_explainers_keeps_their_thresholds(
    tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "1"]
    asked = ["--explainers", "[gradcam, {method: layercam, layers: pyramid, name: fused}]"]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run, *asked])
    monkeypatch.setattr(LocalizationMetrics, "_on_validation_cases", None)  # they are in the checkpoint
    main([*again("test", tmp_path / "run", tiny_set / "cases.csv"), *asked])
    figures = json.loads((tmp_path / "run/test/metrics.json").read_text())
    assert figures["test/fused/normal/false_activation"]["value"] is not None
    assert "fused/pointing" in rows_of(tmp_path / "run/test/cases.csv")[0]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("[gradcma]", "there is no explainer 'gradcma'; nearest are gradcam"),
        ("[{method: gradcam, gamma: 2}]", "gradcam has no option gamma: its options are relu, fusion"),
        ("[{method: gradcam, fusion: median}]", "fusion is 'median', but must be one of"),
        ("[{method: gradcam, target: 0}]", "gradcam has no option target"),
        ("[{layers: pyramid}]", "names no method"),
        (
            "[{method: gradcam, layers: [backbone.stagse.0]}]",
            "no layer 'backbone.stagse.0'; nearest are backbone.stages",
        ),
        ("[{method: gradcam, layers: middle}]", "give a list of names, 'deepest' or 'pyramid'"),
        ("[{method: gradcam, score: odds}]", "score is 'odds', but is one of logit"),
        ("[{method: random, layers: deepest}]", "random looks at no layer: leave layers out"),
        ("[cam, cam]", "two rows are called cam: give one of them another name, as {method: ..., name: ...}"),
    ],
)
def test_bad_wishes_end_with_one_sentence(
    wish: str, sentence: str, classic: Path, tiny_set: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = [*again("test", classic, tiny_set / "cases.csv"), "--explainers", wish]
    assert sentence in error_of(capsys, monkeypatch, *words)
