"""One self-contained HTML file of documents, and of the images that a store keeps: no network, nothing live in it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from robustcli import __version__
from robustcli.report.charts import CHARTS, spec_of
from robustcli.report.formats import refusals
from robustcli.report.meanings import MEANINGS, WORDS
from robustcli.report.points import Point, Results
from robustcli.report.table import interval, percent
from robustcli.report.verdict import not_run_line
from robustcli.text import visible
from robustcli.verdict.check import LEVELS

TEMPLATES = Path(__file__).parent / "templates"
MOST = 40
"""Of verdicts and of provenances the newest."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src"
NO_ROWS = "there is no row; give a FILE.json that --json wrote, or --store FILE"


def make_page(results: Results, inputs: Sequence[str], output: str) -> str:
    """The page.

    Args:
        results: documents, their rows, and images of some.
        inputs: the files, and `--store FILE`, as the command line has them.
        output: the page's file.

    Raises:
        DataError: a document cannot be shown.
    """
    own = [Markup(text) for text in (_vega(), _text("page.js"), _text("page.css"))]  # noqa: S704 - nobody else's
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, finalize=_harmless, trim_blocks=True
    )
    environment.globals |= {"percent": percent, "interval": interval, "meanings": MEANINGS, "words": WORDS}
    environment.globals["version"] = __version__
    with refusals():
        parts = _charts(results, inputs) | _verdicts(results) | {"rows": results.rows, "nothing": NO_ROWS}
        try:
            return environment.get_template("page.html").render(
                parts,
                vega=own[0],
                js=own[1],
                css=own[2],
                policy=" ".join([POLICY, *map(_hash, own[:2])]),
                own_command=shlex.join(["robustcli", "report", *inputs, "--output", output]),
            )
        except jinja2.TemplateError as error:
            raise ValueError(str(error)) from None


def _harmless(value: Any) -> Any:
    """Text for the page: what acts or hides is shown as its escape; autoescape does the rest."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed: 0.9 MB, and two seconds of work."""
    return str(vl_convert.javascript_bundle())


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """A script by its content, as the policy names it: no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _charts(results: Results, inputs: Sequence[str]) -> dict[str, Any]:
    """Charts with the names of what they show, their specs and points, and the commands that draw them alone."""
    rows = {row.title: ["--model", row.model, "--attack", row.run] for row in results.rows}
    charts, figures, galleries = [], {}, []
    for kind, chart in CHARTS.items():
        choices = chart.points(results)
        start, end = ["robustcli", "plot", kind, *inputs], ["--output", f"{kind}.pdf"]
        commands = {name: visible(shlex.join([*start, *rows.get(name, []), *end])) for name in choices}
        if kind == "gallery":
            galleries = [(name, found, commands[name]) for name, found in choices.items()]
            continue
        charts.append((kind, chart, list(choices), next(iter(commands.values()), "")))
        if choices:
            found = [_columns(points) | {"command": commands[name]} for name, points in choices.items()]
            figures[kind] = {"spec": spec_of(chart, next(iter(choices.values()))), "choices": found}
    titles = {"leaderboard": "Leaderboard"} | {kind: chart.title for kind, chart in CHARTS.items()}
    whole = [row for row in results.rows if row.record.ensemble is None]
    cells = [(row.data, row.record.norm.capitalize(), row.record.name, row.word) for row in whole]
    filters = dict(zip(("data", "norm", "attack", "verdict"), zip(*cells, strict=True), strict=False))
    return {
        "charts": charts,
        "figures": figures,
        "galleries": galleries,
        "without_images": CHARTS["gallery"].missing,
        "parts": titles | {"verdict": "Verdict", "provenance": "Provenance"},
        "filters": filters,
        "models": sorted({row.model for row in results.rows}),
        "data": sorted({row.data for row in results.rows}),
    }


def _columns(points: Sequence[Point]) -> dict[str, Any]:
    """Points in a short form, without what none of them has."""
    keys = [key for key in points[0] if any(point[key] is not None for point in points)]
    return {"keys": keys, "rows": [[point[key] for key in keys] for point in points]}


def _verdicts(results: Results) -> dict[str, Any]:
    """The newest verdicts, each with its run's command, its findings and what was not run; and where all is from."""
    newest = list(reversed(results.documents))
    found = []
    for document in newest:
        verdict, rows = document["verdict"] or {}, document["rows"]
        names = {row["checkpoint"]: results.names[row["checkpoint"], row["checkpoint_sha256"]] for row in rows}
        for one in verdict.get("checkpoints", ()):
            ranked = sorted(one["findings"], key=lambda finding: -LEVELS.index(finding["level"]))
            bad = sum(LEVELS.index(finding["level"]) >= LEVELS.index("WARN") for finding in ranked)
            groups = {"at WARN or worse": ranked[:bad], "that speak for it, or only inform": ranked[bad:]}
            name = names.get(one["checkpoint"], one["checkpoint"])
            found.append((name, one, _command(document), groups, not_run_line(one, verdict.get("checks", ""))))
    origins = [
        (document, _command(document), json.dumps(document["provenance"].get("spec"), indent=1).splitlines())
        for document in newest[:MOST]
    ]
    return {"verdicts": found[:MOST], "origins": origins}


def _command(document: Mapping[str, Any]) -> str:
    """The command of a run, quoted anew: what a forged one would do beside it is an argument."""
    try:
        return shlex.join(shlex.split(str(document["provenance"].get("command") or "")))
    except ValueError:
        return ""
