"""The plain data of a page and its charts, from documents: a point is a dictionary of plain values. No drawing here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from robustcli.errors import DataError
from robustcli.measure.curve import Group
from robustcli.measure.document import curves_of, records_of
from robustcli.measure.record import Record, Subject
from robustcli.measure.stats import wilson
from robustcli.report.table import data_name
from robustcli.report.views import MANY
from robustcli.text import short_paths, visible

Point = dict[str, Any]
Choices = dict[str, list[Point]]
"""The points of a chart; where it shows one of several things, those of each by its name."""

SERIES, PAIRS, CHOICES, CLASSES, CONFUSED, ALONG = 12, 60, 48, 24, 12, 60
"""At most so many lines in a chart, pairs, things to choose from, classes, and classes of a confusion matrix; and how
many points a curve is drawn through."""

MOST_COMPARED = 12
"""So many models under one attack are compared pair by pair."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard.

    Attributes:
        record: its result.
        model: what its model is called here.
        word: of its verdict, `-` without one.
        seed: of the draws.
        classes: their names, as far as they are known.
        clean, right: how many samples are right before the attack, and after it.
        data, attack: the data set with its split, and `pgd Linf 0.3`.
        apart: what tells it from rows of the same model and attack on other samples or by another seed.
    """

    record: Record
    model: str
    word: str
    seed: int | None
    classes: Sequence[str]
    clean: int
    right: int
    data: str
    attack: str
    apart: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Accuracy under the attack, a fraction."""
        return self.right / (self.record.n or 1)

    @property
    def run(self) -> str:
        """`pgd Linf 0.3`, and what tells it apart."""
        return ", ".join((self.attack, *self.apart))

    @property
    def title(self) -> str:
        """`a: pgd Linf 0.3`, and what tells it apart."""
        return visible(f"{self.model}: {self.run}")


@dataclass(frozen=True)
class Results:
    """Documents, the names of their models, each its own, and their rows; a later one replaces one that is equal.

    `galleries` has samples with images, by row.
    """

    documents: Sequence[Mapping[str, Any]]
    names: Mapping[tuple[str, str], str]
    rows: Sequence[Row]
    galleries: Choices = field(default_factory=dict)

    def name(self, subject: Subject) -> str:
        """What a model is called here; empty where none of its rows is shown."""
        name = self.names.get((subject.checkpoint, subject.sha256), "")
        return name if any(row.model == name for row in self.rows) else ""

    def only(self, model: str | None, attack: str | None) -> Results:
        """The rows of a model, by its name here or as it was given, and of an attack, by its name or its label.

        Raises:
            DataError: there are none.
        """
        rows = [row for row in self.rows if model in (None, row.model, row.record.subject.checkpoint)]
        if self.rows and not rows:
            raise DataError(f"--model {model}: no result has it; there are {_every(row.model for row in self.rows)}")
        known = {row.title: (None, row.record.name, row.attack, row.run, row.record.attack.get("name")) for row in rows}
        chosen = [row for row in rows if attack in known[row.title]]
        if rows and not chosen:
            raise DataError(f"--attack {attack}: no result has it; there are {_every(row.record.name for row in rows)}")
        return replace(self, rows=chosen)


