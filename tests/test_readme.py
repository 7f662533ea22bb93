"""What README and docs show runs as it stands there."""

from __future__ import annotations

import ast
import csv
import json
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch

from hrcam_lightning.cli import main
from synth import Phantoms, PhantomSpec
from synth import cli as synth_cli
from tests.command_line import rows_of
from tests.conftest import SPEC
from tests.pages import PAGES, ROOT, blocks, commands, lines

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GIVEN = {"--data", "--data.cases", "--model.backbone.width", "--model.decoder.global_pooling"}
"""Options that `--help` shows only for the class that is chosen."""
OF_CLASSES = {
    "--data.batch_size",
    "--data.predict_split",
    "--data.spec",
    "--data.train",
    "--model.pooling.peak",
    "--trainer.callbacks.radius",
    "--trainer.callbacks.sanity",
}
NOT_OURS = {"pip install nox", "pip install -e .", "export PYTHONPATH=."}
"""Lines of the shell that are neither a command of ours nor a nox session."""
NOT_RUN = {
    "pip install nox": "the tests run in an installation",
    "pip install -e .": "the tests run in an installation",
    "nox -s demo": "makes environments; its commands are those that the page goes on with",
}
"""Lines of the pages below that are not run, and why."""
TINY = ["--model.backbone.width", "4", "--model.backbone.depth", "3", "--data.batch_size", "4"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
SHORT = {
    "hrcam-synth generate": ["--workers", "1", "--splits", "train=6,val=4,test=4"],
    "hrcam fit": [*TINY, *CPU, "--trainer.max_epochs", "1"],
    "hrcam fit --data my_lesion.Crescents": ["--data.train", "16"],
    "hrcam test": CPU,
    "hrcam predict": CPU,
}
"""What is added to commands that begin so, that they take seconds."""
NO_PICTURES = {"hrcam fit": ["--fused_maps.cases", "0"], "hrcam test": ["--fused_maps.cases", "0"]}


def test_every_option_in_the_shell_examples_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    typed = [shlex.split(line) for page in PAGES for line in commands(page) if line.startswith("hrcam ")]
    needed = {"fit", "test", "predict", "retrofit", "filtered-retrain", "cases", "compare", "report"}
    assert {line[1] for line in typed} == needed
    shown = {}
    for line in typed:
        words = tuple(line[1:3] if line[1] == "cases" else line[1:2])
        if words not in shown:
            with pytest.raises(SystemExit) as caught:
                main([*words, "--help"])
            assert caught.value.code == 0
            shown[words] = capsys.readouterr().out
        options = {word.partition("=")[0] for word in line if word.startswith("--")} - GIVEN - OF_CLASSES
        unknown = [one for one in options if not re.search(rf"{re.escape(one)}(?![\w.])", shown[words])]
        assert unknown == [], line


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_line_of_the_shell_is_of_a_kind_that_is_looked_at(page: Path) -> None:
    noxfile = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in noxfile.body if isinstance(node, ast.FunctionDef)}
    for line in commands(page):
        command, *words = shlex.split(line, comments=True)
        if command == "hrcam-synth":
            assert synth_cli._parser().parse_args(words).run.__name__ == f"_{words[0]}"
        elif command == "nox":
            assert words[0] == "-s"
            assert {word.replace("-", "_") for word in words[1:]} <= sessions, line
        elif command == "pip" and words[1].startswith("hrcam-lightning"):
            wanted = re.findall(r"[\w-]+", words[1].removeprefix("hrcam-lightning"))
            assert set(wanted) <= set(PROJECT["optional-dependencies"]), line
        elif command == "python":
            assert words in [[block.title] for block in blocks(page, "python") if block.title], line
        else:
            assert command == "hrcam" or shlex.join([command, *words]) in NOT_OURS, line


NAMED = sorted({name for page in PAGES for name in re.findall(r"configs/[a-z0-9_/]+\.yaml", page.read_text("utf-8"))})


@pytest.mark.parametrize("name", NAMED)
def test_every_configuration_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).is_file()


