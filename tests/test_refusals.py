"""What is bad input and what a fault of the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lightning.pytorch.loggers import CSVLogger

from hrcam_lightning import InputError
from hrcam_lightning.refusals import refusal
from tests.command_line import CASES, SMALL, error_of

if TYPE_CHECKING:
    from pathlib import Path


class Lacking(CSVLogger):
    """A logger whose package is not installed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("fancy is not available: pip install fancy")


def _raised(*errors: Exception) -> Exception:
    """The last of the errors, each raised while the one before was handled."""
    before = _raised(*errors[:-1]) if errors[1:] else None
    with pytest.raises(type(errors[-1])) as caught:
        raise errors[-1] from before
    return caught.value


def test_bad_input_is_told_wherever_it_is_in_the_chain() -> None:
    assert refusal(_raised(InputError("no such\n  file"))) == "no such file"
    assert refusal(_raised(InputError("no such file"), RuntimeError("a worker ended"))) == "no such file"
    assert refusal(_raised(InputError("x\nOriginal Traceback ...\nInputError: no such file"))) == "no such file"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_a_fault_of_the_program_keeps_its_traceback(kind: type[Exception]) -> None:
    assert refusal(_raised(kind("oh"))) is None
    assert refusal(kind("never raised")) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--trainer.logger", "tests.test_refusals.Lacking"], "tests.test_refusals.Lacking cannot be used: fancy is"),
        (["--trainer.val_check_interval", "1000"], "`val_check_interval` (1000) must be less than or equal to"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/aurc"],
            "Early stopping conditioned on metric `val/aurc` which is not available",
        ),
    ],
)
def test_what_lightning_and_jsonargparse_refuse_is_one_sentence(
    words: list[str],
    sentence: str,
    tiny_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    said = error_of(capsys, monkeypatch, "fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run, *words)
    assert said.startswith(f"hrcam: error: {sentence}")