def _every(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def gather(documents: Sequence[Mapping[str, Any]]) -> Results:
    """Read documents."""
    records = [records_of(document) for document in documents]
    models = dict.fromkeys((one.subject.checkpoint, one.subject.sha256) for found in records for one in found)
    short, versions = (
        short_paths(dict.fromkeys(path for path, _ in models)),
        Counter(checkpoint for checkpoint, _ in models),
    )
    names = {
        (path, key): visible(f"{short[path]} {key[:8]}" if versions[path] > 1 else short[path]) for path, key in models
    }
    rows: dict[tuple[Any, ...], Row] = {}
    for document, found in zip(documents, records, strict=True):
        verdict, origin = document["verdict"] or {}, document["provenance"]
        words = {one["checkpoint"]: one["word"] for one in verdict.get("checkpoints", ())}
        for one in found:
            key = (one.subject, one.dataset, one.split, one.setting, frozenset(one.ids), origin.get("seed"))
            word = words.get(one.subject.checkpoint) or (rows.pop(key).word if key in rows else "-")
            rows[key] = Row(
                one,
                names[one.subject.checkpoint, one.subject.sha256],
                word,
                origin.get("seed"),
                class_names(origin, one.subject.checkpoint),
                one.clean_correct,
                one.correct,
                data_name(one.dataset, one.split),
                f"{one.name} {one.ball}",
            )
    bases: list[Any] = []
    facts: list[tuple[str, ...]] = []
    for row in rows.values():
        one = row.record
        bases.append((row.model, one.ensemble or one.name, one.norm))
        span = f"samples {one.ids[0]} to {one.ids[-1]}" if one.ids else ""
        facts.append((row.data, f"n = {one.n}", f"seed {row.seed}", span))
    apart = _told_apart(bases, facts)
    shown = [replace(row, apart=told) for row, told in zip(rows.values(), apart, strict=True)]
    return Results(documents, names, shown)


def _told_apart(bases: Sequence[Any], facts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """For each thing, those of its facts that tell it from others of its base; none where it is alone."""
    groups: dict[Any, set[tuple[str, ...]]] = {}
    for base, own in zip(bases, facts, strict=True):
        groups.setdefault(base, set()).add(own)
    return [_telling(own, groups[base]) for base, own in zip(bases, facts, strict=True)]


def _telling(own: tuple[str, ...], others: set[tuple[str, ...]]) -> tuple[str, ...]:
    told = []
    for i, fact in enumerate(own):
        if any(other[i] != fact for other in others):
            told.append(fact)
            others = {other for other in others if other[i] == fact}
    return tuple(told)


def class_names(origin: Mapping[str, Any], checkpoint: str) -> list[str]:
    """The classes that a run's provenance names, each with a name that no other has; none where it names none."""
    spec = origin.get("spec")
    runs = spec.get("runs") if isinstance(spec, dict) else None
    for run in runs if isinstance(runs, list) else ():
        if isinstance(run, dict) and run.get("checkpoint") == checkpoint and isinstance(run.get("classes"), list):
            names = [visible(str(name)) for name in run["classes"]]
            counts = Counter(names)
            return [f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names)]
    return []


def named(number: int, classes: Sequence[str]) -> str:
    """A class's name, its number where it has none."""
    return classes[number] if number < len(classes) else str(number)


def curve_points(results: Results) -> Choices:
    """Accuracy over eps: the rows of an attack, from eps 0 on, and curves; of many those of the most budgets."""
    several = len({row.data for row in results.rows}) > 1
    series: dict[tuple[str, str], list[Point]] = {}
    for row in results.rows:
        if row.record.eps is not None and row.record.ensemble is None:
            parts = dict.fromkeys([row.model, row.record.name, *([row.data] if several else []), *row.apart])
            own = series.setdefault((", ".join(parts), row.record.norm.capitalize()), [])
            at = [(0.0, row.clean)] * (not own) + [(row.record.eps, row.right)]
            own += [_rate(right, row.record.n) | {"eps": eps, "along": None} for eps, right in at]
    curves = [
        found for document in results.documents for found in curves_of(document) if results.name(found[0].subject)
    ]
    names = [f"{results.name(curve.subject)}, closest of {' and '.join(curve.attacks)}" for curve, _ in curves]
    facts = [(data_name(curve.dataset, curve.split), f"n = {curve.everyone.n}") for curve, _ in curves]
    bases = [(name, curve.norm) for name, (curve, _) in zip(names, curves, strict=True)]
    for name, told, (curve, budgets) in zip(names, _told_apart(bases, facts), curves, strict=True):
        series[", ".join((name, *told)), curve.norm.capitalize()] = _along(curve.everyone, budgets[-1])
    most = sorted(series, key=lambda name: -len(series[name]))[:SERIES]
    return _alone({"series": name, "norm": norm} | one for name, norm in most for one in series[name, norm])


def _along(group: Group, reach: float) -> list[Point]:
    steps = [reach * i / (ALONG - 1) for i in range(ALONG)] if reach else [0.0]
    return [_rate(group.correct(eps), group.n) | {"eps": eps, "along": i} for i, eps in enumerate(steps)]


def _rate(right: int, n: int) -> Point:
    """Per cent with the 95 % interval."""
    shares = dict(zip(("accuracy", "low", "high"), (right / n if n else 0.0, *wilson(right, n)), strict=True))
    return {key: round(100 * share, 3) for key, share in shares.items()} | {"right": right, "n": n}


def _alone(points: Iterable[Point]) -> Choices:
    """The points of a chart that leaves no choice, with text made harmless."""
    found = [{key: visible(one) if isinstance(one, str) else one for key, one in point.items()} for point in points]
    return {"": found} if found else {}


def pair_points(results: Results) -> Choices:
    """Paired differences of models on the same samples, as `compare` finds them; of many models those of the first."""
    groups: dict[tuple[Any, ...], dict[Subject, Row]] = {}
    for row in results.rows:
        if row.record.ensemble is None:
            key = (row.data, row.record.setting, row.record.ids, row.seed)
            groups.setdefault(key, {})[row.record.subject] = row
    points: list[Point] = []
    for same in groups.values():
        if 1 < len(same) <= MOST_COMPARED:
            from robustcli.measure.compare import pairs  # which brings scipy

            between = pairs([[row.record] for row in same.values()])
            chosen = [pair for pair in between if len(same) < MANY or pair.a.subject == next(iter(same))]
            points += [_pair(same[pair.a.subject], same[pair.b.subject], pair.as_dict()) for pair in chosen]
    return _alone(points[:PAIRS])


def _pair(a: Row, b: Row, pair: Mapping[str, Any]) -> Point:
    ends = dict(zip(("difference", "low", "high"), (pair["difference"], *pair["ci95"]), strict=True))
    return {
        "pair": f"{a.model} - {b.model}",
        "attack": ", ".join(dict.fromkeys((a.attack, *a.apart, *b.apart))),
        **{key: round(100 * value, 3) for key, value in ends.items()},
        "p": float(f"{pair['p_holm']:.2g}"),
        "n": pair["n"],
        "so": "told apart" if pair["separable"] else "not told apart",
    }


def class_points(results: Results) -> Choices:
    """Accuracy of each class, clean and under attack; of many classes those that lose most."""
    return {row.title: _by_class(row) for row in _strongest_first(results)}


def _by_class(row: Row) -> list[Point]:
    one, clean, right = row.record, Counter[int](), Counter[int]()
    for y, pred, robust in zip(one.y, one.pred, one.robust, strict=True):
        clean[y] += y == pred
        right[y] += robust
    n = Counter(one.y)
    most = sorted(sorted(n, key=lambda y: (right[y] - clean[y]) / n[y])[:CLASSES])
    return [
        {"class": named(y, row.classes), "number": y, "when": when} | _rate(count[y], n[y])
        for y in most
        for when, count in (("clean", clean), ("under attack", right))
    ]


def confusion_points(results: Results) -> Choices:
    """What each class is taken for, clean and under attack; of many classes those that are confused most."""
    return {row.title: _confused(row) for row in _strongest_first(results)}


def _confused(row: Row) -> list[Point]:
    one = row.record
    counts = {
        when: Counter(zip(one.y, pred, strict=True))
        for when, pred in (("clean", one.pred), ("under attack", one.pred_after))
    }
    n, wrong = Counter(one.y), Counter(one.y)
    for pair, count in sum(counts.values(), Counter[tuple[int, int]]()).items():
        wrong.update(dict.fromkeys(pair, (pair[0] != pair[1]) * count * 2 * one.n))
    shown = {y for y, _ in wrong.most_common(CONFUSED)}
    return [
        {"class": named(y, row.classes), "number": y, "taken for": named(pred, row.classes), "its number": pred}
        | {"when": when, "count": count, "share": round(100 * count / n[y], 1) if n[y] else 0.0}
        for when, found in counts.items()
        for (y, pred), count in sorted(found.items())
        if {y, pred} <= shown
    ]


def _strongest_first(results: Results) -> list[Row]:
    """Rows whose classes are known: the strongest attack of each model, then the others."""
    rows = [row for row in results.rows if row.record.ensemble is None and min(row.record.y, default=-1) >= 0]
    rows.sort(key=lambda row: (row.share, -(row.record.eps or 0)))
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.model, row)
    return [*first.values(), *(row for row in rows if first[row.model] is not row)][:CHOICES]


