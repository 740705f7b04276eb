"""Catastrophic overfitting: a network trained against few steps that more steps break (Wong et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from robustcli.attacks import FGSM, PGD
from robustcli.attacks.base import BudgetAttack
from robustcli.engine.run import Samples, run_attack

WATCHED = 256
"""Validation images that are attacked after each epoch."""
GAP = 0.20
"""Of accuracy, between FGSM and PGD-10; more is catastrophic overfitting."""


def watch(model: nn.Module, attack: BudgetAttack, samples: Samples, seed: int) -> dict[str, float]:
    """What FGSM and PGD-10 leave of the first samples, at the norm and eps of the attack that the model trains against.

    Returns:
        `val_fgsm_accuracy` and `val_pgd_accuracy`, fractions.
    """
    part, eps, norm = samples[:WATCHED], attack.eps, attack.norm
    left = {}
    for name, probe in (("fgsm", FGSM(eps=eps, norm=norm)), ("pgd", PGD(eps=eps, norm=norm, steps=10))):
        (outcome,) = run_attack(model, probe, part, seed=seed)
        left[f"val_{name}_accuracy"] = int(outcome.robust.sum()) / len(part)
    return left


def overfitting(history: Sequence[Mapping[str, float]]) -> str | None:
    """A warning of catastrophic overfitting in a run's last epoch; None where there is no sign of it.

    The signs: FGSM's accuracy is over PGD-10's by more than `GAP`, or PGD-10's has halved within the epoch.
    """
    watched = [entry for entry in history if "val_pgd_accuracy" in entry]
    if not watched or watched[-1] is not history[-1]:
        return None
    now, before = watched[-1], watched[-2] if len(watched) > 1 else watched[-1]
    one, many = now["val_fgsm_accuracy"], now["val_pgd_accuracy"]
    halved = many < before["val_pgd_accuracy"] / 2
    if one - many <= GAP and not halved:
        return None
    best = max(watched, key=lambda entry: entry["val_pgd_accuracy"])
    seen = f"FGSM leaves {100 * one:.1f} %, PGD-10 {100 * many:.1f} %"
    was = f" (an epoch ago {100 * before['val_pgd_accuracy']:.1f} %)" if halved else ""
    peak = f"; PGD-10 left most, {100 * best['val_pgd_accuracy']:.1f} %, after epoch {int(best['epoch'])}"
    return f"catastrophic overfitting (T1): {seen}{was} of the validation images{peak if best is not now else ''}"
