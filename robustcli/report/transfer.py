"""Who is broken by whose images: a table for each attack and budget."""

from __future__ import annotations

from collections.abc import Sequence

from robustcli.attacks import label
from robustcli.attacks.base import Attack, BudgetAttack
from robustcli.measure.record import Row
from robustcli.measure.transfer import Transferred, beyond
from robustcli.report.tables import Sheet, percent, short_names
from robustcli.text import visible

NOTE = (
    "Accuracy %: of the model above, on images that were made on the one to the left, in the same ball; what that one "
    "got wrong before stayed as it was. On the diagonal each model's own attack."
)


def transfer_sheets(cells: Sequence[Transferred], groups: Sequence[Sequence[Row]]) -> list[Sheet]:
    """A sheet for each attack and budget: a source a row, a target a column.

    Args:
        cells: of the matrix; an interrupted run has fewer.
        groups: each checkpoint's rows, as `compare_sheet` has them.
    """
    subjects = list(dict.fromkeys(subject for cell in cells for subject in (cell.source, cell.target)))
    known = dict(zip((rows[0].subject for rows in groups), short_names(groups), strict=True)) if groups else {}
    names = {subject: known.get(subject, visible(subject.checkpoint)) for subject in subjects}
    found = dict(zip(cells, beyond(cells, [row for rows in groups for row in rows]), strict=True))
    sheets = []
    for attack in dict.fromkeys(cell.attack for cell in cells):
        same = {(cell.source, cell.target): cell for cell in cells if cell.attack == attack}
        lines = tuple(
            (names[source], *(_accuracy(same.get((source, target))) for target in subjects)) for source in subjects
        )
        notes = [
            f"{names[cell.target]}: images made on {names[cell.source]} break {len(found[cell])} of {cell.n} samples "
            "that its own attack left standing."
            for cell in same.values()
            if found[cell]
        ]
        headers = ("made on", *(f"{names[target]}\nasked" for target in subjects))
        sheets.append(Sheet(f"Transfer: {_named(attack)}", headers, lines, (*notes, NOTE)))
    return sheets


def _accuracy(cell: Transferred | None) -> str:
    return "-" if cell is None else percent(cell.correct, cell.n)


def _named(attack: Attack) -> str:
    budget = f" {attack.eps}" if isinstance(attack, BudgetAttack) else ""
    return f"{label(attack)} {attack.norm.label}{budget}"
