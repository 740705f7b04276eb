"""The training methods: frozen values that say what a run minimises and what it puts into the network's slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

from pydantic import PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass

from robustcli.attacks import FGSM, PGD
from robustcli.attacks.norms import Linf, NormField, check_budget
from robustcli.config import field_names, validated
from robustcli.errors import ConfigError, lookup, nearest, unknown
from robustcli.fields import DOCUMENTED, STRICT, Budget, Etas, Fraction, Names
from robustcli.models.augmentation import BatchOut, GaussianNoise, Scale
from robustcli.models.nets import Network
from robustcli.training.objectives import Craft, adversarial
from robustcli.training.recipe import Method, Recipe


@dataclass(frozen=True, config=STRICT)
class Vanilla:
    """Cross-entropy on clean images: the paper's baseline model."""

    name: ClassVar[str] = "vanilla"
    summary: ClassVar[str] = "cross-entropy on clean images, the baseline"

    def resolve(self, network: type[Network], eps: float) -> Self:
        """Itself: nothing is open."""
        return self

    def recipe(self) -> Recipe:
        """The plain objective."""
        return Recipe()


@dataclass(frozen=True, config=DOCUMENTED)
class FGSMTraining:
    """Half of each batch is replaced by its FGSM images (Goodfellow et al. 2014; BatchOut paper, section 6.2)."""

    eps: Budget | None = None
    """Budget of the attack; 0.3 for 28x28 grey images and 8/255 for others if left out."""
    fraction: Fraction = 0.5
    """The share of the batch that is replaced."""
    craft: Craft = "eval"
    """The network's mode while it is attacked, `eval` or `train`."""
    norm: NormField = Linf()
    """Norm of the attack's budget: linf, l2 or l1."""

    name: ClassVar[str] = "fgsm"
    summary: ClassVar[str] = "half of each batch replaced by its FGSM images (Goodfellow et al. 2014)"

    def resolve(self, network: type[Network], eps: float) -> Self:
        """With the data's eps."""
        return replace(self, eps=_budget(self, eps))

    def recipe(self) -> Recipe:
        """Adversarial training with FGSM."""
        assert self.eps is not None
        attack = FGSM(eps=self.eps, norm=self.norm)
        return Recipe(adversarial(attack, self.fraction, self.craft), attack=attack, fraction=self.fraction)


@dataclass(frozen=True, config=DOCUMENTED)
class PGDTraining:
    """Each batch is replaced by its PGD images (Madry et al. 2017)."""

    eps: Budget | None = None
    """Budget of the attack; 0.3 for 28x28 grey images and 8/255 for others if left out."""
    steps: PositiveInt = 10
    """Steps of PGD, from a random start."""
    step_size: Budget | None = None
    """Size of a step; 2.5 eps / steps if left out."""
    fraction: Fraction = 1.0
    """The share of the batch that is replaced."""
    craft: Craft = "eval"
    """The network's mode while it is attacked, `eval` or `train`."""
    norm: NormField = Linf()
    """Norm of the attack's budget: linf, l2 or l1."""

    name: ClassVar[str] = "pgd"
    summary: ClassVar[str] = "each batch replaced by its PGD images (Madry et al. 2017)"

    def resolve(self, network: type[Network], eps: float) -> Self:
        """With the data's eps."""
        return replace(self, eps=_budget(self, eps))

    def recipe(self) -> Recipe:
        """Adversarial training with PGD, its steps taken to the end."""
        assert self.eps is not None
        attack = PGD(eps=self.eps, steps=self.steps, step_size=self.step_size, norm=self.norm, early_stop=False)
        return Recipe(adversarial(attack, self.fraction, self.craft), attack=attack, fraction=self.fraction)


@dataclass(frozen=True, config=DOCUMENTED)
class BatchOutTraining:
    """Activations moved towards random others of the batch, in the network's slots (BatchOut paper, Algorithm 1)."""

    eta: Etas | None = None
    """The magnitude, one for all slots or one a slot, each a number or U[low,high]; the paper's if left out."""
    fraction: Fraction = 0.5
    """The share of the batch that is augmented, k in the paper."""
    layers: Names | None = None
    """The slots to fill; all if left out."""
    stop_gradient: bool = True
    """Whether the augmentation is a constant to backpropagation (the paper's section 6.1)."""

    name: ClassVar[str] = "batchout"
    summary: ClassVar[str] = "activations moved towards random others of the batch (Subramanya et al. 2018)"

    def resolve(self, network: type[Network], eps: float) -> Self:
        """With the paper's eta and all slots, where they are open."""
        return _slot_by_slot(self, network)

    def recipe(self) -> Recipe:
        """The plain objective on a network with BatchOut layers."""
        by_slot = zip(self.layers or (), self.eta or (), strict=True)
        return Recipe(
            filling={slot: BatchOut(eta, self.fraction, self.stop_gradient, inplace=True) for slot, eta in by_slot}
        )


