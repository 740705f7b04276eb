"""Documents in the forms in which others take them: a LaTeX document, a model card, two leaderboards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from robustcli import __version__
from robustcli.errors import DataError, listed
from robustcli.measure.document import records_of
from robustcli.measure.record import Record
from robustcli.report.formats import refusals
from robustcli.report.meanings import WORDS
from robustcli.report.table import Table, data_name, interval, percent, to_text
from robustcli.report.verdict import finding_lines, heading, not_run_line
from robustcli.report.views import tables
from robustcli.text import latex, markdown, visible

Documents = Sequence[Mapping[str, Any]]

UNRELIABLE = {"RELIABLE": False, "SUSPECT": True, "INVALID": True}
FILL_IN = "FILL IN"
"""Begins what nobody but the author of a model knows."""

HUB = {
    "mnist": "ylecun/mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
}
"""Data sets by their name on the Hugging Face Hub."""

ROBUSTBENCH = ("cifar10", "cifar100", "imagenet")

ROWS, LONG = 40, 45
"""Rows of a table on a page, and characters of a cell that is not wrapped."""

PREAMBLE = r"""\documentclass{article}
\usepackage{iftex,booktabs,float,graphicx}
\ifPDFTeX\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{textcomp}\fi
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\begin{document}
\sloppy"""

TABLE = r"""\begin{table}[H]
\centering\small
\caption{%s}\label{tab:robustcli-%s}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%%
\begin{tabular}{%s}
\toprule
%s \\
\midrule
%s
\bottomrule
\end{tabular}}
\end{table}"""


def latex_document(documents: Documents) -> str:
    """A whole document with all tables, verdicts and origins, for pdflatex, tectonic and xelatex."""
    parts, number = [PREAMBLE], 0
    for document in documents:
        for table in _tables(document):
            for start in range(0, max(1, len(table.cells)), ROWS):
                number += 1
                title = table.title + ", continued" * (start > 0)
                parts.append(_latex_table(table, title, table.cells[start : start + ROWS], number))
            parts += [_tex(note) + r"\par" for note in table.notes]
        for head, lines in _verdicts(document):
            parts += [rf"\paragraph{{{_tex(head)}}}", *(_tex(line) + r"\par" for line in lines)]
        parts += [rf"\noindent\texttt{{{_tex(line)}}}\par" for line in _origin(document)]
    return "\n".join([*parts, r"\end{document}", ""])


def _latex_table(table: Table, title: str, cells: Sequence[Sequence[str]], number: int) -> str:
    # Braces before each row: a bracket or a star there would be an option of the line before.
    rows = ["{}" + " & ".join(map(_tex, row)) for row in (table.headers, *cells)]
    long = [max(len(row[i]) for row in (table.headers, *cells)) > LONG for i in range(len(table.headers))]
    align = "".join(r"p{.4\linewidth}" if wrap else "l" if i < table.left else "r" for i, wrap in enumerate(long))
    return TABLE % (_tex(title), number, align, rows[0], " \\\\\n".join(rows[1:]) + r" \\")


def _tex(text: str) -> str:
    return latex(text.replace("\n", " "))


def model_card(documents: Documents) -> str:
    """Markdown for a model's card: what was measured, what it means and how to make it again; with a `model-index`."""
    records = [record for document in documents for record in _rows(document)]
    index: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in records:
        kind = HUB.get(one.dataset, re.sub(r"[^\w.-]+", "-", one.dataset))  # the Hub refuses other characters
        dataset = {"type": kind, "name": one.dataset, "split": one.split}
        name = f"Robust accuracy, {one.name} {one.ball}"
        metrics = [{"type": "accuracy", "name": name, "value": round(one.accuracy, 4)}]
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        index.setdefault((one.subject.checkpoint, one.subject.sha256), []).append(result)
    models = [{"name": name, "results": results} for (name, _), results in index.items()]
    parts = [f"---\n{_yaml({'model-index': models})}---"] if models else []
    parts.append("# Adversarial robustness")
    for document in documents:
        parts += [to_text(table, "markdown") for table in _tables(document)]
        for head, lines in _verdicts(document):
            parts.append("\n".join([f"**{markdown(head)}**\n", *(f"- {markdown(line)}" for line in lines)]))
        parts += ["To make it again:", "\n".join(f"    {line}" for line in _origin(document))]
    return "\n\n".join(parts) + "\n"


def robustbench(documents: Documents) -> str:
    """The JSON of a model in RobustBench's `model_info`; what only its author knows is to be filled in.

    Raises:
        DataError: AutoAttack did not run, on several models or budgets, or on images that RobustBench does not have.
    """
    found = [(record, document) for document in documents for record in _rows(document)]
    found = [(record, document) for record, document in found if _is_autoattack(record)]
    way = "evaluate MODEL --preset standard --eps 8/255"
    if len(found) != 1:
        names = listed(f"{record.subject.checkpoint} {record.ball}" for record, _ in found)
        why = f"is of one model at one budget, and here are {names}"
        why = why if found else "takes AutoAttack with its usual options on all samples, which did not run"
        raise DataError(f"--format robustbench: {why}; `robustcli {way}` gives it")
    record, document = found[0]
    if record.dataset not in ROBUSTBENCH:
        raise DataError(f"--format robustbench: has {', '.join(ROBUSTBENCH)}, and no {visible(record.dataset)}")
    words = [one["word"] for one in _checked(document) if one["checkpoint"] == record.subject.checkpoint]
    verdict = words[0] if words else ""
    note = f"{_what(record)}, by robustcli {__version__}" + (f"; its verdict: {verdict}" if verdict else "")
    info = {
        "link": f"{FILL_IN}: the paper's address",
        "name": f"{FILL_IN}: the paper's title",
        "authors": FILL_IN,
        "additional_data": f"{FILL_IN}: true or false",
        "number_forward_passes": f"{FILL_IN}: passes of the network a prediction, such as 1",
        "dataset": record.dataset,
        "venue": FILL_IN,
        "architecture": record.subject.model or FILL_IN,
        "eps": record.budget,
        "clean_acc": f"{100 * record.clean_correct / max(1, record.n):.2f}",
        "reported": f"{FILL_IN}: the paper's own robust accuracy in per cent",
        "autoattack_acc": f"{100 * record.accuracy:.2f}",
        "footnote": note,
        "unreliable": UNRELIABLE.get(verdict, f"{FILL_IN}: true or false"),
    }
    return json.dumps(info, indent=2) + "\n"


