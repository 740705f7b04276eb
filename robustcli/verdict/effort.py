"""What kinds of attack there are, as the checks tell them apart."""

from __future__ import annotations

from robustcli.attacks.autoattack import EOT
from robustcli.attacks.base import Attack, MinimalAttack, is_black_box, is_iterative, parts
from robustcli.attacks.norms import L1

__all__ = ["is_black_box", "is_iterative", "parts"]

ONE_STEP = frozenset({"fgsm"})
MANY_QUERIES = 1000
MANY_STEPS = 100


def wants_gradients(attack: Attack) -> bool:
    """Whether an attack takes gradients."""
    return attack.needs == "gradients"


def losses_of(attack: Attack) -> set[str]:
    """The losses that an attack takes gradients of."""
    return set(attack.losses)


def is_weak(attack: Attack) -> bool:
    """Whether it proves little alone."""
    return attack.weak


def is_reference(attack: Attack, randomised: bool = True) -> bool:
    """Whether it is an ensemble of AutoAttack's grade."""
    members = [one for one in parts(attack) if one.parameter_free] if attack.kind == "ensemble" else []
    long = [one for one in members if getattr(one, "steps", 0) >= MANY_STEPS]
    untargeted = {loss for one in long if not hasattr(one, "targets") for loss in one.losses}
    targeted = any(hasattr(one, "targets") for one in long)
    searched = isinstance(attack.norm, L1) or any(getattr(one, "queries", 0) >= MANY_QUERIES for one in members)
    averaged = randomised and all(getattr(one, "eot", 1) >= EOT for one in long)
    return "cross-entropy" in untargeted and ((targeted and searched) or (averaged and "margin" in untargeted))


def converges(attack: Attack) -> bool:
    """Whether a minimal-norm attack has what it takes to leave nothing standing."""
    return isinstance(attack, MinimalAttack) and attack.converges
