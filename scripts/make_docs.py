"""Writes docs/attacks.md from the attacks themselves.

python scripts/make_docs.py    # a test says that nothing changes
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.attacks.base import Attack, norms
from robustcli.attacks.norms import NORMS
from robustcli.engine.run import Outcome, Samples, run_attack
from robustcli.noise import Noise

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "attacks.md"
CLASSES = 10
INTRO = """\
# The attacks

<!-- Written by `python scripts/make_docs.py` from the code; a test says that it is up to date. -->

What `--attack` takes. A *budget* attack searches in the ball of radius eps, a *minimal* (minimal-norm) attack looks for
the closest adversarial image, an *ensemble* runs others one after the other on what is left. An attack needs a model's
*gradients*, or only its *scores* (logits), or only its *decisions* (the predicted class).
[threat-model.md](threat-model.md) says what a number means; `robustcli.testing.check_attack` checks an attack of your
own."""
COST = f"""\
Forwards and backwards are passes of one image with the default options on {CLASSES} classes, counted while an attack
runs on an image that nothing breaks and on one that is broken soon: the larger of the two counts, with the passes that
check the result. An attack that stops at an image that it has broken costs less there. Counts over 10 000 are rounded.
"""


class Stubborn(nn.Module):
    """Always says class 0, with a gradient of 0: no attack breaks it."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, CLASSES)."""
        return 0 * x.flatten(1)[:, :CLASSES] + torch.eye(CLASSES, dtype=x.dtype)[0]


def _linear() -> nn.Module:
    """A linear model that is just right on the grey image."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).double()
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        weight, bias = model.get_parameter("1.weight"), model.get_parameter("1.bias")
        weight.copy_(Noise(0, torch.arange(CLASSES)).normal(weight))
        bias.copy_(0.1 * torch.eye(CLASSES)[0] - weight.sum(1) / 2)
    return model


@dataclass(frozen=True)
class Cost:
    """Passes of one image."""

    forwards: int
    backwards: int


def cost(attack: Attack) -> Cost:
    """What one image costs, where an attack runs to its end."""
    grey = Samples(torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(1).long(), torch.zeros(1).long())
    found = [_spent(run_attack(model.eval(), attack, grey, pred=grey.y)) for model in (Stubborn(), _linear())]
    return Cost(max(one.forwards for one in found), max(one.backwards for one in found))


def _spent(rows: Sequence[Outcome]) -> Cost:
    """All rows together: an ensemble has one a member."""
    return Cost(sum(row.forwards for row in rows), sum(row.backwards for row in rows))


def shown(count: int) -> str:
    """`5 001`, `25 000`."""
    rounded = round(count, 3 - len(str(count))) if count > 10_000 else count
    return f"{rounded:,}".replace(",", " ")


def option(value: Any) -> str:
    """A default as a SPEC has it."""
    if value is MISSING:
        return "required"
    return f"`{value.name}`" if value in NORMS.values() else f"`{str(value).lower()}`"


def norm_labels(attack: type[Attack]) -> str:
    """`Linf, L2`."""
    return ", ".join(NORMS[norm].label for norm in norms(attack))


def source(attack: type[Attack]) -> str:
    """The author and year that its summary ends in."""
    return attack.summary.rpartition(" (")[2].removesuffix(")")


def section(name: str, attack: type[Attack], spent: Cost) -> str:
    """One attack: what it is and does, its options, its cost and when to use it."""
    options = ", ".join(f"`{field.name}` {option(field.default)}" for field in fields(attack))  # type: ignore[arg-type]
    said = inspect.cleandoc(attack.__doc__ or "")
    lines = (
        f"- **Kind:** {attack.kind}; needs {attack.needs}; {norm_labels(attack)}.",
        f"- **Options:** {options}.",
        f"- **Cost:** forwards {shown(spent.forwards)}, backwards {shown(spent.backwards)}.",
        f"- **Use:** {getattr(attack, 'use', '')}",
    )
    return "\n\n".join((f"## `{name}`", said, "\n".join(lines)))


def page() -> str:
    """docs/attacks.md."""
    rows, sections = [], []
    for name, attack in ATTACKS.items():
        spent = cost(parse_attack(name, {"eps": "0.01"}))
        counts = (shown(spent.forwards), shown(spent.backwards))
        rows.append((f"[`{name}`](#{name})", attack.kind, attack.needs, norm_labels(attack), *counts, source(attack)))
        sections.append(section(name, attack, spent))
    headers = ("attack", "kind", "needs", "norms", "forwards", "backwards", "paper")
    align = ("left", "left", "left", "left", "right", "right", "left")
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)
    return "\n\n".join((INTRO, table, COST.rstrip(), *sections)) + "\n"


def main() -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
