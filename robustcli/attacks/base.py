"""What an attack is: a frozen, typed value with one pure method.

A budget attack searches inside a ball; a minimal-norm attack looks for the closest adversarial. Their fields are the
keys of `--attack SPEC`, the YAML schema and the label in the table. To add one, see CONTRIBUTING.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from robustcli.attacks.losses import Model, is_right, mean_logits
from robustcli.attacks.norms import Norm
from robustcli.noise import Noise

Needs = Literal["gradients", "scores", "decisions"]
"""What an attack asks of a model: gradients; only its logits; or only the class that it predicts."""

Kind = Literal["budget", "minimal", "ensemble"]
"""A search in a ball; a search for the closest adversarial; or budget attacks one after the other."""

Losses = tuple[Literal["cross-entropy", "margin"], ...]
"""What an attack takes gradients of: one loss, an ensemble perhaps both, a black-box attack none."""


class Passes(int):
    """How many passes of the model an image takes at most; `exact` where none takes fewer.

    It is their number, so that what compares attacks computes with it.
    """

    forwards: int
    backwards: int
    exact: bool

    def __new__(cls, forwards: int, backwards: int, exact: bool = False) -> Passes:
        """Of so many forwards and backwards."""
        self = super().__new__(cls, forwards + backwards)
        self.forwards, self.backwards, self.exact = forwards, backwards, exact
        return self


class Attack(Protocol):
    """Any attack, and what is true of it: nobody else keeps a list of attacks.

    `name` is what `--attack` takes, `summary` its line in `robustcli list attacks`, which ends in its source, in
    brackets. One more class variable is read where it is there: `use`, a sentence that says when to use it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def needs(self) -> Needs:
        """What it asks of a model."""
        ...

    @property
    def losses(self) -> Losses:
        """What it takes gradients of."""
        ...

    @property
    def weak(self) -> bool:
        """Whether it proves little alone: a single step, the first boundary that is crossed, or no search at all."""
        ...

    @property
    def parameter_free(self) -> bool:
        """Whether it adapts its steps by itself, as the members of AutoAttack do; PGD's step is chosen beforehand."""
        ...

    @property
    def cost(self) -> int:
        """How many passes of the model an image takes at most, of ten classes or more; better a `Passes`."""
        ...

    @property
    def norm(self) -> Norm:
        """The norm it keeps small."""
        ...

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w) for images `x` in [0, 1] of the true classes `y` (n,)."""
        ...


@runtime_checkable
class BudgetAttack(Attack, Protocol):
    """Searches in the ball of radius `eps`."""

    @property
    def eps(self) -> float:
        """The ball's radius, in pixel units."""
        ...


@runtime_checkable
class SweepingAttack(BudgetAttack, Protocol):
    """A budget attack whose work serves several budgets."""

    def sweep(self, model: Model, x: Tensor, y: Tensor, noise: Noise, budgets: Sequence[float]) -> Iterator[Tensor]:
        """`perturb` for each budget in turn."""
        ...


@runtime_checkable
class Ensemble(BudgetAttack, Protocol):
    """Budget attacks that run one after the other, each on what those before it left standing.

    One more property is read where it is there: `sampled`, how many of the members, the last ones, meet a sample of
    what stands, and all of it only where one of them breaks one of the sample.
    """

    @property
    def members(self) -> tuple[BudgetAttack, ...]:
        """The attacks, in the order in which they run."""
        ...


@runtime_checkable
class MinimalAttack(Attack, Protocol):
    """Looks for the closest adversarial."""

    @property
    def bounded(self) -> bool:
        """Whether its images stay in [0, 1]."""
        ...

    @property
    def converges(self) -> bool:
        """Whether it has what it takes to leave nothing standing of a network with honest gradients."""
        ...


@runtime_checkable
class TracingAttack(MinimalAttack, Protocol):
    """A minimal-norm attack that shows how far each of its iterations gets."""

    @property
    def iters(self) -> int:
        """How many iterations it takes at most."""
        ...

    def trace(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Iterator[Tensor]:
        """The images (n, c, h, w) after each iteration; it may end early, where nothing can change any more."""
        ...


def norms(attack: type[Attack]) -> tuple[str, ...]:
    """The norms that its field `norm` may be, as the field's type says."""
    annotation = get_type_hints(attack)["norm"]
    return tuple(norm.name for norm in get_args(annotation) or (annotation,))


def parts(attack: Attack) -> tuple[Attack, ...]:
    """The attacks that an attack is made of: an ensemble's members, those of what is bisected, or itself."""
    members: tuple[Attack, ...] = getattr(attack, "members", ())
    return tuple(part for member in members for part in parts(member)) or (attack,)


def is_iterative(attack: Attack) -> bool:
    """Whether it takes many steps along gradients inside a ball."""
    return attack.kind != "minimal" and attack.needs == "gradients" and not attack.weak


def is_black_box(attack: Attack) -> bool:
    """Whether it searches without gradients; noise searches nothing."""
    return attack.needs != "gradients" and not attack.weak


def passes_of(attack: Attack) -> int:
    """The passes that an attack averages gradients and predictions of a randomised model over; of an ensemble, most."""
    members = attack.members if isinstance(attack, Ensemble) else ()
    return max([getattr(attack, "eot", None) or 1, *map(passes_of, members)])


B = TypeVar("B", bound=BudgetAttack)


def at_budget(attack: B, eps: float) -> B:
    """The same attack in the ball of radius `eps`."""
    return replace(attack, eps=eps)  # type: ignore[type-var]


def at_budgets(attack: Attack, budgets: Sequence[float]) -> list[Attack]:
    """The attack at each of these budgets; as it is where there are none, as of a minimal-norm attack."""
    if not budgets:
        return [attack]
    assert isinstance(attack, BudgetAttack)
    return [at_budget(attack, eps) for eps in budgets]


T = TypeVar("T")


def compact(values: T, kept: Tensor) -> T:
    """A dataclass of tensors and such dataclasses, with one entry a sample, for the samples `kept` alone."""
    parts: dict[str, Any] = {}
    for field in fields(values):  # type: ignore[arg-type]
        part = getattr(values, field.name)
        parts[field.name] = part[kept] if isinstance(part, Tensor) else compact(part, kept)
    return replace(values, **parts)  # type: ignore[type-var]


Attempt = Callable[[Model, Tensor, Tensor, Noise], Tensor]


def survivors(attempts: Sequence[Attempt], model: Model, x: Tensor, y: Tensor, noise: Noise, eot: int = 1) -> Tensor:
    """The images of the first attempt that breaks each sample, or of the last one: restarts, ensembles, worst cases.

    Each attempt runs only on what the ones before it left standing, by the mean of `eot` passes, with a noise stream
    of its own.
    """
    x_adv = x.clone()
    standing = torch.arange(len(x), device=x.device)
    for i, attempt in enumerate(attempts):
        found = attempt(model, x[standing], y[standing], noise[standing].stream(f"attempt {i}"))
        x_adv[standing] = found
        if i + 1 < len(attempts):
            standing = standing[is_right(mean_logits(model, found, eot), y[standing])]
        if len(standing) == 0:
            break
    return x_adv