def history_points(results: Results) -> Choices:
    """The numbers of each epoch of a training, but for the seconds."""
    trainings = {
        name: one["history"]
        for document in results.documents
        for one in document.get("training", ())
        if (name := results.name(Subject(one["checkpoint"], one["checkpoint_sha256"], None, None)))
    }
    return _alone(
        {"model": name, "epoch": epoch.get("epoch", i), "measure": key.replace("_", " "), "value": value}
        for name, history in list(trainings.items())[:SERIES]
        for i, epoch in enumerate(history, start=1)
        for key, value in epoch.items()
        if key not in ("epoch", "seconds") and value is not None
    )


def progress_points(results: Results) -> Choices:
    """How many samples stand after each iteration of an attack that tells, and after each member of an ensemble."""
    series: dict[str, list[Point]] = {}
    for row in results.rows:
        one, start = row.record, _rate(row.clean, row.record.n) | {"step": 0.0}
        if one.by_iter:
            seen = one.by_iter[: one.settled]
            steps = [_rate(right, one.n) | {"step": float(i)} for i, right in enumerate(seen, start=1)]
            series[row.title] = [point | {"over": "iterations"} for point in (start, *steps)]
        elif one.ensemble is not None and one.n:  # its passes are its own; its accuracy is what is left after it
            name = ", ".join((f"{row.model}: {one.ensemble} {one.ball}", *row.apart))
            own = series.setdefault(name, [start | {"over": "passes a sample"}])
            step = own[-1]["step"] + round((one.forwards + one.backwards) / one.n, 1)
            own.append(_rate(row.right, one.n) | {"step": step, "over": "passes a sample"})
    return _alone({"series": name} | one for name, found in list(series.items())[:SERIES] for one in found)
