"""Figures: their numbers, and what tells their maps apart."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from hrcam_lightning.callbacks.curves import COLOURS, FLOOR, OBSERVER, Point, draw_curves
from hrcam_lightning.metrics import Estimate, ReliabilityBin
from hrcam_lightning.report.plots import (
    INK,
    calibration_figure,
    curve_figure,
    difference_figure,
    figure_html,
    histogram_figure,
    plots_html,
    scripts,
    styles_of,
    training_figure,
)

NAN = math.nan


def test_steps_of_a_curve_and_a_scale_of_octaves() -> None:
    points = [Point(0.125, NAN, 0.25), Point(1, NAN, 0.5), Point(8, NAN, 0.75)]
    styles = styles_of(["model", "random", OBSERVER], ["random"])
    figure = curve_figure("froc", {"model": points, "random": points}, styles)
    model, random = figure.data
    assert (list(model.x), list(model.y), model.line.shape) == ([0.125, 1, 8], [0.25, 0.5, 0.75], "hv")
    assert (model.line.color, random.line.color) == (COLOURS[0], FLOOR)
    assert (model.line.dash, random.line.dash) == ("solid", "dash")
    assert figure.layout.xaxis.type == "log"
    assert list(figure.layout.xaxis.ticktext) == ["⅛", "¼", "½", "1", "2", "4", "8"]
    lroc = curve_figure("lroc", {OBSERVER: points}, styles)
    assert lroc.layout.xaxis.type is None
    assert (lroc.data[0].line.color, lroc.data[0].line.dash) == (INK, "dash")


def test_shares_in_bins_stand_in_them_side_by_side() -> None:
    own = [Point(5, 6, 0.5, 0.25, 0.625, 8), Point(6, 7, 1.0, NAN, NAN, 1)]
    figure = curve_figure("recall_by_dprime", {"model": own, "other": own}, styles_of(["model", "other"], ()))
    first, second = figure.data
    assert list(first.x) == pytest.approx([5.4, 6.4])
    assert list(second.x) == pytest.approx([5.6, 6.6])
    assert list(first.error_y.array) == pytest.approx([0.125, 0])
    assert list(first.error_y.arrayminus) == pytest.approx([0.25, 0])
    assert [list(row) for row in first.customdata] == [[5, 6, 8], [6, 7, 1]]
    assert list(figure.layout.xaxis.tickvals) == [5, 6, 7]
    assert list(figure.layout.xaxis.range) == [5, 7]
    assert "above" not in figure.layout.xaxis.title.text  # the numbers of lesions are shown by hovering


def test_reliability_beside_the_diagonal() -> None:
    bins = [ReliabilityBin(0.9, 1.0, 0.95, Estimate(0.75, 0.5, 0.875, 4))]
    diagonal, model = calibration_figure({"lesion": bins}, styles_of(["lesion"], ())).data
    assert (list(diagonal.x), list(diagonal.y), diagonal.line.color) == ([0, 1], [0, 1], INK)
    assert (list(model.x), list(model.y)) == ([0.95], [0.75])
    assert (list(model.error_y.array), list(model.error_y.arrayminus)) == ([0.125], [0.25])
    assert [list(row) for row in model.customdata] == [[4]]


def test_differences_stand_in_the_order_of_their_rows() -> None:
    gaps = {"first": Estimate(0.5, 0.25, 0.625, 9), "second": Estimate(-0.5, NAN, NAN, 9)}
    (marks,) = difference_figure("pixel_ap", "ours", gaps).data
    assert (list(marks.y), list(marks.x)) == (["second", "first"], [-0.5, 0.5])  # from below
    assert (list(marks.error_x.array), list(marks.error_x.arrayminus)) == ([0, 0.125], [0, 0.25])


def test_every_training_is_a_mark_of_its_seed() -> None:
    values = {"first": {"0": 0.25, "10": 0.5}, "second": {"2": 0.75, "0": 1.0}}
    figure = training_figure("pixel_ap", values)
    marks = {one.name: (list(one.y), list(one.x)) for one in figure.data}
    assert list(marks) == ["seed 0", "seed 2", "seed 10"]
    assert marks["seed 0"] == (["second", "first"], [1.0, 0.25])  # from below
    assert marks["seed 2"] == (["second"], [0.75])
    assert marks["seed 10"] == (["first"], [0.5])
    assert list(figure.layout.yaxis.categoryarray) == ["second", "first"]


def test_a_histogram_holds_probabilities_of_0_and_of_1() -> None:
    (bars,) = histogram_figure({"lesion": [0.0, 1.0]}, styles_of(["lesion"], ())).data
    assert list(bars.x) == [0, 1]
    assert bars.xbins.start == 0
    assert bars.xbins.end > 1


def test_many_maps_never_look_the_same() -> None:
    names = [f"map {number}" for number in range(20)]
    styles = styles_of([*names, "random", "center", OBSERVER], ["random", "center"])
    looks = [(style["color"], style["dash"]) for style in styles.values()]
    assert len(set(looks)) == len(looks)


def test_experiments_beyond_six_are_told_apart_in_every_figure() -> None:
    names = [f"e{number}" for number in range(9)]
    points, bins = [Point(5, 6, 0.5, 0.25, 0.625, 8)], [ReliabilityBin(0.9, 1.0, 0.95, Estimate(0.75, 0.5, 0.875, 4))]
    styles = styles_of(names, ())
    _, *calibration = calibration_figure(dict.fromkeys(names, bins), styles).data
    binned = curve_figure("recall_by_dprime", dict.fromkeys(names, points), styles).data
    for drawn in (calibration, binned):
        assert len({(one.line.color, one.line.dash) for one in drawn}) == 9
        assert len({(one.marker.color, one.marker.symbol) for one in drawn}) == 9


def test_a_map_looks_alike_in_the_picture_and_on_the_page() -> None:
    names = [*(f"e{number}" for number in range(8)), "random", "center", OBSERVER]
    points = [Point(0.5, NAN, 0.25), Point(1, NAN, 0.5)]
    bins = [Point(5, 6, 0.5, 0.25, 0.625, 8)]
    every = {"lroc": dict.fromkeys(names, points), "recall_by_dprime": dict.fromkeys(names, bins)}
    lines, shares, *_ = draw_curves(every, ["random", "center"], {}).axes
    dashes = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
    markers = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}
    styles = styles_of(names, ["random", "center"]).values()
    for drawn, marked, style in zip(lines.lines, shares.containers, styles, strict=False):
        colour = INK if drawn.get_color() == "black" else drawn.get_color()
        assert (colour, dashes[str(drawn.get_linestyle())]) == (style["color"], style["dash"])
        line: Any = marked[0]
        assert markers[str(line.get_marker())] == style["symbol"]
        assert line.get_color() == drawn.get_color()
    assert len(shares.containers) == len(names)


def test_no_name_of_a_map_ends_the_script_that_it_stands_in() -> None:
    evil = "</script><script>alert(1)</script>"
    figure = curve_figure("lroc", {evil: [Point(0, NAN, 1)]}, styles_of([evil], ()))
    html = plots_html({"plot-lroc": figure}, "<b>beside</b>")
    assert html.count("</script>") == 1
    assert "<b>beside</b>" in html
    (data,) = re.findall(r'data-figure="plot-lroc">(.*?)</script>', figure_html(figure, "plot-lroc"))
    assert json.loads(data)["data"][0]["name"] == evil


def test_plotly_stands_before_what_calls_it() -> None:
    library, own = scripts()
    assert "plotly.js v" in library[:200]
    assert "Plotly.react" in own
    assert INK in own  # the colour that it puts the text's in place of
    assert re.findall(r"https?://", own) == []
