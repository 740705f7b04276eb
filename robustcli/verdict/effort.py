"""What kinds of attack there are, as the checks tell them apart."""

from __future__ import annotations

from robustcli.attacks import APGD, APGDT, Bisection, DeepFool, Square
from robustcli.attacks.autoattack import EOT
from robustcli.attacks.base import Attack, Ensemble
from robustcli.attacks.facts import needs
from robustcli.attacks.norms import L1

ONE_STEP = frozenset({"fgsm"})
WEAK = ONE_STEP | {"deepfool", "noise"}
"""Alone they prove little: one step, a few iterations, or none."""

CROSS_ENTROPY = frozenset({"fgsm", "mifgsm", "pgd"})
ITERATIVE = frozenset({"mifgsm", "pgd", "apgd", "apgd-t", "fab-t", "autoattack"})
"""Budget attacks of many steps along gradients."""

MANY_QUERIES = 1000
"""From so many on, Square's random search does what R13's uniform noise does."""

MANY_STEPS = 100
"""What the authors of AutoAttack give each run of APGD."""


def wants_gradients(attack: Attack) -> bool:
    """Whether an attack, or a member of it, takes gradients."""
    inner = parts(attack)
    return any(needs(one) == "gradients" for one in inner)


def parts(attack: Attack) -> tuple[Attack, ...]:
    """The attacks that an attack is made of: an ensemble's members, those of what is bisected, or itself."""
    if isinstance(attack, Ensemble):
        return attack.members
    return parts(attack.attack) if isinstance(attack, Bisection) else (attack,)


def losses_of(attack: Attack) -> set[str]:
    """The losses that an attack takes gradients of: `cross-entropy`, `margin`, both or none."""
    return {_loss(one) for one in parts(attack) if needs(one) == "gradients"}


def _loss(attack: Attack) -> str:
    on_cross_entropy = attack.name in CROSS_ENTROPY or getattr(attack, "loss", "") == "ce"
    return "cross-entropy" if on_cross_entropy else "margin"


def is_black_box(attack: Attack) -> bool:
    """Whether it searches without gradients; noise searches nothing."""
    return needs(attack) != "gradients" and attack.name != "noise"


def is_weak(attack: Attack) -> bool:
    """Whether it proves little alone; PGD of one step is FGSM from a random start."""
    return all(one.name in WEAK or getattr(one, "steps", 2) < 2 for one in parts(attack))


def is_iterative(attack: Attack) -> bool:
    """Whether it takes many steps along gradients inside a ball."""
    return attack.name in ITERATIVE and getattr(attack, "steps", 100) > 1


def is_reference(attack: Attack, randomised: bool = True) -> bool:
    """Whether it is an ensemble of AutoAttack's grade, whose own number is then the one to judge.

    That takes APGD on the cross-entropy and APGD-T, each of the authors' steps, and Square, which L1 does not have; of
    a randomised model also both losses of APGD with gradients averaged over passes, as AutoAttack's `rand` does.
    """
    if not isinstance(attack, Ensemble):
        return False
    inner = attack.members
    long = [one for one in inner if isinstance(one, APGD | APGDT) and one.steps >= MANY_STEPS]
    losses = {one.loss for one in long if isinstance(one, APGD)}
    targeted = any(isinstance(one, APGDT) for one in long)
    searched = isinstance(attack.norm, L1) or any(
        isinstance(one, Square) and one.queries >= MANY_QUERIES for one in inner
    )
    averaged = randomised and all(one.eot >= EOT for one in long)
    return "ce" in losses and ((targeted and searched) or (averaged and "dlr" in losses))


def converges(attack: Attack) -> bool:
    """Whether a minimal-norm attack has what it takes to leave nothing standing: FMN leaves 27 % of a good net."""
    return isinstance(attack, DeepFool) and attack.iters >= 50 and attack.bounded