@dataclass(frozen=True, config=DOCUMENTED)
class GaussianTraining:
    """Gaussian noise of BatchOut's magnitude in the same slots: the paper's baseline (its section 6.7)."""

    eta: Etas | None = None
    """The magnitude, one for all slots or one a slot, each a number or U[low,high]; the paper's if left out."""
    fraction: Fraction = 0.5
    """The share of the batch that is augmented."""
    layers: Names | None = None
    """The slots to fill; all if left out."""
    scale: Scale = "matched"
    """`matched` to BatchOut's magnitude as the paper's text asks, or equation 5 as `printed`."""

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "Gaussian noise in BatchOut's place (Subramanya et al. 2018, section 6.7)"

    def resolve(self, network: type[Network], eps: float) -> Self:
        """With the paper's eta and all slots, where they are open."""
        return _slot_by_slot(self, network)

    def recipe(self) -> Recipe:
        """The plain objective on a network with noise layers."""
        by_slot = zip(self.layers or (), self.eta or (), strict=True)
        return Recipe(filling={slot: GaussianNoise(eta, self.fraction, self.scale) for slot, eta in by_slot})


Augmenting = TypeVar("Augmenting", bound=BatchOutTraining | GaussianTraining)


def _budget(method: FGSMTraining | PGDTraining, usual: float) -> float:
    """The method's own eps, or the data's usual one for Linf."""
    if method.eps is not None:
        check_budget(method.norm, method.eps, f"--eps {method.eps}")
        return method.eps
    if method.norm != Linf():
        raise ConfigError(f"method {method.name}: {method.norm.label} has no usual budget; give --eps, such as 1.0")
    return usual


def _slot_by_slot(method: Augmenting, network: type[Network]) -> Augmenting:
    """The method with the slots to fill, in the order they were named, and an eta for each."""
    slots = network.slot_names
    if not slots:
        raise ConfigError(f"method {method.name}: the network has no slots to fill; fgsm and pgd need none")
    layers = slots if method.layers is None else method.layers
    for name in layers:
        if name not in slots:
            raise unknown("--layers", name, slots)
    if len(set(layers)) < len(layers):
        raise ConfigError(f"--layers {','.join(layers)}: each slot may be named once")
    eta = method.eta
    if eta is None:
        eta = tuple(network.paper_eta[slots.index(name)] for name in layers)
    if len(eta) not in (1, len(layers)):
        raise ConfigError(f"--eta has {len(eta)} values; should be 1 or {len(layers)}, one a slot ({','.join(layers)})")
    return replace(method, layers=layers, eta=eta if len(eta) == len(layers) else eta * len(layers))


METHODS: dict[str, type[Method]] = {
    "vanilla": Vanilla,
    "fgsm": FGSMTraining,
    "pgd": PGDTraining,
    "batchout": BatchOutTraining,
    "gaussian": GaussianTraining,
}


def parse_method(options: Mapping[str, Any]) -> Method:
    """The method that `{"name": "batchout", "eta": 0.1}` means.

    Raises:
        ConfigError: an unknown method or option, or a value out of range.
    """
    name = str(options.get("name", ""))
    build = lookup(METHODS, name, "--method")
    keys = field_names(build)
    for key in options.keys() - {"name", *keys}:
        listed = ", ".join(keys) or "no options"
        raise ConfigError(f"--{key}: method {name} does not take it (it takes {listed}){nearest(key, keys)}")
    return validated(build, {key: value for key, value in options.items() if key != "name"}, f"method {name}")


def describe_method(method: Method) -> dict[str, Any]:
    """The method's name and options, as plain values that `parse_method` reads back."""
    options: dict[str, Any] = TypeAdapter(type(method)).dump_python(method, mode="json")
    return {"name": method.name} | options
