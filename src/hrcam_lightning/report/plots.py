"""Figures of the page, by Plotly: curves, calibration, differences. Told apart by any colour vision."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hrcam_lightning.callbacks.curves import COLOURS, FLOOR, PANELS, looks_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import plotly.graph_objects as go

    from hrcam_lightning.callbacks.curves import Point
    from hrcam_lightning.metrics import Estimate, ReliabilityBin

INK = "#010203"
"""Stands for the colour of the text, which the page's script puts in its place: it is another in the dark."""
GRID = "rgba(128, 128, 128, 0.25)"
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
"""As those of `Look` are called here."""
TITLES = {
    "recall_by_dprime": "recall against d′, at the validation threshold",
    "recall_by_size_mm": "recall against size, at the validation threshold",
    "recall_by_voxels": "recall against size, at the validation threshold",
    "pointing_by_dprime": "pointing against d′, cases with one lesion",
    "pointing_by_size_mm": "pointing against size, cases with one lesion",
    "pointing_by_voxels": "pointing against size, cases with one lesion",
}
"""Where those of `PANELS` are too short to stand alone."""
Style = dict[str, Any]


@cache
def scripts() -> tuple[str, ...]:
    """What draws the figures: Plotly itself, and a few lines of ours."""
    from plotly.offline import get_plotlyjs  # late: no other command needs it

    return str(get_plotlyjs()), (files(__package__) / "assets" / "plots.js").read_text(encoding="utf-8")


def figure_html(figure: go.Figure, name: str) -> str:
    """A place for a figure, and its data; `name` is unique in the page."""
    data = str(figure.to_json())  # Plotly escapes what would end the script
    return f'<div class="plot" id="{name}"></div><script type="application/json" data-figure="{name}">{data}</script>'


def plots_html(figures: Mapping[str, go.Figure], beside: str = "") -> str:
    """Figures side by side, by name, and HTML beside them."""
    drawn = "".join(f"<div>{figure_html(figure, name)}</div>" for name, figure in figures.items())
    return f'<div class="plots">{drawn}{f"<div>{beside}</div>" if beside else ""}</div>'


def styles_of(names: Sequence[str], floors: Collection[str]) -> dict[str, Style]:
    """Colour, dash and symbol of each map, as in ``curves.png``."""
    return {
        name: {
            "color": look.colour or INK,
            "dash": DASHES[look.dash],
            "width": 1.5 if look.colour is None else 1.2 if look.colour == FLOOR else 2,
            "symbol": SYMBOLS[look.symbol],
        }
        for name, look in looks_of(names, floors).items()
    }


def curve_figure(panel: str, curves: Mapping[str, Sequence[Point]], styles: Mapping[str, Style]) -> go.Figure:
    """One panel of `PANELS`: steps of a FROC or LROC, or shares in bins with their intervals."""
    about = PANELS[panel]
    figure = _figure(TITLES.get(panel, about.title), about.x.removesuffix(" (above: lesions)"), about.y)
    for number, (name, points) in enumerate(curves.items()):
        style = styles[name]
        if points[0].n:
            _bins(figure, name, points, style, number, len(curves))
        else:  # the highest share at no more than so many false ones: steps, not straight lines
            line = {"color": style["color"], "dash": style["dash"], "width": style["width"], "shape": "hv"}
            figure.add_scatter(x=[one.x for one in points], y=[one.y for one in points], name=name, line=line,
                               mode="lines")  # fmt: skip
    if panel.startswith("froc"):
        ticks = [0.125, 0.25, 0.5, 1, 2, 4, 8]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=["⅛", "¼", "½", "1", "2", "4", "8"])
    first = next(iter(curves.values()))
    if first[0].n:
        edges = sorted({edge for point in first for edge in (point.x, point.x_to)})
        figure.update_xaxes(tickvals=edges, ticktext=[f"{edge:.3g}" for edge in edges], range=[edges[0], edges[-1]])
    return figure


def _bins(figure: go.Figure, name: str, points: Sequence[Point], style: Style, number: int, count: int) -> None:
    """Shares in their bins, the maps side by side."""
    shift = 0.5 + 0.4 * (number - (count - 1) / 2) / count
    known = [not math.isnan(one.low) for one in points]
    figure.add_scatter(
        x=[one.x + shift * (one.x_to - one.x) for one in points],
        y=[one.y for one in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, one.high - one.y) if there else 0 for one, there in zip(points, known, strict=True)],
            "arrayminus": [max(0.0, one.y - one.low) if there else 0 for one, there in zip(points, known, strict=True)],
            "thickness": 1,
            "width": 3,
        },
        name=name,
        mode="lines+markers",
        line={"color": style["color"], "dash": style["dash"], "width": style["width"] / 2},
        marker={"color": style["color"], "symbol": style["symbol"], "size": 6},
        customdata=[[one.x, one.x_to, one.n] for one in points],
        hovertemplate="%{y:.3f}, of %{customdata[2]} in %{customdata[0]:.3g} to %{customdata[1]:.3g}",
    )


