"""What the runs of `autoattack.py` say, beside what they should say: one line a bar."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations, groupby, product
from typing import Any

from pairs import FAST, HALVED, OURS, REFERENCE, UNSCALED, UNTARGETED
from tabulate import tabulate

MOST_ABOVE = 0.5
"""Points of robust accuracy that the ensemble may leave more than the reference, in any turn."""

MOST_TIME = 1.0
"""The ensemble should take no longer than the authors' code."""

MOST_TIME_FAST = 0.4
"""And `fast` no more than this share of it."""

MOST_OVERHEAD = 1.10
"""An attack's time, in units of the bare passes of the model that it reports: see `overhead.py`."""

LEAST_EQUAL = 0.99
MOST_DISTANCE = 1.02
MOST_ABOVE_SQUARE = 1.0
HEADERS = ("network", "where", "ball", "part", "what", "ours", "reference", "result", "bar", "")

Run = dict[str, Any]
Line = tuple[str, str, str, str, str, bool | None]
"""What is compared, ours, the reference's, the result, the bar, and whether it is met."""


def table(runs: Sequence[Run]) -> str:
    """All bars, each with met or missed; nothing of a part that one side has not run."""
    lines = []
    compared = [run for run in runs if run["ball"]]
    order = {name: i for i, name in enumerate(dict.fromkeys((_row_key(run)) for run in compared))}
    for key, group in groupby(sorted(compared, key=lambda run: order[_row_key(run)]), key=_row_key):
        network, ball, part, n, threads, device, batch_size = key
        where = f"{device if device != 'cpu' else f'cpu x {threads}'}, n {n}, batch {batch_size}"
        for *line, met in _lines(part, _by_side(group)):
            lines.append([network, where, ball, part, *line, {True: "met", False: "missed", None: ""}[met]])
    counts = [sum(line[-1] == word for line in lines) for word in ("met", "missed")]
    facts = {f"n = {run['n']}, {run['threads']} threads, {run['hardware']}, commit {run['commit']}" for run in compared}
    whole = tabulate(lines, HEADERS, tablefmt="github", disable_numparse=True)
    return "\n".join([*sorted(facts), "", whole, "", f"{counts[0]} met, {counts[1]} missed"])


def _row_key(run: Run) -> tuple[Any, ...]:
    return tuple(run[name] for name in ("network", "ball", "part", "n", "threads", "device", "batch_size"))


def _by_side(runs: Iterator[Run]) -> dict[str, dict[int, Run]]:
    """Runs by side and seed."""
    sides: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: int(run["seed"])):
        sides.setdefault(run["side"], {})[run["seed"]] = run
    return sides


def _lines(part: str, sides: dict[str, dict[int, Run]]) -> Iterator[Line]:
    """What is compared, ours, the reference's, the result, the bar, and whether it is met."""
    ours, reference = sides.get(OURS, {}), sides.get(REFERENCE, {})
    if part == "masked":
        yield from map(_in_full, sides.get(FAST, {}).values())
    elif part == "ensemble" and reference:
        for name, most in ((OURS, MOST_TIME), (HALVED, MOST_TIME), (FAST, MOST_TIME_FAST)):
            if mine := sides.get(name):
                note = name.removeprefix(OURS)
                yield _accuracy(mine, reference, MOST_ABOVE, f"robust accuracy, %{note}")
                yield _named(note, _flags(mine, reference))
                yield _named(note, _time(mine, reference, most))
                yield _named(note, _time(mine, reference, None, "cpu_seconds"))
                yield from _samples(mine)
    elif not ours or not reference:
        return
    elif part == "fab":
        yield _distance("distance, towards nine classes", ours[0], reference[0])
        if UNTARGETED in sides:
            yield _distance("distance, theirs untargeted", ours[0], sides[UNTARGETED][0])
        yield _time(ours, reference, None, "cpu_seconds")
    elif part.startswith("apgd"):
        yield _equal(ours, reference)
        yield _accuracy(ours, reference, None)
    else:
        yield _accuracy(ours, reference, MOST_ABOVE_SQUARE)
        if UNSCALED in sides:
            yield _accuracy(ours, sides[UNSCALED], MOST_ABOVE_SQUARE, "robust accuracy, their ensemble's schedule")
        yield _time(ours, reference, None, "cpu_seconds")


def _sampled(run: Run) -> str:
    """`50 of 131, 0 broken`: the sample, of the survivors, and what Square and FAB-T broke of it."""
    found = run.get("sampled")
    return f"{found['probed']} of {found['survivors']}, {found['broken']} broken" if found else "nothing stood"


