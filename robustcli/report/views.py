"""From a document to its tables."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from os.path import commonprefix
from typing import Any

from robustcli.measure.curve import Curve, Group
from robustcli.measure.document import curves_of, records_of
from robustcli.measure.record import Record
from robustcli.report.table import Table, data_name, interval, percent
from robustcli.text import visible

UPPER_BOUND = (
    "Accuracy: classified right after the attack, of all n; in brackets its 95 % Wilson interval. "
    "An upper bound: a stronger attack may lower it."
)
MEMBERS = "A member of an ensemble meets what those before it left standing; its accuracy is what is left after it."
CURVE_BOUND = (
    "Accuracy: no adversarial found within eps, of all n; in brackets its 95 % Wilson interval. "
    "An upper bound at every eps: a stronger attack may find closer ones."
)
PAIRS_NOTE = (
    "Points: accuracy of the first less that of the second on the same samples, with Newcombe's 95 % interval; only "
    "first, only second: samples that are right after the attack in one of them. p: McNemar's exact test, adjusted for "
    "all pairs under an attack (Holm)."
)
SEEDS_NOTE = (
    "Per cent, mean and standard deviation over seeds of one recipe. Told apart over seeds, by Welch's t-test adjusted "
    "for all pairs under an attack (Holm): "
)
TRANSFER_NOTE = (
    "Accuracy %: of the model above, on images that were made on the one to the left, in the same ball; what that one "
    "got wrong before stayed as it was. On the diagonal each model's own attack."
)

LOWER_END = "the lower end if most samples fall early."
COST_NOTE = (
    "Passes, counted in samples, the judging of images among them; known samples of the store take none, nor does one "
    "that is wrong before. Not counted: the checks before the run and behind the verdict, rounding to 8 bits, "
    "--transfer, and what --budget or --until-ci leave out."
)

ITERATIONS = 10
"""So many of an attack with a trace are all shown, the last ones too where they change nothing."""

MANY = 4
"""From so many checkpoints on, the table has only the pairs of the first one with each other; JSON has all."""

BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""An eighth of a line's height to the whole of it; a space is nothing left."""

COLUMNS = 32
"""The width of a sparkline."""


def tables(document: Mapping[str, Any]) -> list[Table]:
    """What a run printed: of `compare` one table of all models and their differences, else one a model."""
    records = records_of(document)
    if document["command"] == "compare":
        return comparison_tables(document, records)
    curves = curves_of(document)
    if curves:
        return [table for curve in curves for table in (curve_table(*curve), class_table(*curve))]
    return [evaluation_table(list(own)) for _, own in groupby(records, key=lambda record: record.subject)]


def evaluation_table(records: Sequence[Record]) -> Table:
    """One model's records: an attack and budget a row, the clean accuracy first."""
    first = max(records, key=lambda record: record.n)
    varied = len({record.n for record in records}) > 1  # where a run stopped early
    cells = [_row("clean", "-", first.clean_correct, first.n, "-", "-", varied)]
    cells += [
        _row(record.name, record.ball, record.correct, record.n, median(record), f"{seconds:.1f}", varied)
        for record, seconds in zip(records, _seconds(records), strict=True)
    ]
    title = f"{_heading(first)} on {data_name(first.dataset, first.split)}, "
    return Table(
        title=title + ("n as in the rows" if varied else f"n = {first.n}"),
        headers=("attack", "budget", *(["n"] if varied else []), "acc. %", "95 % CI", "right", "median", "sec"),
        cells=tuple(cells),
        notes=(*notes_on(records), *([MEMBERS] if any(one.ensemble for one in records) else []), UPPER_BOUND),
        left=2,
    )


def _heading(of: Record | Curve) -> str:
    """`a.pt: fgsm mnist-cnn`."""
    return ": ".join(filter(None, (of.subject.checkpoint, _recipe(of))))


def _recipe(of: Record | Curve) -> str:
    """`fgsm mnist-cnn`, as far as it is known."""
    return " ".join(filter(None, (of.subject.method, of.subject.model)))


def _seconds(records: Sequence[Record]) -> Iterator[float]:
    """Each record's seconds; an ensemble's are those of its members, which come before it."""
    members = 0.0
    for record in records:
        yield record.seconds if record.ensemble else record.seconds + members
        members = members + record.seconds if record.ensemble else 0.0


def _row(attack: str, ball: str, correct: int, n: int, distance: str, seconds: str, varied: bool) -> tuple[str, ...]:
    size = (str(n),) if varied else ()
    return attack, ball, *size, percent(correct, n), interval(correct, n), str(correct), distance, seconds


def median(record: Record) -> str:
    """A minimal-norm attack's median distance; infinite where half of the samples withstood it."""
    if record.kind != "minimal":
        return "-"
    return "inf" if record.median_distance is None else f"{record.median_distance:.3g}"


