"""`robustcli report` and `robustcli plot`: what is measured already, as text, as a page or as one chart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli.completion import complete_models, offer, words
from robustcli.cli.console import notice, out, tell, warn
from robustcli.cli.options import ATTACK, MODEL, OUTPUT, argument, option
from robustcli.cli.outputs import check_output
from robustcli.cli.request import STORE, exit_code
from robustcli.cli.results import open_store
from robustcli.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    from robustcli.report.points import Results

Files = Annotated[list[Path] | None, argument("What --json or --format json wrote; what the store holds if left out.")]
Store = Annotated[
    Path | None, option("--store", OUTPUT, "Results and images of this store (default results/robustcli.db).")
]


def _formats(typed: str) -> tuple[str, ...]:
    from robustcli.report.exports import EXPORTS
    from robustcli.report.formats import FORMATS

    return (*FORMATS, *EXPORTS)


KINDS = ("curve", "pairs", "classes", "confusion", "history", "progress", "gallery")
"""Of charts: those of `charts.CHARTS`, without what that imports."""

Style = Annotated[
    str,
    option(
        "--format",
        OUTPUT,
        "table, json, csv, markdown or latex; or for others latex-document, model-card, robustbench or eval-results.",
        offer(_formats),
    ),
]
Page = Annotated[
    Path | None, option("--output", OUTPUT, "Write a page to this .html file; or what --format is for others.")
]
Kind = Annotated[str, argument(f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.", words(*KINDS))]
Drawing = Annotated[Path, option("--output", OUTPUT, "The file to write: .png, .svg or .pdf.")]
Model = Annotated[str | None, option("--model", MODEL, "Of this model alone, by its name.", complete_models)]
Attack = Annotated[
    str | None, option("--attack", ATTACK, "Of this attack alone, by its name, perhaps with its budget.")
]

SUFFIXES = (".png", ".svg", ".pdf")


def report(files: Files = None, store: Store = None, style: Style = "table", output: Page = None) -> None:
    """Print saved results as the runs themselves did, or write them as one self-contained page. Nothing is measured.

    Example: `robustcli report result.json --output report.html`
    """
    from robustcli.report.exports import EXPORTS
    from robustcli.report.formats import FORMATS

    if style not in (*FORMATS, *EXPORTS):
        raise unknown("--format", style, (*FORMATS, *EXPORTS))
    if output is not None:
        suffix = EXPORTS[style][0] if style in EXPORTS else ".html"
        if output.suffix.lower() != suffix or style in FORMATS[1:]:
            kinds = ", ".join(f"{kind} of --format {name}" for name, (kind, _) in EXPORTS.items())
            raise ConfigError(f"--output {output}: should be .html, a page without --format, or {kinds}")
        _check_output(output, files, store, suffix)
    with _opened("report", files, store, images=output is not None and style in FORMATS) as (documents, results):
        if not any(document["rows"] for document in documents.values()) and (style in EXPORTS or not files):
            raise DataError(f"{', '.join(documents) or store or STORE}: there is no row to show")
        if style in EXPORTS:
            _export(style, EXPORTS[style][1](list(documents.values())), output)
        elif output is None:
            _print(documents, style)
        else:
            _write_page(results(None, None), files, store, output)
    raise typer.Exit(max(map(exit_code, documents.values()), default=0) if files else 0)


def _export(style: str, text: str, output: Path | None) -> None:
    from robustcli.disk import write_whole

    if output is None:
        out().file.write(text)
        return
    write_whole(output, text.encode(), "--output")
    notice(f"{style}: {output}")


def plot(
    kind: Kind, output: Drawing, files: Files = None, store: Store = None, model: Model = None, attack: Attack = None
) -> None:
    """Draw one chart of the page for print, from saved results. Nothing is measured.

    Example: `robustcli plot curve result.json --output curve.pdf`
    """
    from robustcli.report.charts import CHARTS, draw

    if kind not in CHARTS:
        raise unknown("plot", kind, CHARTS)
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: should end in {', '.join(SUFFIXES)}")
    _check_output(output, files, store, output.suffix)
    chart = CHARTS[kind]
    with _opened("plot", files, store, images=kind == "gallery") as (_, results):
        choices = chart.points(results(model, attack))
    if not choices:
        raise DataError(f"plot {kind}: {chart.missing}")
    name, points = next(iter(choices.items()))
    draw(chart, points, name or chart.title, output)
    more = f"; --model and --attack choose another of {len(choices)}" if len(choices) > 1 else ""
    notice(f"{output}: {name or chart.title}{more}")


def _check_output(output: Path, files: Sequence[Path] | None, store: Path | None, kind: str) -> None:
    reads = [*(("the result", path) for path in files or ()), ("the store", store or STORE)]
    check_output(output, "--output", reads, kind)


@contextmanager
def _opened(
    command: str, files: Sequence[Path] | None, store: Path | None, *, images: bool
) -> Iterator[tuple[dict[str, dict[str, Any]], Callable[[str | None, str | None], Results]]]:
    """Documents by where they are from: files, or what the store holds where none are given.

    And what gives their results, of a model and an attack or of all, with the images that the store has of them.
    """
    from robustcli.measure.document import read_document

    documents = {str(path): read_document(path) for path in files or ()}
    path = store or STORE
    if store is None and not STORE.exists():
        if not files:
            raise ConfigError(f"{command}: give a FILE.json, or --store FILE; {STORE} is not there")
        images = False
    with ExitStack() as stack:
        try:
            kept = stack.enter_context(open_store(path)) if images or not files else None
        except DataError as error:
            if store is not None or not files:
                raise
            kept = None
            warn(f"{error}; no images are shown")
        if kept is not None and not files:
            from robustcli.report.stored import documents as stored

            found = stored(kept[0], kept[1].lines)
            documents = {f"--store {path}, result {i}": one for i, one in enumerate(found, start=1)}

        def results(model: str | None, attack: str | None) -> Results:
            from robustcli.report.points import gather

            made = gather(list(documents.values())).only(model, attack)
            if kept is None or not images:
                return made
            from robustcli.report.gallery import galleries

            return replace(made, galleries=galleries(kept[0], kept[1].lines, made))

        yield documents, results


def _print(documents: Mapping[str, dict[str, Any]], style: str) -> None:
    from robustcli.report.formats import print_document

    for where, document in documents.items():
        try:
            for kind, text in document["notes"]:
                tell(str(text), str(kind))
            print_document(document, style, out())
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _write_page(results: Results, files: Sequence[Path] | None, store: Path | None, output: Path) -> None:
    from robustcli.disk import write_whole
    from robustcli.report.page import make_page

    inputs = [*map(str, files or ()), *(["--store", str(store)] if store else [])]
    content = make_page(results, inputs, str(output)).encode()
    write_whole(output, content, "--output")
    rows = "1 row" if len(results.rows) == 1 else f"{len(results.rows)} rows"
    notice(f"{output}: {rows}, images of {len(results.galleries)}, {len(content) / 1e6:.1f} MB")
