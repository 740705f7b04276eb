"""What a study is made of, as values: how much of everything, networks, attacks, and the parts of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustcli.config import TrainSpec, default_budgets
from robustcli.data.named import DATASETS, SAMPLE
from robustcli.models import MODELS
from robustcli.training.methods import describe_method, parse_method
from robustcli.training.recipe import Setting

Budgets = tuple[str, ...]
Price = Literal["cheap", "costly", "dear"]


@dataclass(frozen=True)
class Scale:
    """How much of everything: the whole study or a quick look.

    Attributes:
        mnist: the data set in MNIST's place.
        seeds: of the headline networks on MNIST and of section 6.1.
        epochs: of headline networks, by data set; None leaves the recipe's.
        ablation_epochs: of the others.
        limit: training images; None takes all.
        n: test images for clean accuracy and FGSM; None takes all.
        n_costly: test images for iterative attacks.
        n_dear: test images for AutoAttack.
        quick: a look, not the study: results say so, and nothing is downloaded for it.
    """

    mnist: str = "mnist"
    seeds: int = 3
    epochs: int | None = None
    ablation_epochs: int = 6
    limit: int | None = None
    n: int | None = None
    n_costly: int = 1000
    n_dear: int = 200
    quick: bool = False

    def test_images(self, price: Price) -> int | None:
        """How many an attack of that price meets; None is all."""
        return {"cheap": self.n, "costly": self.n_costly, "dear": self.n_dear}[price]


FULL = Scale()
QUICK = Scale(
    mnist=SAMPLE, seeds=1, epochs=4, ablation_epochs=4, limit=2000, n=500, n_costly=100, n_dear=20, quick=True
)


@dataclass(frozen=True)
class Network:
    """A network to train: `name` is its file's, `label` is what tables and figures call it, whatever its seed."""

    name: str
    label: str
    spec: TrainSpec


@dataclass(frozen=True)
class Probe:
    """An attack to meet, at some budgets.

    Attributes:
        attack: a SPEC.
        eps: budgets; none for a minimal-norm attack.
        price: a costly attack meets fewer test images, a dear one fewest, and of several seeds the first alone.
        source: the label of the network that the images are made on, of the same seed; None is the attacked one.
    """

    attack: str
    eps: Budgets = ()
    price: Price = "cheap"
    source: str | None = None


@dataclass(frozen=True)
class Part:
    """One result of the paper.

    Attributes:
        name: what `robustcli reproduce` calls it.
        title: one line.
        source: where it stands in the paper.
        dataset: the one it needs, or None.
        networks, probes: each network meets each probe.
        note: what a reader must know about how it was made.
    """

    name: str
    title: str
    source: str
    dataset: str | None = None
    networks: tuple[Network, ...] = ()
    probes: tuple[Probe, ...] = ()
    note: str = ""


def resolve(spec: TrainSpec) -> TrainSpec:
    """The spec with every open option of its method decided, as its checkpoint will hold it; no data is read."""
    network, data = MODELS[spec.model or ""], DATASETS[spec.dataset]
    setting = Setting(network.slot_names, network.paper_eta, default_budgets(data.shape)[1])
    return spec.model_copy(update={"method": describe_method(parse_method(spec.method).resolved(setting))})