def notes_on(records: Sequence[Record]) -> list[str]:
    """On each minimal-norm attack, what an ensemble's sample leaves open, and where 8 bits save more than 1 point."""
    notes = []
    for record in records:
        if record.kind == "minimal":
            state = f"{record.correct} of {record.n} not converged" if record.correct else "all converged"
            if record.by_iter:
                state = f"accuracy % after each iteration {_by_iter(record)}; {state}"
            notes.append(f"{record.label} {record.ball}: {state}.")
        elif record.correct_8bit is not None and record.correct_8bit - record.correct > record.n / 100:
            after, before = percent(record.correct_8bit, record.n), percent(record.correct, record.n)
            rounded = f"accuracy % with its images rounded to 8 bits {after}, before {before}"
            notes.append(f"{record.name} {record.ball}: {rounded}.")
        if record.sampled is not None and record.ensemble is None:
            notes.append(f"{record.name} {record.ball}: {record.sampled.text(record.n)}.")
    return notes


def _by_iter(record: Record) -> str:
    """`35.1 13.2 0.7`: to the end, or, of many iterations, to the first of those that change nothing any more."""
    correct = record.by_iter
    shown = correct if len(correct) <= ITERATIONS else correct[: record.settled]
    rest = f" (the same in the {len(correct) - len(shown)} after)" if len(shown) < len(correct) else ""
    return " ".join(percent(count, record.n) for count in shown) + rest


def comparison_tables(document: Mapping[str, Any], records: Sequence[Record]) -> list[Table]:
    """All that `compare` shows of several models."""
    whole = [record for record in records if record.ensemble is None]  # of an ensemble, the worst case alone
    groups = [list(own) for _, own in groupby(whole, key=lambda record: record.subject)]
    if not groups:
        return []
    names = short_names(groups)
    made = [comparison_table(groups, names)]
    pairs = [pair for pair in document["pairs"] if pair["kind"] == "samples"]
    if pairs:
        made.append(pairs_table(pairs, names))
    made += transfer_tables(document.get("transfer", []), names)
    if document.get("families"):
        made.append(seeds_table(document, groups))
    return made


def comparison_table(groups: Sequence[Sequence[Record]], names: Mapping[str, str]) -> Table:
    """Several models on the same samples: a model a row, an attack and budget a column."""
    first = groups[0]
    headers = ["checkpoint", "method", "clean"]
    for record in first:
        headers.append(f"{record.label}\n{record.ball}")
        if record.kind == "minimal":
            headers.append(f"median\n{record.ball}")
    cells, notes = [], []
    for name, records in zip(names.values(), groups, strict=True):
        line = [name, visible(records[0].subject.method or "-"), _cell(records[0].clean_correct, records[0].n)]
        own = {record.setting: record for record in records}
        for record in first:
            same = own.get(record.setting)  # an interrupted run did not come to all
            line.append("-" if same is None else _cell(same.correct, same.n))
            if record.kind == "minimal":
                line.append("-" if same is None else median(same))
        cells.append(tuple(line))
        notes += [f"{name}, {note}" for note in notes_on(records)]
    left = 2
    if all(cell[0] == cell[1] for cell in cells):  # the method's name says it all
        headers, cells, left = headers[1:], [cell[1:] for cell in cells], 1
    common, _ = _split_names(list(names))
    return Table(
        title=f"{common} on {data_name(first[0].dataset, first[0].split)}, n = {first[0].n}: accuracy %",
        headers=tuple(headers),
        cells=tuple(cells),
        notes=(*notes, UPPER_BOUND),
        left=left,
    )


def _cell(correct: int, n: int) -> str:
    return f"{percent(correct, n)}\n{interval(correct, n)}"


def short_names(groups: Sequence[Sequence[Record]]) -> dict[str, str]:
    """What tables call each checkpoint."""
    checkpoints = [records[0].subject.checkpoint for records in groups]
    _, names = _split_names(checkpoints)
    alone = [groups[0][0].subject.method or checkpoints[0]]
    return dict(zip(checkpoints, map(visible, names or alone), strict=True))


def _split_names(checkpoints: Sequence[str]) -> tuple[str, list[str]]:
    """What the checkpoints' names have in common (or how many they are), and for each the part that differs.

    `a/mnist-fgsm-1.pt` and `a/mnist-pgd-1.pt` give `a/mnist-*-1.pt`, and `fgsm` and `pgd`; a single file needs none.
    """
    if len(checkpoints) < 2:
        return checkpoints[0], []
    start = re.match(r"(.*[-/])?", commonprefix(checkpoints))[0]  # type: ignore[index]  # noqa: RUF071
    rest = [checkpoint.removeprefix(start) for checkpoint in checkpoints]
    shared_end = commonprefix([name[::-1] for name in rest])[::-1]  # noqa: RUF071
    end = re.search(r"([-.].*)?$", shared_end)[0]  # type: ignore[index]
    common = f"{start}*{end}" if start or end else f"{len(checkpoints)} checkpoints"
    return common, [name.removesuffix(end) or name for name in rest]


