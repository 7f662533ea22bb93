"""A tested run that the tests of the report share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hrcam_lightning.cli import main
from tests.command_line import CASES, SMALL, again

if TYPE_CHECKING:
    from pathlib import Path

EXPLAINERS = '[{method: gradcam, name: "grad <b>"}, random, center]'


@pytest.fixture(scope="session")
def tested_run(tmp_path_factory: pytest.TempPathFactory, tiny_set: Path) -> Path:
    """A run of one epoch on the tiny set, tested beside an explainer of a hostile name; to be copied, not changed."""
    folder, cases = tmp_path_factory.mktemp("report") / "run", tiny_set / "cases.csv"
    main(["fit", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "1"])
    main(again("test", folder, cases, "--explainers", EXPLAINERS, "--fused_maps.cases", "0"))
    return folder
