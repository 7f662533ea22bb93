"""``hrcam report`` of a comparison of studies: tables and pictures, no cases."""

from __future__ import annotations

import json
import shutil
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from hrcam_lightning.cli import main
from hrcam_lightning.compare import command, runner
from tests.command_line import error_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

STAND_IN = Path(__file__).parents[1] / "compare/stand_in.py"


def _resolve(words: Sequence[str]) -> str:  # noqa: ARG001
    return "kinds: [inside]"


@pytest.fixture
def board(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies, of seeds 2 and 10, with pictures that can be told apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "HRCAM", (sys.executable, str(STAND_IN)))
    content = {
        "name": "mine",
        "reference": "own/original",
        "seeds": [2, 10],
        "data": {"demo": {"cases": str(tiny_set / "cases.csv")}},
        "experiments": {name: {"filtered_retrain": [f"{name}.yaml"]} for name in ("own", "other")},
    }
    Path("compare.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    command.run(["-c", "compare.yaml"], "1", _resolve)
    for job in Path("runs/compare/mine/demo").glob("*/seed_*"):
        results = job / "filtered_retrain"
        (results / "config.yaml").write_text(f"of: {job.parent.name} {job.name}\n", encoding="utf-8")
        for name in ("examples.png", "scores.png"):
            (results / name).write_bytes(f"{name} {job}".encode())
    return Path("runs/compare/mine/demo")


def test_studies_have_a_page_of_tables_and_pictures(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(board / "own/seed_2", board / "own/seed_1")  # of a run before, with other seeds
    main(["report", "runs/compare/mine"])
    assert f"Page: {board}/report.html" in capsys.readouterr().out
    page = (board / "report.html").read_text(encoding="utf-8")
    for row in rows_of(board / "leaderboard.csv"):
        assert f'<th scope="row">{row["row"]}</th>' in page
        assert f"<td>{float(row['auroc']):.3f}" in page
    assert "own (seeds 2, 10)" in page
    for name in ("own", "other"):  # seed 2 is before 10
        for picture, count in ((board / name / "seed_2", 1), (board / name / "seed_10", 0)):
            for file in ("examples.png", "scores.png"):
                assert page.count(b64encode(f"{file} {picture}".encode()).decode()) == count
    assert "of: own seed_2" in page
    assert '<th scope="col">parameters</th>' not in page.split('id="differences"')[0]
    assert 'data-figure="plot-difference-auroc"' in page
    assert 'id="cases"' not in page


def test_each_training_of_a_study_is_drawn(board: Path) -> None:
    main(["report", "runs/compare/mine"])
    page = (board / "report.html").read_text(encoding="utf-8")
    for metric in ("auroc", "accuracy"):
        assert f'data-figure="plot-training-{metric}"' in page
    assert '"name":"seed 10"' in page


def test_what_cannot_be_shown_of_studies_is_said(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of(capsys, monkeypatch, "report", str(board), "--cases", "3")
    assert "--cases is of maps, but runs/compare/mine/demo compares studies, which have none" in error
    assert "--seed is of maps" in error_of(capsys, monkeypatch, "report", str(board), "--seed", "2")
    (board / "own/seed_2/filtered_retrain/scores.png").unlink()
    assert "scores.png" in error_of(capsys, monkeypatch, "report", str(board))
    for path in board.rglob("job.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "failed"}), encoding="utf-8")
    assert "no experiment is finished" in error_of(capsys, monkeypatch, "report", str(board))
    assert not (board / "report.html").exists()
