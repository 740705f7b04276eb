"""One self-contained HTML file of documents, and of the images that a store keeps: no network, nothing live in it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from robustcli import __version__
from robustcli.errors import DataError
from robustcli.report.charts import CHARTS, spec_of
from robustcli.report.gallery import Gallery, arrays, data_url, said
from robustcli.report.meanings import MEANINGS
from robustcli.report.points import Point, Results, Row, named
from robustcli.report.table import interval, percent
from robustcli.report.verdict import not_run_line
from robustcli.text import visible
from robustcli.verdict.check import LEVELS

TEMPLATES = Path(__file__).parent / "templates"
HEADINGS = ("model", "method", "data", "attack", "budget", "n", "clean %", "accuracy %", "95 % CI", "verdict")
MOST = 40
"""Of verdicts and of provenances the newest."""

FACTS = ("command", "time", "commit", "hardware", "device", "threads", "platform", "seed", "data_fingerprint")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src"
NO_RESULTS = "there is no row; give a FILE.json that --json wrote, or --store FILE"
NO_STORE = (
    "no store has images of these rows; evaluate without --no-store keeps some, and report --store FILE shows them"
)


def make_page(results: Results, shown: Sequence[Gallery], inputs: Sequence[str], output: str) -> str:
    """The page.

    Args:
        results: the documents and their rows.
        shown: images of rows.
        inputs: the files, and `--store FILE`, as the command line had them.
        output: the page's file.

    Raises:
        DataError: a document cannot be shown.
    """
    try:
        return _render(results, shown, inputs, output)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"a result cannot be shown: {what}") from None


def _render(results: Results, shown: Sequence[Gallery], inputs: Sequence[str], output: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, finalize=_harmless, trim_blocks=True
    )
    scripts = [Markup(text) for text in (vl_convert.javascript_bundle(), _text("page.js"))]  # noqa: S704 - our own
    titles = {row.title: row for row in results.rows}
    charts, figures = [], {}
    for kind, chart in CHARTS.items():
        choices = chart.points(results)
        commands = {name: _plot(kind, inputs, titles.get(name)) for name in choices}
        charts.append((kind, chart, list(choices), next(iter(commands.values()), "")))
        if choices:
            figures[kind] = {
                "spec": spec_of(chart, next(iter(choices.values()))),
                "choices": [_columns(points) | {"command": commands[name]} for name, points in choices.items()],
            }
    parts = {"leaderboard": "Leaderboard"} | {kind: chart.title for kind, chart in CHARTS.items()}
    parts |= {"gallery": "Adversarial images", "verdict": "Verdict", "provenance": "Provenance"}
    newest = list(reversed(results.documents))
    return environment.get_template(
        "page.html"
    ).render(
        version=__version__,
        policy=" ".join([POLICY, *map(_hash, scripts)]),
        css=Markup(_text("page.css")),  # noqa: S704 - our own
        vega=scripts[0],
        js=scripts[1],
        models=sorted({row.model for row in results.rows}),
        data=sorted({row.data for row in results.rows}),
        parts=parts.items(),
        rows=[_cells(row) for row in results.rows],
        headings=HEADINGS,
        filters=_filters(results.rows),
        own_command=_command("report", *inputs, "--output", output),
        nothing=NO_RESULTS,
        charts=charts,
        figures=figures,
        galleries=[_gallery(one, inputs) for one in shown],
        without_images=NO_STORE,
        verdicts=[_verdict(results, one, document) for document, one in _verdicts(newest)[:MOST]],
        origins=[_origin(document) for document in newest[:MOST]],
    )


def _harmless(value: Any) -> Any:
    """Text for the page: what acts or hides is shown as its escape; autoescape does the rest."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """A script by its content, as the policy names it: no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _command(*words: str) -> str:
    return shlex.join(["robustcli", *words])


def _plot(kind: str, inputs: Sequence[str], row: Row | None) -> str:
    chosen = [] if row is None else ["--model", row.model, "--attack", row.attack]
    return _command("plot", kind, *inputs, *chosen, "--output", f"{kind}.pdf")


def _columns(points: Sequence[Point]) -> dict[str, Any]:
    """Points in a short form, without what none of them has."""
    keys = [key for key in points[0] if any(point[key] is not None for point in points)]
    return {"keys": keys, "rows": [[point[key] for key in keys] for point in points]}


