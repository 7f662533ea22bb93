from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from synth import Phantoms, PhantomSpec
from synth.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/synth").glob("*.yaml"))


@pytest.fixture
def config(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> Path:
    make_spec(splits={"train": 8, "val": 2, "test": 2}).to_yaml(tmp_path / "spec.yaml")
    return tmp_path / "spec.yaml"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synth", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=_hear_ctrl_c
    )


def _hear_ctrl_c() -> None:
    """As in a terminal; tests that run in the background may have been started deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_cases(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait until some cases are in the journal, and not all."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        journal = out / "incomplete.jsonl"
        if journal.exists() and journal.read_bytes().count(b"\n") > 10:
            return
        time.sleep(0.005)
    pytest.fail("the run ended before it could be interrupted")


def test_generate_verify_preview(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("generate", out, "--config", config) == 0
    assert run("verify", out) == 0
    assert run("preview", out, "-o", tmp_path / "set.png", "--cases", 5) == 0
    assert run("preview", config, "-o", tmp_path / "spec.png", "--cases", 5) == 0
    captured = capsys.readouterr()
    assert "12 cases (train 8, val 2, test 2)" in captured.out
    assert "12 cases as generated" in captured.out
    assert captured.err == ""
    # The first cases of a set are those of its specification and seed.
    sheets = [np.asarray(Image.open(tmp_path / name)) for name in ("set.png", "spec.png")]
    assert np.array_equal(sheets[0], sheets[1])
    assert sheets[0].std() > 10


def test_observer_prints_json_and_writes_it_only_when_asked(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", tmp_path / "out", "--config", config, "--splits", "test=9") == 0
    before = tree(tmp_path / "out")
    capsys.readouterr()
    assert run("observer", config, "--cases", 9, "--templates", 4) == 0
    captured = capsys.readouterr()
    drawn = json.loads(captured.out)
    assert (drawn["kind"], drawn["cases"], list(drawn["classes"])) == ("exact", 9, ["lesion"])
    assert f"{drawn['classes']['lesion']['image_auroc']['value']:.3f} " in captured.err
    assert run("observer", "--dataset", tmp_path / "out", "--templates", 4) == 0
    assert json.loads(capsys.readouterr().out) == drawn
    assert tree(tmp_path / "out") == before
    written = tmp_path / "out/observer.json"
    assert run("observer", "--dataset", tmp_path / "out", "--cases", 5, "--templates", 4, "-o", written) == 0
    assert capsys.readouterr().out == f"{written}\n"
    assert json.loads(written.read_text(encoding="utf-8"))["cases"] == 5
    assert run("verify", tmp_path / "out") == 0


def test_describe_prints_a_table_and_draws_histograms(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", tmp_path / "out", "--config", config) == 0
    capsys.readouterr()
    assert run("describe", tmp_path / "out", "-o", tmp_path / "pictures/out.png") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("test: 12 cases of 32 × 28 voxels\n")
    lesions = (tmp_path / "out/lesions.csv").read_text(encoding="utf-8").splitlines()[1:]
    dprimes = np.array([float(row.split(",")[-1]) for row in lesions])
    shown = next(line for line in printed.splitlines() if "d′" in line)
    cells = [cell.strip() for cell in shown.strip("│").split("│")]
    marks = [f"{mark:.3g}" for mark in (dprimes.min(), np.median(dprimes), dprimes.max())]
    assert cells == ["lesion", str(len(lesions)), "d′", *marks]
    assert np.asarray(Image.open(tmp_path / "pictures/out.png")).std() > 10


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_specification_can_be_generated_and_previewed(path: Path, tmp_path: Path) -> None:
    assert run("generate", tmp_path / "out", "--config", path, "--cases", 9) == 0
    assert run("verify", tmp_path / "out") == 0
    assert run("preview", path, "-o", tmp_path / "sheet.png", "--cases", 2) == 0


@pytest.mark.parametrize("path", [path for path in CONFIGS if "3d" not in path.stem], ids=lambda path: path.stem)
def test_lesions_of_every_flat_preset_find_room_in_more_than_a_few_cases(path: Path) -> None:
    phantoms = Phantoms(PhantomSpec.from_yaml(path), 0)
    present = [phantoms.parts(index).present for index in range(100)]
    assert {name for names in present for name in names} == set(phantoms.spec.lesions)


def test_a_complete_set_is_left_alone_by_resume(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", tmp_path / "out", "--config", config) == 0
    before = tree(tmp_path / "out")
    assert run("generate", tmp_path / "out", "--config", config, "--resume") == 0
    assert "complete already" in capsys.readouterr().out
    assert tree(tmp_path / "out") == before


def test_options_choose_seed_size_and_values(config: Path, tmp_path: Path) -> None:
    values = [
        "--set",
        "lesions.lesion.dprime=[4,6]",
        "--set",
        "lesions.lesion.cnr=null",
        "--set",
        "prevalence=1",
    ]
    assert run("generate", tmp_path / "a", "--config", config, "--splits", "test=2,train=3", "--seed", 4, *values) == 0
    assert run("generate", tmp_path / "b", "--config", config, "--cases", 6) == 0
    rows = (tmp_path / "a/cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[4] for row in rows] == ["train"] * 3 + ["test"] * 2
    dprimes = [float(row.split(",")[-1]) for row in (tmp_path / "a/lesions.csv").read_text().splitlines()[1:]]
    assert len(dprimes) == 5
    assert all(4 <= value <= 6 for value in dprimes)
    rows = (tmp_path / "b/cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[4] for row in rows] == ["train"] * 4 + ["val"] + ["test"]


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_in_the_middle_then_resume_gives_the_same_tree(config: Path, tmp_path: Path, workers: int) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("generate", whole, "--config", config, "--cases", 300) == 0
    process = start("generate", out, "--config", config, "--cases", 300, "--workers", workers)
    wait_for_cases(out, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "dataset.json").exists()
    assert run("generate", out, "--config", config, "--cases", 300, "--resume") == 0
    assert tree(out) == tree(whole)


def test_no_worker_outlives_a_killed_parent(config: Path, tmp_path: Path) -> None:
    process = start("generate", tmp_path / "out", "--config", config, "--cases", 5000, "--workers", 2)
    wait_for_cases(tmp_path / "out", process)
    os.kill(process.pid, signal.SIGKILL)
    # The pipe closes only when the last process that holds it is gone.
    process.communicate(timeout=20)


def test_shards_survive_a_kill_and_merge_to_the_same_tree(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", [tmp_path / f"part{part}" for part in range(2)]
    made_from = ("--config", config, "--cases", 300, "--twins")
    assert run("generate", whole, *made_from) == 0
    process = start("generate", parts[0], *made_from, "--shard", "0/2")
    wait_for_cases(parts[0], process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run("merge", tmp_path / "out", *parts) == 2
    assert run("generate", parts[0], *made_from, "--shard", "0/2", "--resume") == 0
    assert run("generate", parts[1], *made_from, "--shard", "1/2", "--workers", 2) == 0
    assert run("verify", parts[1]) == 2
    process = start("merge", tmp_path / "out", *parts)
    wait_for_cases(tmp_path / "out", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run("merge", tmp_path / "out", *reversed(parts)) == 2
    assert run("merge", tmp_path / "out", *reversed(parts), "--resume") == 0
    assert tree(tmp_path / "out") == tree(whole)
    assert run("verify", tmp_path / "out") == 0


def test_interrupt_says_how_to_continue_and_can_be_resumed(config: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("generate", whole, "--config", config, "--cases", 1200) == 0
    process = start("generate", out, "--config", config, "--cases", 1200, "--workers", 2)
    wait_for_cases(out, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "hrcam-synth: error: interrupted: continue with --resume\n"
    assert run("generate", out, "--config", config, "--cases", 1200, "--resume") == 0
    assert tree(out) == tree(whole)


def test_an_interrupt_promises_no_resume_where_there_is_none(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synth.cli.observe", interrupt)
    assert run("observer", config) == 130
    assert capsys.readouterr().err == "hrcam-synth: error: interrupted\n"


BAD = {
    "unknown command": (["paint"], "invalid choice"),
    "no command": ([], "required"),
    "no such option": (["generate", "OUT", "--config", "SPEC", "--colour"], "--colour"),
    "no config": (["generate", "OUT"], "--config"),
    "missing config": (["generate", "OUT", "--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
    "broken yaml": (["generate", "OUT", "--config", "BROKEN"], "is not valid YAML"),
    "not a mapping": (["generate", "OUT", "--config", "LIST"], "must be a mapping"),
    "unknown key": (
        ["generate", "OUT", "--config", "SPEC", "--set", "noise.sdd=1"],
        "noise.sdd is not a known key",
    ),
    "below a value": (["generate", "OUT", "--config", "SPEC", "--set", "name.x=1"], "name.x cannot be set"),
    "no value": (["generate", "OUT", "--config", "SPEC", "--set", "noise"], "must be KEY=VALUE"),
    "value no yaml": (
        ["generate", "OUT", "--config", "SPEC", "--set", "noise=[1"],
        "whose value is not YAML",
    ),
    "negative radius": (
        ["generate", "OUT", "--config", "SPEC", "--set", "lesions.lesion.radius_mm=-1"],
        "lesions.lesion.radius_mm is [-1.0, -1.0] but must be above 0",
    ),
    "no room": (
        ["generate", "OUT", "--config", "SPEC", "--set", "lesions.lesion.count=60", "--set", "prevalence=1"],
        "lesions.lesion.radius_mm leaves no room in the tissue",
    ),
    "no cases": (["generate", "OUT", "--config", "SPEC", "--cases", "0"], "--cases is 0"),
    "negative cases": (["generate", "OUT", "--config", "SPEC", "--cases", "-4"], "--cases"),
    "shard beyond the last": (["generate", "OUT", "--config", "SPEC", "--shard", "4/4"], "'4/4' is not K/N"),
    "shard no pair": (["generate", "OUT", "--config", "SPEC", "--shard", "1"], "'1' is not K/N"),
    "merge nothing": (["merge", "OUT"], "SHARD"),
    "merge no shard": (["merge", "OUT", "FULL"], "holds no shard: shard.jsonl is missing"),
    "workers and dask": (["generate", "OUT", "--config", "SPEC", "--workers", "2", "--dask", "x"], "not allowed with"),
    "no workers": (["generate", "OUT", "--config", "SPEC", "--workers", "0"], "--workers is 0"),
    "negative seed": (["generate", "OUT", "--config", "SPEC", "--seed", "-1"], "--seed"),
    "wrong split": (["generate", "OUT", "--config", "SPEC", "--splits", "trian=3"], "did you mean train?"),
    "wrong count": (["generate", "OUT", "--config", "SPEC", "--splits", "train=x"], "must be like train=100"),
    "full folder": (["generate", "FULL", "--config", "SPEC"], "is not empty"),
    "not a set": (["generate", "FULL", "--config", "SPEC", "--resume"], "holds no interrupted set"),
    "below a file": (["generate", "SPEC/out", "--config", "SPEC"], "Not a directory"),
    "a file": (["generate", "SPEC", "--config", "SPEC"], "Not a directory"),
    "verify nothing": (["verify", "OUT"], "holds no generated set"),
    "verify no set": (["verify", "FULL"], "holds no generated set"),
    "describe nothing": (["describe", "OUT"], "holds no generated set"),
    "describe below a file": (["describe", "FULL", "-o", "SPEC/a.png"], "holds no generated set"),
    "preview nothing": (["preview", "OUT"], "No such file"),
    "preview no set": (["preview", "FULL"], "holds no generated set"),
    "preview no cases": (["preview", "SPEC", "--cases", "0"], "--cases is 0"),
    "observer of nothing": (["observer"], "takes either SPEC or --dataset DIR"),
    "observer of both": (["observer", "SPEC", "--dataset", "FULL"], "takes either SPEC or --dataset DIR"),
    "observer of no set": (["observer", "--dataset", "FULL"], "holds no generated set"),
    "observer no cases": (["observer", "SPEC", "--cases", "0"], "--cases is 0"),
    "observer no shapes": (["observer", "SPEC", "--templates", "0"], "--templates is 0"),
    "observer changes a set": (["observer", "--dataset", "FULL", "--set", "noise.sd=1"], "--set is for SPEC"),
    "preview below a file": (["preview", "SPEC", "-o", "SPEC/a/b.png"], "Not a directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    name: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = BAD[name]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "broken.yaml").write_text("name: [1, {")
    (tmp_path / "list.yaml").write_text("- 1")
    named = {"OUT": tmp_path / "out", "FULL": tmp_path / "full", "BROKEN": tmp_path / "broken.yaml"}
    named |= {"LIST": tmp_path / "list.yaml", "SPEC": config}
    before = tree(tmp_path)
    filled = []
    for text in arguments:
        head, slash, rest = text.partition("/")
        filled.append(f"{named.get(head, head)}{slash}{rest}")
    assert run(*filled) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hrcam-synth: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert captured.out == ""
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk names no file
        with path.open("wb") as file:
            return file.write(content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert run("generate", tmp_path / "out", "--config", config) == 2
    assert capsys.readouterr().err == "hrcam-synth: error: No space left on device\n"
    assert run("generate", tmp_path / "out", "--config", config, "--resume") == 0
    assert run("verify", tmp_path / "out") == 0


def test_a_spoilt_set_is_reported_by_case(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", tmp_path / "out", "--config", config) == 0
    for index in range(7):
        (tmp_path / f"out/images/case_{index:06d}.nii.gz").write_bytes(b"spoilt")
    capsys.readouterr()
    assert run("verify", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has 7 problems: case_000000: " in error
    assert error.endswith("and 2 more\n")


@pytest.mark.parametrize("journal", ["", "{\n", "[]\n", '{"seed": 1}\n{}\n', "\xff\n"])
def test_a_damaged_journal_is_one_sentence(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], journal: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/incomplete.jsonl").write_bytes(journal.encode("latin-1"))
    assert run("generate", tmp_path / "out", "--config", config, "--resume") == 2
    assert capsys.readouterr().err.count("\n") == 1
