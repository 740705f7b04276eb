"""`robustcli list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from robustcli.cli.console import out
from robustcli.errors import lookup

if TYPE_CHECKING:
    from collections.abc import Iterable

What = Annotated[str, typer.Argument(help="models, attacks, methods or datasets.", show_default=False)]


def list_names(what: What) -> None:
    """List the names that other commands take, with what each is and its options."""
    headers, rows = lookup(LISTS, what, "list:")()
    table = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out().print(table)


Listing = tuple[tuple[str, ...], "Iterable[tuple[str, ...]]"]


def _models() -> Listing:
    from robustcli.models import MODELS

    rows = ((name, model.summary, ", ".join(model.slot_names)) for name, model in MODELS.items())
    return ("model", "what it is", "slots"), rows


def _attacks() -> Listing:
    from robustcli.attacks import ATTACKS
    from robustcli.attacks.facts import facts
    from robustcli.config import field_names

    rows = []
    for name, attack in ATTACKS.items():
        told, options = facts(attack), ", ".join(field_names(attack))
        rows.append((name, told.kind, told.needs, " ".join(told.norms), attack.summary, options))
    return ("attack", "kind", "needs", "norms", "what it is", "options"), rows


def _methods() -> Listing:
    from robustcli.config import field_names
    from robustcli.training.methods import METHODS

    rows = ((name, method.summary, ", ".join(field_names(method))) for name, method in METHODS.items())
    return ("method", "what it is", "options"), rows


def _datasets() -> Listing:
    from robustcli.datasets import DATASETS

    rows = (
        (name, dataset.description, "x".join(map(str, dataset.shape)), str(len(dataset.classes)))
        for name, dataset in DATASETS.items()
    )
    return ("dataset", "what it is", "shape", "classes"), rows


LISTS = {"models": _models, "attacks": _attacks, "methods": _methods, "datasets": _datasets}
