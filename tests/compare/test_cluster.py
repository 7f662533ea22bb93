"""``hrcam compare --slurm``, on a cluster of one machine that answers as SLURM does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrcam_lightning.compare import cluster, command
from hrcam_lightning.errors import InputError
from tests.command_line import rows_of
from tests.compare import fake_slurm
from tests.compare.tables import write_checkpoint

pytest.importorskip("submitit", reason="the extra cluster is not installed")


@pytest.fixture
def slurm(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it notes the states of its jobs; trainings take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)
    write_checkpoint(Path("checkpoint"))
    Path("set").symlink_to(tiny_set)
    return fake_slurm.install(tmp_path / "slurm", monkeypatch)


def _compare(*words: str, **more: Any) -> dict[str, dict[str, str]]:
    content: dict[str, Any] = {
        "name": "tiny",
        "reference": "ours",
        "seeds": [0],
        "data": {"demo": {"cases": "set/cases.csv"}},
        "budget_minutes": 2,
        "experiments": {"ours": {"configs": ["a.yaml"]}},
    }
    Path("compare.yaml").write_text(yaml.safe_dump(content | more, sort_keys=False), encoding="utf-8")
    command.run(["-c", "compare.yaml", "--out", "out", "--slurm", *words], "1", " ".join)
    return {row["row"]: row for row in rows_of(Path("out/demo/leaderboard.csv"))}


def test_each_job_is_submitted_when_its_base_has_ended(slurm: Path) -> None:
    rows = _compare(
        "{partition: short, gpus_per_node: 2}",
        # so slow that a retrofit submitted with its base would find none
        experiments={"ours": {"configs": ["a.yaml"], "overrides": ["--sleep", "3"]}, "cured": {"retrofit": "ours"}},
    )
    assert float(rows["ours"]["pixel_ap"]) == pytest.approx(0.74)  # 0.7 and a hundredth a case: 1, 3, 5, 7
    assert float(rows["cured"]["pixel_ap"]) == pytest.approx(0.54)
    assert not any(row["reason"] for row in rows.values())
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["101.sh", "102.sh"]
    script = (slurm / "101.sh").read_text()
    for line in ("partition=short", "gpus-per-node=2", "time=12", "job-name='hrcam demo/ours/seed_0'"):
        assert f"#SBATCH --{line}\n" in script
    assert "demo/cured/seed_0" in (slurm / "102.sh").read_text()
    ours, cured = (Path(f"out/demo/{name}/seed_0/log.txt") for name in ("ours", "cured"))
    assert cured.stat().st_mtime > ours.stat().st_mtime
    # Lightning takes a job of another name for one of its own processes, and would refuse its two devices.
    assert ours.read_text().count("job name: interactive") == 2


def test_a_job_that_slurm_ends_is_a_row_that_says_so(slurm: Path) -> None:
    def end() -> None:
        while not Path("out/demo/ours/seed_0/last.ckpt").is_file():
            time.sleep(0.1)
        number = json.loads(Path("out/slurm/submitted.json").read_text())["demo/ours/seed_0"][1]
        os.killpg(int((slurm / f"{number}.pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=end)
    killer.start()
    rows = _compare(experiments={"ours": {"configs": ["a.yaml"], "overrides": ["--sleep", "60"]}})
    killer.join()
    assert rows["ours"]["kind"] == "failed"
    assert "seed 0: SLURM job 101 ended as FAILED (see " in rows["ours"]["reason"]
    assert json.loads(Path("out/demo/ours/seed_0/job.json").read_text())["state"] == "failed"


def test_what_an_interrupted_command_submitted_is_waited_for(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as at_first:
        at_first.setattr("hrcam_lightning.compare.cluster.time.sleep", _interrupt)
        with pytest.raises(SystemExit) as ended:
            _compare()
    assert ended.value.code == 130
    assert "What was submitted goes on" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"SLURM job 101 is still at work on .*, by another configuration"):
        _compare(common=["--trainer.max_epochs", "9"])
    rows = _compare()
    assert float(rows["ours"]["pixel_ap"]) == pytest.approx(0.74)
    assert len(list(slurm.glob("*.sh"))) == 1


def _interrupt(_: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("gpu", "--slurm is 'gpu', but takes a mapping"),
        ("{partition: [", "--slurm is '{partition: \\[', but takes a mapping"),
        ("{colour: red}", "--slurm: Unavailable parameter.*colour"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_options_that_slurm_does_not_have_are_refused(options: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        _compare(options)
    assert not Path("out/demo").exists()


@pytest.mark.usefixtures("slurm")
def test_a_job_needs_an_end() -> None:
    with pytest.raises(InputError, match=r"--slurm has no 'time' .* and the comparison no budget_minutes"):
        _compare("{partition: gpu}", budget_minutes=None)


def test_without_slurm(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match='--slurm: Could not detect "srun"'):
        _compare()
    assert slurm.is_dir()
