"""The command that the tests of a retrofit type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.command_line import CASES, SMALL

if TYPE_CHECKING:
    from pathlib import Path

CAM = ["--model.decoder", "CAM", "--model.pooling", "MeanPooling", "--model.resampling", "half_pixel",
       "--model.consistency", "0", "--model.view_averaging", "false"]  # fmt: skip


def bare(cases: Path, *more: str) -> list[str]:
    """A retrofit into ``head`` that does not say where the weights come from."""
    return [
        "retrofit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", "head", "--pixels", "8", *more,
    ]  # fmt: skip


def command(base: Path, cases: Path, *more: str) -> list[str]:
    """A retrofit of a CAM into ``head``."""
    return bare(cases, *CAM, "--ckpt_path", str(base / "best.ckpt"), *more)
