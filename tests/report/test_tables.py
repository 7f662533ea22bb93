"""Tables: what they say, and that nothing in them is more than text."""

from __future__ import annotations

from typing import Any

from hrcam_lightning.report.board import board_html, claims_html, differences_of, reference_of, whole_board_html
from hrcam_lightning.report.tables import (
    Cell,
    all_figures_html,
    entry_cell,
    facts_html,
    figures_html,
    folded,
    paragraph,
    table_html,
    yaml_html,
)

EVIL = "<img src=x onerror=alert(1)>&"
SAFE = "&lt;img src=x onerror=alert(1)&gt;&amp;"
ENTRY = {"value": 0.98765, "low": 0.9, "high": 1.0, "n": 40}


def test_whatever_stands_in_a_table_is_text() -> None:
    everywhere = [
        table_html([EVIL, Cell(EVIL, EVIL)], [[EVIL, Cell(EVIL, EVIL)]], EVIL),
        paragraph(EVIL),
        folded(EVIL, ""),
        yaml_html({EVIL: [EVIL]}),
        facts_html({EVIL: EVIL}),
        all_figures_html({EVIL: {EVIL: {"value": None, "reason": EVIL}}}),
        board_html([{"row": EVIL, "kind": EVIL, "seeds": "0", "auroc": "0.5"}]),
        whole_board_html([{"row": EVIL, "kind": "model", "reason": EVIL}]),
    ]
    for html in everywhere:
        assert SAFE in html
        assert "<img" not in html


def test_a_figure_stands_above_its_interval_or_says_why_it_is_undefined() -> None:
    assert entry_cell(ENTRY) == Cell("0.988", "[0.900, 1.000]")
    assert entry_cell({**ENTRY, "p": 0.0123}) == Cell("0.988", "[0.900, 1.000] p = 0.012")
    assert entry_cell({"value": 0.5, "low": None, "high": None, "n": 1}) == Cell("0.500", "")
    assert entry_cell({"value": None, "n": 0, "reason": "no mask"}) == Cell("undefined", "no mask")
    assert entry_cell(None) == Cell("")


def test_the_ideal_observer_and_the_share_of_it_stand_last() -> None:
    figures: dict[str, dict[str, dict[str, Any]]] = {
        "model": {"auroc": ENTRY, "pointing": {"value": None, "n": 0, "reason": "no mask"}, "secret": ENTRY},
        "random": {"pointing": {"value": 0.125, "low": 0.1, "high": 0.2, "n": 3}},
        "ceiling": {"auroc": {**ENTRY, "value": 0.75, "kind": "upper_bound"}},
        "efficiency": {"auroc": {**ENTRY, "value": 0.25}},
    }
    html = figures_html(figures, ["model", "random"], ["random"])
    places = [
        html.index(text) for text in ("0.988", "floor", "0.125", "upper bound", "0.750", "share of ceiling", "0.250")
    ]
    assert places == sorted(places)
    assert "pointing: undefined, no mask" in html
    assert "secret" not in html
    assert "secret" in all_figures_html(figures)
    assert "share of ceiling" not in figures_html({**figures, "ceiling": {}}, ["model"], [])


def _row(name: str, **columns: str) -> dict[str, str]:
    return {"row": name, "kind": "model", "seeds": "0", "cases": "8", "auroc": "0.7", "auroc_low": "0.6"} | columns


GAP = {"auroc_difference": "-0.2", "auroc_difference_low": "-0.3", "auroc_high": "0.8"}
ROWS = [
    _row("ours", seeds="0 1", auroc="0.9", auroc_high="0.95", aupro="0.4", aupro_sd="0.05", parameters="12345")
    | {"efficiency/auroc": "0.912345", "auroc_difference": ""},
    _row("theirs", **GAP, auroc_difference_high="-0.1", auroc_difference_p="0.004"),
    _row("same", **GAP, auroc_difference_high="0.1", auroc_difference_p=""),
]


def test_the_board_and_what_its_intervals_hold() -> None:
    assert reference_of(ROWS) == "ours"
    assert reference_of(ROWS[:1]) == ""  # alone, it is compared with nothing
    told = [row | {"reference": "same"} for row in ROWS]
    assert reference_of(told) == "same"  # as written, not as guessed: a row that shares no seed has no difference
    assert "reference" not in whole_board_html(told[:1])
    gap = differences_of(ROWS[1])["auroc"]
    assert (gap.value, gap.low, gap.high, gap.p, gap.n) == (-0.2, -0.3, -0.1, 0.004, 8)
    claims = claims_html(ROWS, "ours")
    assert all(text in claims for text in ("theirs", "lower", "-0.200", "[-0.300, -0.100]", "0.004"))
    assert "same" not in claims
    assert claims_html(ROWS[::2], "ours") == ""
    html = board_html(ROWS)
    assert all(text in html for text in ("0.900", "[0.600, 0.950]", "0.400", "± 0.050", "0.912", "12,345"))
    assert ">2<" in html  # trainings