def calibration_figure(bins: Mapping[str, Sequence[ReliabilityBin]], styles: Mapping[str, Style]) -> go.Figure:
    """Observed share against mean probability, with intervals; the diagonal is a network that means what it says."""
    figure = _figure("calibration of the class probability", "mean probability of a bin", "share of the class")
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="as it should be", hoverinfo="skip",
                       line={"color": INK, "dash": "dash", "width": 1.2})  # fmt: skip
    for name, found in bins.items():
        style, shares = styles[name], [one.observed for one in found]
        figure.add_scatter(
            x=[one.predicted for one in found],
            y=[share.value for share in shares],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [_reach(share.high, share.value) for share in shares],
                "arrayminus": [_reach(share.value, share.low) for share in shares],
                "thickness": 1,
                "width": 3,
            },
            name=name,
            mode="lines+markers",
            line={"color": style["color"], "dash": style["dash"], "width": 1},
            marker={"color": style["color"], "symbol": style["symbol"], "size": 7},
            customdata=[[share.n] for share in shares],
            hovertemplate="%{y:.3f} at %{x:.3f}, of %{customdata[0]} cases",
        )
    figure.update_xaxes(range=[-0.02, 1.02])
    return figure


def histogram_figure(values: Mapping[str, Sequence[float]], styles: Mapping[str, Style]) -> go.Figure:
    """How probabilities are spread, in bins of 0.05."""
    figure = _figure("probabilities", "probability", "cases")
    for name, own in values.items():
        bins = {"start": 0, "end": 1.0001, "size": 0.05}
        figure.add_histogram(x=list(own), name=name, xbins=bins, marker={"color": styles[name]["color"]}, opacity=0.7)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=None, autorange=True)
    return figure


def difference_figure(metric: str, reference: str, differences: Mapping[str, Estimate]) -> go.Figure:
    """How far rows lie from the reference, with intervals; 0 is drawn."""
    names = list(differences)[::-1]  # the first row on top
    found = [differences[name] for name in names]
    figure = _figure(metric, f"{metric}: difference to {reference}", "")
    figure.add_scatter(
        x=[one.value for one in found],
        y=names,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_reach(one.high, one.value) for one in found],
            "arrayminus": [_reach(one.value, one.low) for one in found],
            "thickness": 1.5,
            "width": 4,
        },
        mode="markers",
        marker={"color": COLOURS[0], "size": 8},
        hovertemplate="%{x:+.3f}<extra>%{y}</extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": GRID, "width": 2})
    figure.update_yaxes(range=None, autorange=True, automargin=True)
    figure.update_layout(height=120 + 26 * len(names))
    return figure


def training_figure(metric: str, values: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Every training by itself, a row an experiment, a colour and a symbol a seed.

    Args:
        metric: What is drawn.
        values: By row and seed.
    """
    names = list(values)[::-1]  # the first row on top
    seeds = sorted({seed for of in values.values() for seed in of}, key=int)
    figure = _figure(f"{metric} of each training", metric, "")
    for seed, style in styles_of(seeds, ()).items():
        rows = [name for name in names if seed in values[name]]
        figure.add_scatter(
            x=[values[name][seed] for name in rows],
            y=rows,
            name=f"seed {seed}",
            mode="markers",
            marker={"color": style["color"], "symbol": style["symbol"], "size": 9, "opacity": 0.8},
            hovertemplate="%{x:.3f}<extra>%{y}, %{fullData.name}</extra>",
        )
    figure.update_yaxes(range=None, autorange=True, automargin=True, categoryorder="array", categoryarray=names)
    height = 160 + 26 * len(names)
    figure.update_layout(height=height, legend={"y": -60 / (height - 88)})  # pixels below the axis, however tall
    return figure


def _reach(high: float, low: float) -> float:
    return 0.0 if math.isnan(high - low) else max(0.0, high - low)


def _figure(title: str, x: str, y: str) -> go.Figure:
    import plotly.graph_objects as go  # late: no other command needs it

    figure = go.Figure()
    figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 14}, "x": 0, "xref": "paper"},
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": "#808080", "activecolor": COLOURS[0]},
        font={"size": 12},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        height=380,
        margin={"l": 56, "r": 12, "t": 40, "b": 48},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        hovermode="closest",
    )
    figure.update_xaxes(title={"text": x, "standoff": 8}, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title={"text": y, "standoff": 8}, gridcolor=GRID, zeroline=False, range=[-0.02, 1.05])
    return figure
