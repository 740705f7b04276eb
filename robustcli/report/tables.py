"""Rows of results as tables: sheets, and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from os.path import commonprefix

from robustcli.attacks import label
from robustcli.measure.record import Row
from robustcli.report.rates import interval, percent
from robustcli.report.sheets import Sheet, data_name, to_rich, to_text, transposed
from robustcli.text import csv_cells, visible

__all__ = ["Sheet", "interval", "percent", "to_rich", "to_text", "transposed"]

UPPER_BOUND = (
    "Accuracy: classified right after the attack, of all n; in brackets its 95 % Wilson interval. "
    "An upper bound: a stronger attack may lower it."
)

SHOWN_WHOLE = 10
"""Iterations that are all told, the last ones too where they change nothing."""

MEMBERS = "A member of an ensemble meets what those before it left standing; its accuracy is what is left after it."


def evaluation_sheet(rows: Sequence[Row]) -> Sheet:
    """One checkpoint's rows: an attack and budget a row, the clean accuracy first."""
    first = max(rows, key=lambda row: row.n)
    subject, varied = first.subject, len({row.n for row in rows}) > 1  # where a run stopped early
    cells = [_line("clean", "-", first.clean_correct, first.n, "-", "-", varied)]
    cells += [
        _line(row_name(row), budget(row), row.correct, row.n, median(row), f"{seconds:.1f}", varied)
        for row, seconds in zip(rows, _seconds(rows), strict=True)
    ]
    return Sheet(
        title=f"{subject.checkpoint}: {subject.method} {subject.model} on {data_name(first.dataset, first.split)}, "
        + ("n as in the rows" if varied else f"n = {first.n}"),
        headers=("attack", "budget", *(["n"] if varied else []), "acc. %", "95 % CI", "right", "median", "sec"),
        cells=tuple(cells),
        notes=(*notes_on(rows), *([MEMBERS] if any(row.ensemble for row in rows) else []), UPPER_BOUND),
        left=2,
    )


def row_name(row: Row) -> str:
    """The attack; a member of an ensemble behind that one's name."""
    return f"{row.ensemble}/{label(row.attack)}" if row.ensemble else label(row.attack)


def _seconds(rows: Sequence[Row]) -> Iterator[float]:
    """Each row's seconds; an ensemble's are those of its members, whose rows come before it."""
    members = 0.0
    for row in rows:
        yield row.seconds if row.ensemble else row.seconds + members
        members = members + row.seconds if row.ensemble else 0.0


def _line(attack: str, budget: str, correct: int, n: int, distance: str, seconds: str, varied: bool) -> tuple[str, ...]:
    size = (str(n),) if varied else ()
    return attack, budget, *size, percent(correct, n), interval(correct, n), str(correct), distance, seconds


def median(row: Row) -> str:
    """A minimal-norm attack's median distance; infinite where half of the samples withstood it."""
    if row.eps is not None:
        return "-"
    return "inf" if row.median_distance is None else f"{row.median_distance:.3g}"


def notes_on(rows: Sequence[Row]) -> list[str]:
    """What minimal-norm attacks have to say beyond their row, and what rounding undoes of a budget attack's work."""
    notes = []
    for row in rows:
        if row.eps is not None:
            notes += _rounded(row)
            continue
        state = f"{row.correct} of {row.n} not converged" if row.correct else "all converged"
        if row.by_iter:
            state = f"accuracy % after each iteration {_by_iter(row)}; {state}"
        notes.append(f"{label(row.attack)} {row.attack.norm.label}: {state}.")
    return notes


def _by_iter(row: Row) -> str:
    """`35.1 13.2 0.7`: to the end, or, of many iterations, to the first of those that change nothing any more."""
    correct = row.by_iter
    settled = next(i for i in range(1, len(correct) + 1) if len(set(correct[i - 1 :])) == 1)
    shown = correct if len(correct) <= SHOWN_WHOLE else correct[:settled]
    rest = f" (the same in the {len(correct) - len(shown)} after)" if len(shown) < len(correct) else ""
    return " ".join(percent(count, row.n) for count in shown) + rest