def pairs_table(pairs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """Pairs of checkpoints, one line for each attack and budget; only differences beyond chance are ranked."""
    shown, notes = pairs, [PAIRS_NOTE]
    if len(names) >= MANY:
        first = next(iter(names))
        shown = [pair for pair in pairs if pair["a"] == first]
        notes.insert(0, f"The pairs of {names[first]}; all {len(pairs)} are in the JSON.")
    headers = ("first - second", "attack", "points", "only first", "only second", "p", "so")
    return Table("Told apart", headers, tuple(_pair(pair, names) for pair in shown), tuple(notes), left=2)


def _pair(pair: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, ...]:
    low, high = pair["ci95"]
    return (
        f"{names[pair['a']]} - {names[pair['b']]}",
        _setting(pair),
        f"{100 * pair['difference']:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]",
        str(pair["only_a"]),
        str(pair["only_b"]),
        _p_value(pair),
        _conclusion(pair, names),
    )


def _p_value(pair: Mapping[str, Any]) -> str:
    return "< 0.001" if pair["p_holm"] < 0.001 else f"{pair['p_holm']:.3f}"


def _conclusion(pair: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """`vanilla is ahead`, or that the two cannot be told apart and how many samples it would take."""
    if pair["separable"]:
        return f"{names[pair['a'] if pair['difference'] > 0 else pair['b']]} is ahead"
    needed = pair["samples_needed"]
    more = "" if needed is None else f"; about {_two_digits(needed)} samples would be needed"
    return f"cannot be told apart at n = {pair['n']}{more}"


def _setting(of: Mapping[str, Any]) -> str:
    """`pgd:steps=20 Linf 0.1`."""
    return " ".join(filter(None, (of["label"], of["norm"].capitalize(), of["budget"])))


def _two_digits(count: int) -> str:
    """`3900` for 3923."""
    step = 10 ** max(0, len(str(count)) - 2)
    return str(-(-count // step) * step)


def seeds_table(document: Mapping[str, Any], groups: Sequence[Sequence[Record]]) -> Table:
    """A recipe a row, an attack and budget a column; below, which recipes differ beyond their seeds."""
    by_name = {records[0].subject.checkpoint: records for records in groups}
    families = [(family, [by_name[name] for name in family["checkpoints"]]) for family in document["families"]]
    settings = {record.setting: record for _, seeds in families for records in seeds for record in records}
    cells = []
    for family, seeds in families:
        clean = [records[0].clean_correct / records[0].n for records in seeds if records[0].n]
        under = [
            [record.accuracy for records in seeds for record in records if record.setting == key and record.n]
            for key in settings
        ]
        cells.append((visible(family["method"]), str(len(seeds)), *map(_spread, [clean, *under])))
    headers = ("method", "seeds", "clean", *(f"{record.label}\n{record.ball}" for record in settings.values()))
    contests = [pair for pair in document["pairs"] if pair["kind"] == "seeds"]
    ranked = [_contest(contest) for contest in contests if contest["separable"]] or ["none"]
    notes = [SEEDS_NOTE + "; ".join(ranked) + "."] if contests else []
    notes += filter(None, (_luck(family, document["pairs"]) for family, _ in families))
    return Table("Over seeds", headers, tuple(cells), tuple(notes))


def _luck(family: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Why two seeds of one recipe can be told apart, where they can."""
    own = set(family["checkpoints"])
    between = [pair for pair in pairs if pair["kind"] == "samples" and {pair["a"], pair["b"]} <= own]
    under = ", ".join(dict.fromkeys(_setting(pair) for pair in between if pair["separable"]))
    if not under:
        return ""
    return (
        f"Seeds of {family['method']} are told apart under {under}: the luck of training sets these networks apart, so "
        "that one seed says little of the recipe, and less of it against another."
    )


def _spread(accuracies: Sequence[float]) -> str:
    """`46.1 ± 0.8`, in per cent."""
    if not accuracies:
        return "-"
    mean = f"{100 * statistics.fmean(accuracies):.1f}"
    return mean if len(accuracies) < 2 else f"{mean} ± {100 * statistics.stdev(accuracies):.1f}"


def _contest(contest: Mapping[str, Any]) -> str:
    first, second = ("method_a", "method_b") if contest["difference"] > 0 else ("method_b", "method_a")
    points = 100 * abs(contest["difference"])
    p = _p_value(contest)
    p = p if p.startswith("<") else f"= {p}"
    return f"{contest[first]} above {contest[second]} by {points:.1f} points under {_setting(contest)} (p {p})"


def transfer_tables(cells: Sequence[Mapping[str, Any]], known: Mapping[str, str]) -> list[Table]:
    """Who is broken by whose images, a table for each attack and budget: a source a row, a target a column.

    An interrupted run may have cells of checkpoints that have no records, and so no name in `known`.
    """
    names = {name: known.get(name, visible(name)) for cell in cells for name in (cell["source"], cell["target"])}
    made = []
    headers = ("made on", *(f"{name}\nasked" for name in names.values()))
    for setting in dict.fromkeys(map(_setting, cells)):
        same = {(cell["source"], cell["target"]): cell for cell in cells if _setting(cell) == setting}
        rows = []
        for source in names:
            found = [same.get((source, target)) for target in names]
            rows.append(
                (names[source], *("-" if cell is None else percent(cell["correct"], cell["n"]) for cell in found))
            )
        notes = [
            f"{names[cell['target']]}: images made on {names[cell['source']]} break {len(cell['broken_beyond'])} of "
            f"{cell['n']} samples that its own attack left standing."
            for cell in same.values()
            if cell["broken_beyond"]
        ]
        made.append(Table(f"Transfer: {setting}", headers, tuple(rows), (*notes, TRANSFER_NOTE)))
    return made


def cost_tables(document: Mapping[str, Any]) -> list[Table]:
    """What a run would take: a model a table, an attack a row."""
    low, high = map(_duration, document["seconds"])
    least, most = (amount / 1e9 for amount in document["memory_bytes"])
    whole = f"{low} to {high} and {least:.2f} to {most:.2f} GB in all, by a probe of {document['probed']} samples"
    headers = ("attack", "budgets", "known", "forwards", "backwards", "time")
    groups = groupby(document["plan"], key=lambda row: f"{row['checkpoint']}, n = {row['n']}: what would run")
    if not document["plan"]:
        return [Table("Nothing would run: there are no samples", headers, ())]
    made = [Table(title, headers, tuple(map(_cost_cells, rows)), left=2) for title, rows in groups]
    return [*made[:-1], replace(made[-1], notes=(f"Nothing was measured. {whole}; {LOWER_END}", COST_NOTE))]


def _cost_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    parameters = [f"{key}={str(value).lower()}" for key, value in row["attack"].items() if key != "name"]
    attack = textwrap.fill(" ".join([row["attack"]["name"], *parameters]), 22, break_long_words=False)
    passes = [f"{row[key]:,}".replace(",", " ") + f"\n{row['bound']}" for key in ("forwards", "backwards")]
    budgets = textwrap.fill(" ".join(row["budgets"]), 9) or "-"
    return attack, budgets, str(row["known"]), *passes, " to\n".join(map(_duration, row["seconds"]))


def _duration(seconds: float) -> str:
    size, unit = next(
        (size, unit) for size, unit in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 2 * size or size == 1
    )
    return f"{seconds / size:.{0 if seconds >= 10 else 1}f} {unit}"


def curve_table(curve: Curve, budgets: Sequence[float]) -> Table:
    """One curve: a budget a row."""
    every = curve.everyone
    rows = [(every.correct(eps), eps) for eps in budgets]
    half = "Half are not broken at any eps" if every.median is None else f"Half are broken within {every.median:.3g}"
    return Table(
        title=f"{_heading(curve)} on {data_name(curve.dataset, curve.split)}, "
        f"n = {every.n}: accuracy within {curve.norm.capitalize()} eps",
        headers=("eps", "acc. %", "95 % CI", "right"),
        cells=tuple((str(eps), percent(right, every.n), interval(right, every.n), str(right)) for right, eps in rows),
        notes=(f"{half}; closest of {' and '.join(curve.attacks)}.", CURVE_BOUND),
    )


def class_table(curve: Curve, budgets: Sequence[float]) -> Table:
    """One curve: a class a row, with its sparkline from eps 0 to the last budget."""
    cells = [
        (
            visible(group.name),
            str(group.n),
            percent(group.correct(0), group.n),
            "inf" if group.median is None else f"{group.median:.3g}",
            f"|{sparkline(group, budgets[-1])}|",
        )
        for group in (curve.everyone, *curve.by_class)
        if group.n
    ]
    norm = curve.norm.capitalize()
    return Table(
        title=f"{curve.subject.checkpoint}: the same by class",
        headers=("class", "n", "clean %", f"median {norm}", f"accuracy, eps 0 to {budgets[-1]}"),
        cells=tuple(cells),
    )


def sparkline(group: Group, reach: float) -> str:
    """Accuracy from eps 0 to `reach`, a bar a column."""
    shares = [group.correct(reach * i / (COLUMNS - 1)) / group.n for i in range(COLUMNS)]
    return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] if share else " " for share in shares)
