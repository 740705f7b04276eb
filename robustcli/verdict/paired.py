"""The checks of two checkpoints under one attack: R19, R20, R21, and R14 by their transfer matrix."""

from __future__ import annotations

from collections.abc import Sequence

from robustcli.attacks import label
from robustcli.errors import DataError
from robustcli.measure.pairs import Pair, refuse_unequal
from robustcli.measure.record import Row
from robustcli.measure.transfer import Transferred
from robustcli.verdict.controls import transfer_finding, transfer_is_judged
from robustcli.verdict.findings import Finding

UNEQUAL = 0.1


def comparison(pair: Pair) -> Finding:
    """R19."""
    told = f"{label(pair.a.attack)}: {pair.a.subject.checkpoint} and {pair.b.subject.checkpoint}"
    if pair.separable:
        return Finding("R19", "OK", f"{told} can be told apart", pair.p_holm)
    return Finding("R19", "INFO", f"{told} cannot be told apart at n = {pair.table.n}", pair.p_holm)


def effort(a: Row, b: Row) -> Finding:
    """R20: equal attacks differ in effort by when samples are broken; Square, which asks ahead, by how many stand."""
    spent = [(row.forwards + row.backwards) / max(1, row.n) for row in (a, b)]
    most = max(spent)
    gap = (most - min(spent)) / most if most else 0.0
    told = f"{label(a.attack)}: {spent[0]:.0f} and {spent[1]:.0f} passes a sample"
    if gap <= UNEQUAL:
        return Finding("R20", "OK", told, gap)
    return Finding("R20", "INFO", f"{told}: the cost depends on how many samples stand, and how long", gap)


def threat_model(a: Row, b: Row) -> Finding:
    """R21."""
    try:
        refuse_unequal(a, b)
    except DataError as error:
        return Finding("R21", "INVALID", str(error))
    return Finding("R21", "OK", f"{label(a.attack)}: the same samples, norm, budget and attack")


def judge_pairs(pairs: Sequence[Pair]) -> dict[str, list[Finding]]:
    """All of these by checkpoint: each has those of the pairs that it is in."""
    found: dict[str, list[Finding]] = {}
    for pair in pairs:
        told = [threat_model(pair.a, pair.b), comparison(pair), effort(pair.a, pair.b)]
        for row in (pair.a, pair.b):
            found.setdefault(row.subject.checkpoint, []).extend(told)
    return found


def judge_cells(cells: Sequence[Transferred], rows: Sequence[Row], shape: tuple[int, ...]) -> dict[str, list[Finding]]:
    """R14 by checkpoint: the images of each other one against its own gradient attack.

    Args:
        cells: of the transfer matrix.
        rows: of all checkpoints.
        shape: (c, h, w) of an image.
    """
    own = {(row.subject, row.attack): row for row in rows if row.ensemble is None}
    found: dict[str, list[Finding]] = {}
    for cell in cells:
        row = own.get((cell.target, cell.attack))
        if row is not None and cell.source != cell.target and transfer_is_judged(row, shape):
            name, images = f"{row.attack.norm.label} {row.eps}", f"its images of {cell.source.checkpoint}"
            one = transfer_finding(name, row, range(row.n), cell.robust, images)
            found.setdefault(cell.target.checkpoint, []).append(one)
    return found
