"""AutoAttack."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.apgd import APGD, APGDT
from robustcli.attacks.base import BudgetAttack, Kind, Losses, Needs, passes_of, survivors
from robustcli.attacks.fab import FABT
from robustcli.attacks.losses import Model
from robustcli.attacks.norms import L1, Linf, NormField
from robustcli.attacks.square import Square
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise

EOT = 20
"""Passes that the version for randomised models averages over."""


@dataclass(frozen=True, config=STRICT)
class AutoAttack:
    """Diverse attacks without parameters to tune, each on what those before it left standing.

    Croce and Hein 2020, *Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks*; for L1, 2021, *Mind the box: l1-APGD for sparse adversarial attacks*. `standard` is APGD on the
    cross-entropy, APGD-T, FAB-T and Square; `rand` is APGD on the cross-entropy and on the difference-of-logits ratio,
    with gradients averaged over 20 passes. The parameters are the authors'. `fast`, ours, has the members of `standard`
    with FAB-T last: in a run Square and FAB-T meet a sample of what APGD-T left, 10 % and at least 50, drawn by the
    samples' ids, and all of it as soon as one of them breaks one. They take most of the time of `standard`, and break
    next to nothing after it; the result says what the sample leaves open.

    Returns images in the ball and in [0, 1]: the first adversarial that a member found. In L1 there is no Square. A
    model of fewer than ten classes is attacked with the targets that there are. `rand` calls a sample broken where the
    mean logits of 20 passes are wrong; in the authors' code one wrong pass is enough.

    Attributes:
        rounds: steps of APGD and iterations of FAB, a run each.
        queries: of Square, a sample.
        eot: passes a gradient; 20 for `rand`, else 1, if left out.
    """

    eps: Budget
    version: Literal["standard", "rand", "fast"] = "standard"
    rounds: PositiveInt = 100
    queries: PositiveInt = 5000
    eot: PositiveInt | None = None
    norm: NormField = Linf()

    name: ClassVar[str] = "autoattack"
    summary: ClassVar[str] = "the worst case over diverse attacks, the field's reference (Croce & Hein 2020)"
    use: ClassVar[str] = (
        "The robust accuracy to report, and to compare with other papers; `version=rand` for a randomised model, "
        "`version=fast` for the same answer in less time."
    )
    kind: ClassVar[Kind] = "ensemble"
    needs: ClassVar[Needs] = "gradients"
    parameter_free: ClassVar[bool] = True

    @property
    def losses(self) -> Losses:
        """Those of the members."""
        return tuple(dict.fromkeys(loss for member in self.members for loss in member.losses))

    @property
    def weak(self) -> bool:
        """Where all members are."""
        return all(member.weak for member in self.members)

    @property
    def cost(self) -> int:
        """That of all members."""
        return sum(member.cost for member in self.members)

    @property
    def members(self) -> tuple[BudgetAttack, ...]:
        """The attacks, in the order in which they run."""
        return VERSIONS[self.version](self)

    @property
    def sampled(self) -> int:
        """How many of the members, the last ones, meet a sample first: of `fast`, all after APGD-T."""
        return len(self.members) - 2 if self.version == "fast" else 0

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w); by all members on all, as a batch does not know what a run leaves."""
        return survivors([member.perturb for member in self.members], model, x, y, noise, passes_of(self))


def _standard(whole: AutoAttack) -> tuple[BudgetAttack, ...]:
    eps, rounds, norm, eot = whole.eps, whole.rounds, whole.norm, whole.eot or 1
    fab = FABT(eps, iters=rounds, norm=norm)
    if isinstance(norm, L1):
        return APGD(eps, rounds, restarts=5, eot=eot, norm=norm), APGDT(eps, rounds, targets=5, eot=eot, norm=norm), fab
    square = Square(eps, whole.queries, norm=norm)
    return APGD(eps, rounds, eot=eot, norm=norm), APGDT(eps, rounds, eot=eot, norm=norm), fab, square


def _rand(whole: AutoAttack) -> tuple[BudgetAttack, ...]:
    eps, rounds, norm, eot = whole.eps, whole.rounds, whole.norm, whole.eot or EOT
    return APGD(eps, rounds, eot=eot, norm=norm), APGD(eps, rounds, loss="dlr", eot=eot, norm=norm)


def _fast(whole: AutoAttack) -> tuple[BudgetAttack, ...]:
    apgd, apgd_t, fab, *square = _standard(whole)
    return apgd, apgd_t, *square, fab


VERSIONS: dict[str, Callable[[AutoAttack], tuple[BudgetAttack, ...]]] = {
    "standard": _standard,
    "rand": _rand,
    "fast": _fast,
}