def _cells(row: Row) -> dict[str, Any]:
    """A line of the leaderboard: each cell with what it is sorted by, None for text."""
    one = row.record
    cells = [(text, None) for text in (row.model, one.subject.method or "-", row.data, one.name)]
    numbers = [
        (one.ball, -1.0 if one.eps is None else one.eps),
        (one.n, one.n),
        (percent(row.clean, one.n), _share(row.clean, one.n)),
        (percent(row.right, one.n), _share(row.right, one.n)),
        (interval(row.right, one.n), _share(row.right, one.n)),
    ]
    filters = {"data": row.data, "norm": one.norm.capitalize(), "attack": one.name, "verdict": row.word}
    member = one.ensemble is not None
    return {"cells": [*cells, *numbers, (row.word, None)], "filters": filters.items(), "member": member}


def _share(count: int, n: int) -> float:
    return round(100 * count / n, 4) if n else 0.0


def _filters(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    found = [dict(_cells(row)["filters"]) for row in rows]
    names = {"data": "Data", "norm": "Norm", "attack": "Attack", "verdict": "Verdict"}
    return [(key, name, sorted({visible(one[key]) for one in found})) for key, name in names.items()]


def _gallery(gallery: Gallery, inputs: Sequence[str]) -> dict[str, Any]:
    row, count, without = gallery.row, len(gallery.samples), gallery.without_original
    lacking = f"; of {without} the original was not kept, as by earlier versions" if without else ""
    tiles = []
    for sample in gallery.samples:
        numbers, shares = (sample.pred, sample.pred_after), sample.picture.confidence or (None, None)
        names = [said(named(number, row.classes), share) for number, share in zip(numbers, shares, strict=True)]
        images = [(name, Markup(data_url(image))) for name, image in arrays(sample).items()]  # noqa: S704 - base64
        distance = f"{row.record.norm.capitalize()} distance {sample.distance:.3g}"
        tiles.append({"sample": sample.sample, "names": names, "images": images, "distance": distance})
    says = f"The first {count} of the samples that it broke{lacking}. Grey is no change; the factor is told."
    return {"title": row.title, "says": says, "tiles": tiles, "command": _plot("gallery", inputs, row)}


def _verdicts(documents: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return [(document, one) for document in documents for one in (document["verdict"] or {}).get("checkpoints", ())]


def _verdict(results: Results, verdict: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    found = sorted(verdict["findings"], key=lambda one: -LEVELS.index(one["level"]))
    bad = [one for one in found if LEVELS.index(one["level"]) >= LEVELS.index("WARN")]
    parts = {"at WARN or worse": bad, "that speak for it, or only inform": found[len(bad) :]}
    groups = [
        {
            "title": f"{len(some)} finding{'' if len(some) == 1 else 's'} {what}",
            "bad": some is bad,
            "findings": [one | {"why": MEANINGS.get(one["id"])} for one in some],
        }
        for what, some in parts.items()
        if some
    ]
    names = [name for (path, _), name in results.names.items() if path == verdict["checkpoint"]]
    line = not_run_line(verdict, document["verdict"].get("checks", ""))
    return {
        "model": names[0] if names else verdict["checkpoint"],
        "word": verdict["word"],
        "reason": verdict["reason"],
        "groups": groups,
        "not_run": f"{line} ({', '.join(verdict['not_run'])})" if line else "",
        "command": _measured_by(document),
    }


def _measured_by(document: Mapping[str, Any]) -> str:
    """The command of a run, quoted anew: what a forged one would do beside it is an argument."""
    try:
        return shlex.join(shlex.split(str(document["provenance"].get("command") or "")))
    except ValueError:
        return ""


def _origin(document: Mapping[str, Any]) -> dict[str, Any]:
    origin = document["provenance"]
    versions = origin.get("versions")
    facts = [(key.replace("_", " "), str(origin[key])) for key in FACTS if origin.get(key) is not None]
    if isinstance(versions, dict):
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    facts += [(str(kind), str(text)) for kind, text in document["notes"]]
    what = f"{document['command']}, {len(document['rows'])} rows, {origin.get('time') or 'time unknown'}"
    spec = json.dumps(origin.get("spec"), indent=1).splitlines()
    return {"title": what, "facts": facts, "spec": spec, "command": _measured_by(document)}
