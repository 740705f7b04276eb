"""`robustcli list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from rich import box
from rich.table import Table
from rich.text import Text

from robustcli.cli.completion import offer
from robustcli.cli.console import PIPE_WIDTH, out
from robustcli.cli.options import argument
from robustcli.errors import lookup
from robustcli.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from robustcli.models.zoo import Entry

What = Annotated[str, argument("models, attacks, methods, datasets or zoo.", offer(lambda typed: LISTS))]


def list_names(what: What) -> None:
    """List the names that other commands take, with what each is and its options."""
    headers, rows = lookup(LISTS, what, "list:")()
    if _narrow():
        from robustcli.report.formats import print_tables
        from robustcli.report.table import Table as Narrow

        print_tables([Narrow("", headers, tuple(rows), left=len(headers))], "table", out())
        return
    table = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text("\n".join(map(visible, cell.split("\n")))) for cell in row))
    out().print(table)


def _narrow() -> bool:
    return out().width < PIPE_WIDTH


Listing = tuple[tuple[str, ...], "Iterable[tuple[str, ...]]"]


def _models() -> Listing:
    from robustcli.models import MODELS

    rows = ((name, model.summary, ", ".join(model.slot_names)) for name, model in MODELS.items())
    return ("model", "what it is", "slots"), rows


def _attacks() -> Listing:
    from robustcli.attacks import ATTACKS
    from robustcli.attacks.base import norms
    from robustcli.config import field_names

    rows = []
    for name, attack in ATTACKS.items():
        options = ", ".join(field_names(attack))
        facts = (attack.kind, str(attack.needs), " ".join(norms(attack)))
        rows.append((name, *(["\n".join(facts)] if _narrow() else facts), attack.summary, options))
    return ("attack", *(["of kind"] if _narrow() else ["kind", "needs", "norms"]), "what it is", "options"), rows


def _methods() -> Listing:
    from robustcli.config import field_names
    from robustcli.training.methods import METHODS

    rows = ((name, method.summary, ", ".join(field_names(method))) for name, method in METHODS.items())
    return ("method", "what it is", "options"), rows


def _datasets() -> Listing:
    from robustcli.data.named import DATASETS

    rows = (
        (name, dataset.description, "x".join(map(str, dataset.shape)), str(len(dataset.classes) or ""))
        for name, dataset in DATASETS.items()
    )
    return ("dataset", "what it is", "shape", "classes"), rows


def _zoo() -> Listing:
    from robustcli.models.zoo import PREFIX, entries

    rows = ((f"{PREFIX}{name}", _trained(entry), *_measured(entry)) for name, entry in entries().items())
    return ("checkpoint", "trained with", "clean %", "right under attack, %"), rows


def _trained(entry: Entry) -> str:
    """`fgsm (eps=0.3), mnist-cnn, 12 epochs, seed 0`."""
    from robustcli.config import shown

    options = ", ".join(f"{key}={shown(value)}" for key, value in entry.method.items() if key != "name")
    method = f"{entry.method['name']}{f' ({options})' if options else ''}"
    return f"{method}, {entry.model}, {entry.epochs} epochs, seed {entry.seed}"


def _measured(entry: Entry) -> tuple[str, str]:
    """Clean accuracy on the most samples, and that under each attack, by how many samples met it."""
    from robustcli.report.table import percent

    by_n: dict[int, list[str]] = {}
    for row in sorted(entry.rows, key=lambda row: -int(row["n"])):
        by_n.setdefault(row["n"], []).append(f"{_attack_name(row)} {percent(row['correct'], row['n'])}")
    most = max(entry.rows, key=lambda row: int(row["n"]))
    attacked = [f"n = {n}: {', '.join(texts)}" for n, texts in by_n.items()]
    return percent(most["clean_correct"], most["n"]), "\n".join(attacked)


def _attack_name(row: Mapping[str, Any]) -> str:
    """`fgsm 0.3`, `pgd-40 0.1`, `deepfool-5 box=none`."""
    attack = row["attack"]
    effort = next((f"-{attack[key]}" for key in ("steps", "iters") if key in attack), "")
    box = "box=none" if attack.get("box") == "none" else ""
    return " ".join(filter(None, (f"{attack['name']}{effort}", attack.get("eps", ""), box)))


LISTS = {"models": _models, "attacks": _attacks, "methods": _methods, "datasets": _datasets, "zoo": _zoo}