def _is_autoattack(record: Record) -> bool:
    """Whether it is AutoAttack as RobustBench runs it, all its members on all samples, in a norm of RobustBench's."""
    attack, unmet = record.attack, record.sampled.unmet if record.sampled else 0
    whole = attack.get("version") in ("standard", "fast") and attack["rounds"] >= 100 and attack["queries"] >= 5000
    return attack["name"] == "autoattack" and whole and not unmet and record.norm in ("linf", "l2")


def eval_results(documents: Documents) -> str:
    """Hugging Face's `.eval_results/*.yaml` of a model: clean accuracy and each row with a budget, in per cent.

    Raises:
        DataError: there is no such row, or there are several models.
    """
    entries: list[dict[str, Any]] = []
    rows = [record for document in documents for record in _rows(document)]
    models = dict.fromkeys((record.subject.checkpoint, record.subject.sha256) for record in rows)
    source = {"url": f"{FILL_IN}: where the result JSON is", "name": f"robustcli {__version__}"}
    for document in documents:
        rest = {"date": str(document["provenance"].get("time") or FILL_IN), "source": source}
        for record in _rows(document):
            dataset = {"id": HUB.get(record.dataset, FILL_IN), "task_id": f"{FILL_IN}: a task of its eval.yaml"}
            clean = f"clean accuracy on {data_name(record.dataset, record.split)}, n = {record.n}"
            found = {clean: record.clean_correct, f"robust accuracy, {_what(record)}": record.correct}
            for notes, correct in found.items():
                value = round(100 * correct / max(1, record.n), 2)
                if all(notes != entry["notes"] for entry in entries):
                    entries.append({"dataset": dataset, "value": value, **rest, "notes": notes})
    if len(models) != 1:
        names = listed(f"{checkpoint} ({sha256[:8]})" for checkpoint, sha256 in models)
        why = f"here are {names}; give each one's result" if models else "no row here has a budget; give --eps"
        raise DataError(f"--format eval-results: is of one model at a budget, and {why}")
    head = "# For .eval_results/ in the model's repository; dataset.id has to be a benchmark of the Hub."
    return f"{head}\n{_yaml(entries)}"


def _rows(document: Mapping[str, Any]) -> list[Record]:
    """Rows with a budget, of an ensemble the worst case alone."""
    return [one for one in records_of(document) if one.kind != "minimal" and one.ensemble is None]


def _what(record: Record) -> str:
    """`autoattack Linf 8/255 on cifar10, n = 1000: 95 % interval [.., ..]`."""
    on = f"{record.name} {record.ball} on {data_name(record.dataset, record.split)}, n = {record.n}"
    return f"{on}, {percent(record.correct, record.n)} % {interval(record.correct, record.n)} (95 %)"


def _checked(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(document["verdict"]["checkpoints"]) if document["verdict"] else []


def _verdicts(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Of each checkpoint, its verdict, and what that means and rests on."""
    for verdict in _checked(document):
        lines = [WORDS.get(verdict["word"], ""), *finding_lines(verdict)]
        lines += [not_run_line(verdict, document["verdict"]["checks"]), document["verdict"]["note"]]
        yield heading(verdict, True), [line for line in dict.fromkeys(lines) if line]


def _tables(document: Mapping[str, Any]) -> Sequence[Table]:
    return tables(document) if document["rows"] else ()


def _origin(document: Mapping[str, Any]) -> list[str]:
    """The command, and on which versions, hardware, seed and data."""
    origin = document["provenance"]
    versions = " ".join(f"{name} {number}" for name, number in dict(origin.get("versions") or {}).items() if number)
    keys = ("commit", "hardware", "seed", "data_fingerprint", "time")
    known = "; ".join(f"{key} {str(origin[key])[:40]}" for key in keys if origin.get(key) is not None)
    return [visible(str(line)) for line in (origin.get("command"), f"# {versions}; {known}") if line]


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value))  # nothing in it twice, which YAML would refer to
    return yaml.safe_dump(plain, sort_keys=False, width=10_000)


EXPORTS: dict[str, tuple[str, Callable[[Documents], str]]] = {
    "latex-document": (".tex", refusals()(latex_document)),
    "model-card": (".md", refusals()(model_card)),
    "robustbench": (".json", refusals()(robustbench)),
    "eval-results": (".yaml", refusals()(eval_results)),
}
"""What `report --format` writes beside a run's own formats: the suffix, and documents to text."""