def _samples(runs: dict[int, Run]) -> Iterator[Line]:
    if any("sampled" in run for run in runs.values()):
        yield "the sample, of the survivors", "; ".join(map(_sampled, runs.values())), "", "", "", None


def _in_full(run: Run) -> Line:
    """Whether Square and FAB-T met all that the others left of a masked network."""
    unmet = run["sampled"]["unmet"] if "sampled" in run else 0
    return "runs in full", _sampled(run), "", f"{unmet} not met", "0 not met", unmet == 0


def _named(note: str, line: Line) -> Line:
    return line[0] + note, *line[1:]


def _points(run: Run) -> float:
    """Robust accuracy in percent."""
    return 100 * sum(run["robust"]) / len(run["robust"])


def _shown(runs: dict[int, Run]) -> str:
    return " ".join(f"{_points(run):.1f}" for run in runs.values())


def _accuracy(
    ours: dict[int, Run], theirs: dict[int, Run], most: float | None, what: str = "robust accuracy, %"
) -> Line:
    """The ensemble's worst turn, of a member the mean of its turns, as one turn of Square alone moves by a point."""
    above = [_points(ours[seed]) - _points(theirs[seed]) for seed in ours if seed in theirs]
    worst = max(above) if most == MOST_ABOVE else statistics.fmean(above)
    bar = "" if most is None else f"at most {most:+g}"
    return what, _shown(ours), _shown(theirs), f"{worst:+.1f}", bar, None if most is None else worst <= most + 1e-9


def _differing(one: Run, other: Run) -> int:
    return sum(a != b for a, b in zip(one["robust"], other["robust"], strict=True))


def _flags(ours: dict[int, Run], theirs: dict[int, Run]) -> Line:
    """How many samples differ, each of our turns with each of theirs, and theirs among themselves.

    Met where the mean of the first is no more than the largest of the second; with one seed there is no second.
    """
    across = [_differing(a, b) for a, b in product(ours.values(), theirs.values())]
    within = [_differing(a, b) for a, b in combinations(theirs.values(), 2)]
    mean, bar = statistics.fmean(across), max(within, default=None)
    shown, itself = " ".join(map(str, across)), " ".join(map(str, within)) or "one seed"
    met = None if bar is None else mean <= bar
    return (
        "flags that differ from the reference's",
        shown,
        itself,
        f"mean {mean:.1f}",
        "" if bar is None else f"at most {bar}",
        met,
    )


def _time(ours: dict[int, Run], theirs: dict[int, Run], most: float | None, unit: str = "seconds") -> Line:
    """The median over the timed turns of the ratio."""
    timed = [seed for seed in ours if seed in theirs and ours[seed][unit] and theirs[seed][unit]]
    if not timed:
        return unit.replace("_", " "), "", "", "no timed turn", "", None
    ratio = statistics.median(ours[seed][unit] / theirs[seed][unit] for seed in timed)
    mine, its = (" ".join(f"{side[seed][unit]:.1f}" for seed in timed) for side in (ours, theirs))
    bar = "" if most is None else f"at most {most:g} x"
    return unit.replace("_", " "), mine, its, f"{ratio:.2f} x", bar, None if most is None else ratio <= most


def _equal(ours: dict[int, Run], theirs: dict[int, Run]) -> Line:
    """From the same starts; beside it, how many are equal in two of the reference's seeds."""
    n = len(next(iter(ours.values()))["robust"])
    share = 1 - max(_differing(ours[seed], theirs[seed]) for seed in ours if seed in theirs) / n
    within = [1 - _differing(a, b) / n for a, b in combinations(theirs.values(), 2)]
    itself = f"{min(within):.1%} between seeds" if within else "one seed"
    return (
        "equal flags from the same starts",
        "",
        itself,
        f"{share:.1%}",
        f"at least {LEAST_EQUAL:.0%}",
        share >= LEAST_EQUAL,
    )


def _distance(what: str, ours: Run, theirs: Run) -> Line:
    """Medians over what both broke; in brackets how many each broke."""
    both = [(a, b) for a, b in zip(ours["distance"], theirs["distance"], strict=True) if a and b]
    medians = [statistics.median(side) for side in zip(*both, strict=True)]
    found = [sum(d is not None and d > 0 for d in run["distance"]) for run in (ours, theirs)]
    mine, its = (f"{median:.4f} ({count})" for median, count in zip(medians, found, strict=True))
    ratio = medians[0] / medians[1]
    return what, mine, its, f"{ratio:.4f} x", f"at most {MOST_DISTANCE:g} x", ratio <= MOST_DISTANCE
