"""Helpers of the tests that type commands."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import nibabel as nib
import pytest
from nibabel.spatialimages import SpatialImage

from hrcam_lightning.cli import console

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CASES = ["--data", "CaseDataModule", "--data.cases"]
SMALL = [
    "--model.backbone",
    "ConvPyramid",
    "--model.backbone.width",
    "4",
    "--model.backbone.depth",
    "3",
    "--data.batch_size",
    "4",
    "--trainer.accelerator",
    "cpu",
    "--trainer.enable_progress_bar",
    "false",
]


def again(command: str, run: Path, cases: Path, *more: str) -> list[str]:
    return [
        command, *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(run),
        "--ckpt_path", str(run / "best.ckpt"), *more,
    ]  # fmt: skip


def load(path: Path) -> SpatialImage:
    image = nib.load(path)
    assert isinstance(image, SpatialImage)
    return image


def save(voxels: NDArray[Any], affine: NDArray[Any], path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)  # type: ignore[no-untyped-call]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def error_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    """Run the console script in this process; it must end with code 2 and one line."""
    monkeypatch.setattr(sys, "argv", ["hrcam", *args])
    with pytest.raises(SystemExit) as caught:
        console()
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hrcam: error: ")]
    assert len(lines) == 1
    return lines[0]
