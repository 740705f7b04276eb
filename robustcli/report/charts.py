"""The charts of a page, which `robustcli plot` writes alone: Vega-Lite, made by Altair, without their points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt

from robustcli.disk import write_whole
from robustcli.report import points
from robustcli.report.points import Choices, Point, Results

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito 2008, without what is faint on white; shapes and dashes tell the same."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1])
DATA = alt.NamedData(name="points")


@dataclass(frozen=True)
class Chart:
    """A chart: its title, what it shows, why there may be nothing to show, and what gives its points and draws them.

    `room` is what stands beside a panel, in pixels, and how wide one is at least.
    """

    title: str
    shows: str
    missing: str
    made_by: tuple[Callable[[Results], Choices], Callable[[Sequence[Point]], Any]]
    room: tuple[int, int] = (64, 260)

    def points(self, results: Results) -> Choices:
        """Its points."""
        return self.made_by[0](results)


ALONG = "isValid(datum.along)"
"""Of points along a curve; the others are rows."""
PERCENT = alt.Scale(domain=[0, 100])
LEGEND = alt.Legend(
    title=None, orient="bottom", columns=1, labelLimit=320, symbolSize=80, symbolStrokeWidth=0, symbolOpacity=1
)
BESIDE = alt.Legend(title=None, orient="bottom")


def _series(field: str, found: Sequence[Point]) -> dict[str, Any]:
    """Colour, dash and shape of a series, in one legend: colour is never all that tells it."""
    names = list(dict.fromkeys(point[field] for point in found))
    ranges = ((alt.Color, "color", PALETTE), (alt.Shape, "shape", SHAPES), (alt.StrokeDash, "strokeDash", DASHES))
    return {
        key: kind(
            f"{field}:N",
            legend=LEGEND,
            scale=alt.Scale(domain=names, range=[values[i % len(values)] for i in range(len(names))]),
        )
        for kind, key, values in ranges
    }


def _panels(layers: Sequence[alt.Chart], field: str, columns: int = 2, **size: Any) -> alt.FacetChart:
    """A panel for each value of a field."""
    facet = alt.Facet(f"{field}:N", title=None, sort=None)
    return alt.layer(*layers).properties(**size).facet(facet=facet, columns=columns, data=DATA)


def _seen(where: str, opacity: float = 1.0) -> Any:
    """An opacity where a condition holds; elsewhere nothing is seen."""
    return alt.condition(where, alt.value(opacity), alt.value(0))


def _accuracy(found: Sequence[Point], x: alt.X, panels: str, tips: Sequence[str]) -> alt.FacetChart:
    """Accuracy with its interval, a line a series: bars at its points, a band along a curve."""
    look = _series("series", found)
    base = alt.Chart().encode(x=x, color=look["color"])
    y = alt.Y("accuracy:Q", title="accuracy %", scale=PERCENT)
    ends = {"y": alt.Y("low:Q"), "y2": "high:Q"}
    band = base.mark_area().encode(**ends, opacity=_seen(ALONG, 0.15))
    bars = base.mark_rule(strokeWidth=1.5).encode(**ends, opacity=_seen(f"!{ALONG}"))
    line = base.mark_line().encode(y=y, strokeDash=look["strokeDash"])
    dots = base.mark_point(filled=True, size=64).encode(y=y, shape=look["shape"], tooltip=list(tips))
    dots = dots.encode(opacity=_seen(f"!{ALONG} || datum.along % 10 == 5"))
    layers = [band, bars, line, dots]
    return _panels(layers, panels, width=320, height=240).resolve_scale(x="independent")


def _curve(found: Sequence[Point]) -> alt.FacetChart:
    tips = ["series:N", "eps:Q", "accuracy:Q", "low:Q", "high:Q", "n:Q"]
    return _accuracy(found, alt.X("eps:Q", axis=alt.Axis(tickCount=10)), "norm", tips)


def _progress(found: Sequence[Point]) -> alt.FacetChart:
    x = alt.X("step:Q", title="after so many", axis=alt.Axis(tickMinStep=1))
    return _accuracy(found, x, "over", ["series:N", "step:Q", "accuracy:Q", "right:Q", "n:Q"])


def _pairs(_: Sequence[Point]) -> alt.FacetChart:
    two_lines = alt.Axis(labelLimit=170, labelExpr="split(replace(datum.label, ' - ', '\\n- '), '\\n')")
    so = {"domain": ["told apart", "not told apart"]}
    colour = alt.Color("so:N", legend=BESIDE, scale=alt.Scale(range=[PALETTE[1], "#767676"], **so))
    base = alt.Chart().encode(y=alt.Y("pair:N", sort=None, title=None, axis=two_lines), color=colour)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="points of accuracy"), x2="high:Q")
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(
        x="difference:Q",
        shape=alt.Shape("so:N", legend=BESIDE, scale=alt.Scale(range=["diamond", "circle"], **so)),
        tooltip=["pair:N", "attack:N", "difference:Q", "low:Q", "high:Q", "p:Q", "n:Q"],
    )
    zero = alt.Chart().mark_rule(strokeDash=[3, 3], color="#767676").encode(x=alt.datum(0))
    panels = _panels([zero, bars, dots], "attack", 1, width=420, height=alt.Step(36))
    return panels.resolve_scale(y="independent")


def _classes(_: Sequence[Point]) -> alt.LayerChart:
    y = alt.Y("class:N", sort=alt.EncodingSortField("number"), title=None, axis=alt.Axis(labelLimit=80))
    look = _series("when", [{"when": "clean"}, {"when": "under attack"}])
    base = alt.Chart(DATA).encode(y=y, yOffset="when:N", color=look["color"])
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="accuracy %", scale=PERCENT), x2="high:Q")
    tips = ["class:N", "when:N", "accuracy:Q", "low:Q", "high:Q", "right:Q", "n:Q"]
    dots = base.mark_point(filled=True, size=64, opacity=1).encode(x="accuracy:Q", shape=look["shape"], tooltip=tips)
    return alt.layer(bars, dots).properties(width=520, height=alt.Step(14))


def _confusion(_: Sequence[Point]) -> alt.FacetChart:
    sides = {
        channel: kind(f"{field}:N", sort=alt.EncodingSortField(order), title=field, axis=alt.Axis(labelLimit=70))
        for channel, kind, field, order in (("x", alt.X, "taken for", "its number"), ("y", alt.Y, "class", "number"))
    }
    colour = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 100]), legend=None)
    tips = ["class:N", "taken for:N", "when:N", "count:Q", "share:Q"]
    cells = alt.Chart().mark_rect(stroke="#808080", strokeWidth=0.5).encode(**sides, color=colour, tooltip=tips)
    ink = alt.condition("datum.share > 55", alt.value("white"), alt.value("black"))
    text = alt.Chart().mark_text(fontSize=10).encode(**sides, text="count:Q", color=ink)
    return _panels([cells, text], "when", width=280, height=280)


def _history(found: Sequence[Point]) -> alt.FacetChart:
    look = _series("model", found)
    x = alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1))
    base = alt.Chart().encode(x=x, y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)), color=look["color"])
    line = base.mark_line().encode(strokeDash=look["strokeDash"])
    dots = base.mark_point(filled=True, size=40, opacity=1)
    dots = dots.encode(shape=look["shape"], tooltip=["model:N", "measure:N", "epoch:Q", "value:Q"])
    return _panels([line, dots], "measure", width=320, height=160).resolve_scale(y="independent")


KINDS = ["original", "adversarial", "difference"]


def _gallery(_: Sequence[Point]) -> Any:
    two_lines = alt.Axis(
        labelExpr="split(datum.label, '|')", labelAngle=0, labelLimit=94, title=None, domain=False, ticks=False
    )
    x = alt.X("said:N", sort=None, axis=two_lines)
    y = alt.Y("image:N", sort=KINDS, title=None, axis=alt.Axis(domain=False, ticks=False))
    sizes = {"width": alt.Step(104), "height": alt.Step(94)}
    base = alt.Chart(DATA).transform_fold(KINDS, as_=["image", "url"])
    base = base.transform_calculate(
        said="'sample ' + datum.sample + '|' + datum.before + '|' + datum.after + '|x ' + datum.factor"
    )
    return base.mark_image(width=90, height=90, smooth=False).encode(x=x, y=y, url="url:N").properties(**sizes)


WITH_SAMPLES = "no document with samples: give a file that --json wrote"
CHARTS = {
    "curve": Chart(
        "Accuracy over eps",
        "Accuracy against the attack's budget eps, with 95 % intervals: a line a model and attack, a panel a norm.",
        "no attack with a budget: --eps 0.1,0.3 gives some, evaluate --curve all of them",
        (points.curve_points, _curve),
    ),
    "pairs": Chart(
        "Paired differences",
        "Accuracy of the first model less that of the second on the same samples, with 95 % intervals.",
        "no two models on the same samples: robustcli compare MODEL MODEL measures them so",
        (points.pair_points, _pairs),
        (195, 600),
    ),
    "classes": Chart(
        "By class",
        "Accuracy of each class, before and under the attack, with 95 % intervals.",
        WITH_SAMPLES,
        (points.class_points, _classes),
        (100, 260),
    ),
    "confusion": Chart(
        "Confusion",
        "How many samples of each class are taken for which, before and under the attack; darker is a larger share.",
        WITH_SAMPLES,
        (points.confusion_points, _confusion),
        (90, 300),
    ),
    "history": Chart(
        "Training",
        "Loss and accuracy after each epoch of the models' training.",
        "no checkpoint of robustcli train in a document of this version: evaluate one",
        (points.history_points, _history),
    ),
    "progress": Chart(
        "Progress of the attacks",
        "Accuracy that is left after each iteration of an attack, or after each member of an ensemble.",
        "no attack that tells: deepfool does, and so does an ensemble such as --preset standard",
        (points.progress_points, _progress),
    ),
    "gallery": Chart(
        "Adversarial images",
        "Samples that the attack broke: original, adversarial and the change, magnified around grey.",
        "no store has images of these rows: evaluate without --no-store keeps some, and --store FILE names it",
        (lambda results: results.galleries, _gallery),
    ),
}
"""By the KIND that `robustcli plot` takes, in the order of the page."""


def spec_of(chart: Chart, found: Sequence[Point], ink: str = "currentColor", size: int = 12) -> dict[str, Any]:
    """A chart as Vega-Lite, in a colour of text and lines; it takes its points from the data set `points`."""
    text: dict[str, Any] = {"labelColor": ink, "titleColor": ink, "labelFontSize": size, "titleFontSize": size}
    axis: dict[str, Any] = {
        "domainColor": ink,
        "tickColor": ink,
        "gridColor": "#808080",
        "gridOpacity": 0.25,
        "labelFlush": False,
    }
    config: dict[str, Any] = {"axis": axis | text | {"titleFontWeight": "normal"}, "header": text, "legend": text}
    config |= {"view": {"stroke": None}, "background": "transparent", "font": "sans-serif"}
    usermeta = dict(zip(("margin", "panel"), chart.room, strict=True))
    return dict(chart.made_by[1](found).to_dict()) | {"config": config, "usermeta": usermeta}


def draw(chart: Chart, found: Sequence[Point], title: str, path: Path) -> None:
    """Write a chart for print as PNG, SVG or PDF, by the file's suffix.

    Raises:
        ConfigError: the file cannot be written.
    """
    import vl_convert

    spec = spec_of(chart, found, "#111", 14) | {"datasets": {"points": list(found)}, "background": "white"}
    spec |= {"title": {"text": title, "fontSize": 15, "anchor": "start"}} if title else {}
    convert = {".svg": vl_convert.vegalite_to_svg, ".pdf": vl_convert.vegalite_to_pdf}.get(path.suffix.lower())
    content = convert(json.dumps(spec)) if convert else vl_convert.vegalite_to_png(json.dumps(spec), ppi=200)
    write_whole(path, content.encode() if isinstance(content, str) else content, "--output")
