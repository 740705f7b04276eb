"""Rows and inspections made by hand: what a check sees, without a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from robustcli.attacks import parse_attack
from robustcli.attacks.base import Attack
from robustcli.data.images import Images
from robustcli.engine.run import Samples, run_attack
from robustcli.measure.evaluate import to_record
from robustcli.measure.record import Record, Subject
from robustcli.testing import tiny_net, tiny_samples
from robustcli.verdict.check import Finding, Level
from robustcli.verdict.model import Inspection, inspect_model
from robustcli.verdict.probes import Measurement
from robustcli.verdict.rows import Results

from ..records import record

EPS = 0.15


def make_row(spec: str | Attack, standing: int | Sequence[int], n: int = 100, **changes: Any) -> Record:
    """The record of an attack under which the first `standing` of n samples stand, or those of these flags."""
    flags = tuple(standing) if not isinstance(standing, int) else (1,) * standing + (0,) * (n - standing)
    subject = Subject("a.pt", "a" * 64, "mnist-cnn", changes.pop("method", "vanilla"))
    costs = {"seconds": 1.0, "forwards": 20 * len(flags), "backwards": 20 * len(flags)}
    robust = {} if "distance" in changes else {"robust": flags}
    return record(spec, **robust, **({"subject": subject, "dataset": "bars"} | costs | changes))


def last(standing: int, n: int = 100) -> list[int]:
    """Flags: the last `standing` of n stand."""
    return [0] * (n - standing) + [1] * standing


def results(*rows: Record) -> Results:
    """The rows of a checkpoint."""
    return Results(rows)


def finding(
    name: str, level: Level, message: str = "", value: float | None = None, budget: str | None = None
) -> Finding:
    """What the check of this name says."""
    return Finding(level, message, value, budget, name)


def levels(found: Iterable[Finding]) -> dict[str, str]:
    """By check, the level of what it said last."""
    return {one.id: one.level for one in found}


def inspected(model: nn.Module | None = None, n: int = 80) -> Inspection:
    """A model inspected by tiny samples; `tiny_net` where none is given."""
    attacks = [parse_attack("fgsm:eps=0.1"), parse_attack("pgd:eps=0.1")]
    return inspect_model(model or tiny_net(), tiny_samples(tiny_net(), n), attacks)


def measured(model: nn.Module, *specs: str, n: int = 20) -> Measurement:
    """A model that attacks ran on at EPS, or at a budget of their own."""
    samples = tiny_samples(tiny_net(), n)
    stored = (samples.x * 255).round().to(torch.uint8)
    images = Images(stored, samples.y, samples.ids, ("a", "b", "c"), "tiny", "tiny/test")
    pixels = Samples(stored.float() / 255, samples.y, samples.ids)
    attacks = [parse_attack(spec if "eps=" in spec else f"{spec}eps={EPS}") for spec in specs]
    subject = Subject("a.pt", "", "tiny", "vanilla")
    rows = [to_record(subject, images, run_attack(model, one, pixels)[0]) for one in attacks]
    return Measurement(model, images, rows)


class Answers(nn.Module):
    """A model whose logits are whatever a function makes of its images."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.net = tiny_net()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 3)."""
        found: torch.Tensor = self.answer(self.net, x)
        return found
