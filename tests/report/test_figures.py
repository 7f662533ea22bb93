"""Sections that a run and a comparison share."""

from __future__ import annotations

import json
import re

from hrcam_lightning.report.figures import calibration_section
from tests.compare.tables import run_of


def test_calibration_is_that_of_the_probabilities() -> None:
    html = calibration_section({"run": run_of([1, 0], [0.75, 0.75])}, ["lesion"]).html
    (text,) = re.findall(r'data-figure="plot-calibration">(.*?)</script>', html)
    _, marks = json.loads(text)["data"]
    assert (marks["name"], marks["x"], marks["y"]) == ("lesion", [0.75], [0.5])
    assert "0.250" in html  # ECE
    assert "0.312" in html  # Brier: (0.0625 + 0.5625) / 2