def _rounded(row: Row) -> list[str]:
    """A line where rounding to 8 bits saves more than 1 point."""
    if row.correct_8bit is None or row.correct_8bit - row.correct <= row.n / 100:
        return []
    after, before = percent(row.correct_8bit, row.n), percent(row.correct, row.n)
    return [f"{row_name(row)} {budget(row)}: accuracy % with its images rounded to 8 bits {after}, before {before}."]


def compare_sheet(groups: Sequence[Sequence[Row]]) -> Sheet:
    """Several checkpoints on the same samples: a checkpoint a row, an attack and budget a column."""
    first = groups[0]
    headers = ["checkpoint", "method", "clean"]
    for row in first:
        headers.append(f"{label(row.attack)}\n{budget(row)}")
        if row.eps is None:
            headers.append(f"median\n{row.attack.norm.label}")
    common, _ = _told_apart([rows[0].subject.checkpoint for rows in groups])
    names = short_names(groups)
    cells = []
    for name, rows in zip(names, groups, strict=True):
        line = [name, visible(rows[0].subject.method), _cell(rows[0].clean_correct, rows[0].n)]
        for row in rows:
            line.append(_cell(row.correct, row.n))
            if row.eps is None:
                line.append(median(row))
        line += ["-"] * (len(headers) - len(line))  # what an interrupted run did not come to
        cells.append(tuple(line))
    if all(cell[0] == cell[1] for cell in cells):
        headers, cells = headers[1:], [cell[1:] for cell in cells]
    notes = [f"{name}, {note}" for name, rows in zip(names, groups, strict=True) for note in notes_on(rows)]
    return Sheet(
        title=f"{common} on {data_name(first[0].dataset, first[0].split)}, n = {first[0].n}: accuracy %",
        headers=tuple(headers),
        cells=tuple(cells),
        notes=(*notes, UPPER_BOUND),
        left=len(headers) - len(first) - sum(1 for row in first if row.eps is None) - 1,
    )


def budget(row: Row) -> str:
    """`Linf 0.3`, or `L2` alone for a minimal-norm attack."""
    return row.attack.norm.label if row.eps is None else f"{row.attack.norm.label} {row.eps}"


def _cell(correct: int, n: int) -> str:
    return f"{percent(correct, n)}\n{interval(correct, n)}"


def short_names(groups: Sequence[Sequence[Row]]) -> list[str]:
    """What `compare_sheet` calls each checkpoint."""
    _, names = _told_apart([rows[0].subject.checkpoint for rows in groups])
    return [visible(name) for name in names or [groups[0][0].subject.method]]


def _told_apart(checkpoints: Sequence[str]) -> tuple[str, list[str]]:
    """What the checkpoints' names share (or how many they are), and for each the part that tells it apart.

    `a/mnist-fgsm-1.pt` and `a/mnist-pgd-1.pt` give `a/mnist-*-1.pt`, and `fgsm` and `pgd`; a single file needs none.
    """
    if len(checkpoints) < 2:
        return checkpoints[0], []
    start = re.match(r"(.*[-/])?", commonprefix(checkpoints))[0]  # type: ignore[index]  # noqa: RUF071
    rest = [checkpoint.removeprefix(start) for checkpoint in checkpoints]
    shared_end = commonprefix([name[::-1] for name in rest])[::-1]  # noqa: RUF071
    end = re.search(r"([-.].*)?$", shared_end)[0]  # type: ignore[index]
    shared = f"{start}*{end}" if start or end else f"{len(checkpoints)} checkpoints"
    return shared, [name.removesuffix(end) or name for name in rest]


def to_csv(rows: Sequence[Row]) -> str:
    """Every field of the rows but the per-sample ones, a line a row, accuracies as fractions."""
    lines = [row.as_dict() for row in rows]
    for line in lines:
        for key in ("ids", "robust", "distances"):
            line.pop(key, None)
        line["ci_low"], line["ci_high"] = line.pop("ci95")
        line["attack"] = json.dumps(line["attack"])
    keys = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(keys)
    writer.writerows(csv_cells(line.get(key, "") for key in keys) for line in lines)
    return out.getvalue().rstrip("\n")
