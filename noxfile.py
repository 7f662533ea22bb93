#!/usr/bin/env python3
"""Everything that is run on this project, by name: ``nox -l`` lists it."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
# pip, not uv: constraints.txt pins a torch that is small where pip finds a CPU wheel.
nox.options.default_venv_backend = "virtualenv"

PROJECT = nox.project.load_toml()
CONSTRAINTS = ("-c", "constraints.txt")
TORCHVISION = "torch==2.14.1\ntorchvision==0.29.1\ntimm==1.0.31\n"  # a pair that fits, as the pinned torch has none
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def _install(session: nox.Session, *groups: str, package: bool = True) -> None:
    wanted = [*nox.project.dependency_groups(PROJECT, *groups)] if groups else []
    session.install(*CONSTRAINTS, *(["-e", "."] if package else []), *wanted)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    _install(session, "lint", package=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Static types, strict."""
    _install(session, "types", "test")
    session.run("mypy")


@nox.session(reuse_venv=True)
def tests(session: nox.Session) -> None:
    """The tests, on two cores; arguments go to pytest."""
    _install(session, "test")
    shared = ("-n", "2", "--dist", "worksteal")
    session.run("pytest", *shared, "-m", "not slow", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(reuse_venv=True, default=False)
def slow(session: nox.Session) -> None:
    """The claims that take minutes of training."""
    _install(session, "test")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session(reuse_venv=True, default=False)
def browser(session: nox.Session) -> None:
    """The report's page in a real Chromium: the system's, else one that playwright can fetch."""
    _install(session, "test", "browser")
    if not any(map(shutil.which, CHROMIUM)):
        try:
            session.run("playwright", "install", "chromium")
        except nox.command.CommandFailed:
            session.skip(f"none of {', '.join(CHROMIUM)} is on the PATH, and playwright could not fetch one")
    session.run("pytest", "-m", "browser", *session.posargs, "tests/report", env={"OMP_NUM_THREADS": "1"})


@nox.session(reuse_venv=True, default=False)
def timm(session: nox.Session) -> None:
    """The tests that need timm, on a torch that torchvision has a wheel for: gigabytes where that brings CUDA."""
    pins = Path("constraints.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    others = Path(session.create_tmp()) / "constraints.txt"
    others.write_text("".join(pin for pin in pins if not pin.startswith("torch==")) + TORCHVISION, encoding="utf-8")
    session.install("-c", str(others), "-e", ".[timm]", *nox.project.dependency_groups(PROJECT, "test"))
    session.run("pytest", *session.posargs, "tests/test_backbones_timm.py", "tests/retrofit/test_sources.py")


@nox.session(name="compare-small", reuse_venv=True, default=False)
def compare_small(session: nox.Session) -> None:
    """The small form of every comparison, two at a time; typed again after a kill it goes on."""
    _install(session)

    def compare(config: Path) -> None:
        session.run("hrcam", "compare", "-c", str(config), "--small", env={"OMP_NUM_THREADS": "1"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compare, sorted(Path("configs/compare").glob("*.yaml"))))


@nox.session(reuse_venv=True, default=False)
def docs(session: nox.Session) -> None:
    """The documentation as a site in build/docs; warnings are errors. It needs no torch."""
    _install(session, "docs", package=False)
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Wheel and source distribution in dist/."""
    _build(session)


@nox.session(reuse_venv=True, default=False)
def demo(session: nox.Session) -> None:
    """The main job from the built wheel: draw phantoms, train, test, say where the pictures are."""
    wheel = _build(session)
    session.install(*CONSTRAINTS, "--force-reinstall", "--no-deps", str(wheel))
    session.install(*CONSTRAINTS, str(wheel))
    for folder in ("data/demo", "runs/demo"):
        shutil.rmtree(folder, ignore_errors=True)
    session.run("hrcam-synth", "generate", "data/demo", "--config", "configs/synth/demo.yaml", "--workers", "2")
    session.run("hrcam", "fit", "-c", "configs/demo.yaml")
    session.run("hrcam", "test", "-c", "configs/demo.yaml", "--ckpt_path", "runs/demo/best.ckpt")


def _build(session: nox.Session) -> Path:
    session.install(*CONSTRAINTS, "build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()), silent=True)
    (wheel,) = Path("dist").glob("*.whl")
    return wheel


if __name__ == "__main__":
    nox.main()