def _follow(page: Path, more: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Do what a page says in the current folder: write its files, run its commands and its Python, in order.

    Args:
        page: The page.
        more: What is added to commands, beside `SHORT`.

    Returns:
        The names that its Python has made.
    """
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(block.text, names)
        elif block.language == "sh":
            for line in lines(block):
                _type(line, [*SHORT.items(), *(more or {}).items()])
    return names


def _type(line: str, added: list[tuple[str, list[str]]]) -> None:
    """Run a line of the shell in this process; one that is not known is an error."""
    words = shlex.split(line, comments=True)
    more = [word for start, some in added if line.startswith(f"{start} ") for word in some]
    if words[:1] == ["hrcam"]:
        main([*words[1:], *more])
    elif words[:1] == ["hrcam-synth"]:
        assert synth_cli.main([*words[1:], *more]) == 0
    elif words[:1] == ["python"]:
        runpy.run_path(words[1], run_name="__main__")
    elif line != "export PYTHONPATH=.":  # the fixture does it for this process
        assert line in NOT_RUN, line


@pytest.fixture
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with the checkout's configurations, on Python's path as after `export PYTHONPATH=.`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")


@pytest.mark.usefixtures("_checkout")
def test_the_first_five_minutes_and_the_python_of_the_reference_pages() -> None:
    start = ROOT / "docs/start.md"
    names = _follow(start)
    assert names["evidence"].shape == (64, 64, 1)  # 2D as one slice
    for path in re.findall(r"`((?:runs|data)/[\w./]+)`", start.read_text(encoding="utf-8")):
        assert Path(path).exists(), path
    figures = json.loads(Path("runs/demo/test/metrics.json").read_text())
    for figure in ("auroc", "pointing", "pixel_ap", "normal/false_activation"):
        assert {"value", "n"} <= set(figures[f"test/{figure}"])
    assert len(rows_of(Path("runs/demo/predictions/predictions.csv"))) == 4

    names = {}  # what the other pages show goes on from there
    for page in PAGES:
        if page.name not in ("start.md", "own-scans.md", "extend.md"):
            for block in blocks(page, "python"):
                exec(block.text, names)
    assert names["output"].maps.shape == (1, 1, 64, 64)
    pooled = names["task"].network.pooling(names["output"].maps)
    torch.testing.assert_close(pooled, names["output"].logits)
    assert names["case"].name == "case_000012"


@pytest.mark.usefixtures("_checkout")
def test_the_tutorial_on_scans_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    phantoms = Phantoms(PhantomSpec.from_dict(SPEC), seed=3)
    for index in range(26):
        case = phantoms[index]
        label = "tumour" if case.lesions else "healthy"
        folder, name = Path("scans", label) if index < 24 else Path("new"), f"p{index:02}.nii.gz"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(case.image, case.affine), folder / name)  # type: ignore[no-untyped-call]
        if case.lesions and index < 24:
            Path("masks", label).mkdir(parents=True, exist_ok=True)
            mask = nib.Nifti1Image(case.masks[0].astype("uint8"), case.affine)  # type: ignore[no-untyped-call]
            nib.save(mask, Path("masks", label, name))
    page = ROOT / "docs/own-scans.md"
    _follow(page)
    (shown,) = blocks(page, "csv")
    header, *rows = csv.reader(shown.text.splitlines())
    written = rows_of(Path("cases.csv"))
    assert list(written[0]) == header
    for row in rows:  # the rows shown have the form of those written
        like = next(one for one in written if one["label"] == row[1])
        assert [re.sub(r"p\d\d", "p..", value) for value in like.values()] == [re.sub(r"p\d\d", "p..", v) for v in row]
    assert {path.name for path in Path("runs/mine/predictions").glob("p*_map.nii.gz")} == {
        "p24_map.nii.gz", "p25_map.nii.gz",
    }  # fmt: skip
    for name in ("p24_mask.nii.gz", "p24_tumour.png", "predictions.csv"):
        assert Path("runs/mine/predictions", name).is_file()
    assert "p24_map.nii.gz (16, 16, 1)" in capsys.readouterr().out


@pytest.mark.usefixtures("_checkout")
def test_parts_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    _type("hrcam-synth generate data/demo --config configs/synth/demo.yaml", list(SHORT.items()))
    names = _follow(ROOT / "docs/extend.md", NO_PICTURES)
    figures = json.loads(Path("runs/shared_out/test/metrics.json").read_text())
    shown = capsys.readouterr().out
    assert "│ my_explainer" in shown
    assert "│ random_weight" in shown
    compactness = json.loads(Path("runs/shared_out/test/compactness.json").read_text())
    assert 0 < compactness["value"] < 1
    assert compactness["n"] == figures["test/pointing"]["n"]
    shared = torch.load("runs/shared_out/best.ckpt", weights_only=True)
    assert shared["state_dict"]["model.decoder.shares"].shape == (3,)
    blend = torch.load("runs/peak_and_mean/best.ckpt", weights_only=True)
    assert blend["hyper_parameters"]["pooling"]["init_args"] == {"peak": 0.8}
    (lesion,) = names["case"].lesions
    assert lesion.family == "crescent"
    assert lesion.voxels == names["case"].masks.sum()
    assert 8 <= lesion.dprime <= 10
    assert Path("runs/crescents/best.ckpt").is_file()
