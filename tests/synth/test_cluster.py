from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synth.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synth import PhantomSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> Path:
    make_spec().to_yaml(tmp_path / "spec.yaml")
    return tmp_path / "spec.yaml"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of 2 processes on this machine."""
    distributed: Any = pytest.importorskip("distributed", reason="needs Dask (the extra cluster)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with distributed.LocalCluster(**options) as local:
            yield local.scheduler_address


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_without_dask_it_says_what_to_install(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "distributed":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert run("generate", tmp_path / "out", "--config", config, "--dask", "tcp://127.0.0.1:1") == 2
    assert capsys.readouterr().err == "hrcam-synth: error: --dask needs Dask: pip install 'hrcam-lightning[cluster]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")
def test_a_cluster_writes_the_same_bytes(
    config: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_from = ("--config", config, "--cases", 60, "--seed", 3, "--twins")
    assert run("generate", tmp_path / "here", *made_from) == 0
    monkeypatch.chdir(tmp_path)  # a relative OUT is this process's, not the workers'
    assert run("generate", "there", *made_from, "--dask", address) == 0
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.filterwarnings("default")
def test_a_killed_run_on_a_cluster_is_resumed(config: Path, tmp_path: Path, address: str) -> None:
    made_from = ("--config", config, "--cases", 400)
    command = [sys.executable, "-m", "synth", "generate", tmp_path / "out", *made_from, "--dask", address]
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, "PYTHONPATH": str(ROOT)})
    journal, deadline = tmp_path / "out/incomplete.jsonl", time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run("generate", tmp_path / "out", *made_from, "--dask", address, "--resume") == 0
    assert run("generate", tmp_path / "whole", *made_from) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.filterwarnings("default")
def test_what_goes_wrong_on_a_cluster_is_one_sentence(
    config: Path, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth.cluster.CONNECT_SECONDS", 1)
    assert run("generate", tmp_path / "out", "--config", config, "--dask", "tcp://127.0.0.1:1") == 2
    assert "where no Dask scheduler answers\n" in capsys.readouterr().err
    assert run("generate", tmp_path / "out", "--config", config, "--dask", "nonsense://x") == 2
    assert "where no Dask scheduler answers\n" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("synth.dataset.folders", lambda _: ())  # as if workers did not see the folder
    assert run("generate", tmp_path / "out", "--config", config, "--dask", address) == 2
    assert "No such file or directory\n" in capsys.readouterr().err
