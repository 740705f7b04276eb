"""What the paper reports, as values: which networks each result needs, and which attacks they meet.

Headline networks (Figures 2 and 3, the clean accuracies) train to the end of their recipe; the ablations of Figures 4b,
5a and 5b and of section 6.1 for fewer epochs, as each of their captions says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustcli.config import TrainSpec, default_budgets
from robustcli.data.named import DATASETS, SAMPLE
from robustcli.models import MODELS
from robustcli.training.methods import describe_method, parse_method

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
class AttackSpec:
    """An attack to meet, at some budgets.

    Attributes:
        attack: a SPEC.
        eps: budgets; none for a minimal-norm attack.
        price: a costly attack meets fewer test images; a dear one fewest, and of several seeds the first alone.
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
        networks, attacks: each network meets each attack.
        note: what a reader must know about how it was made.
    """

    name: str
    title: str
    source: str
    dataset: str | None = None
    networks: tuple[Network, ...] = ()
    attacks: tuple[AttackSpec, ...] = ()
    note: str = ""


def resolve(spec: TrainSpec) -> TrainSpec:
    """The spec with every open option of its method decided, as its checkpoint will hold it; no data is read."""
    _, eps = default_budgets(DATASETS[spec.dataset].shape)
    method = parse_method(spec.method).resolve(MODELS[spec.model or ""], eps)
    return spec.model_copy(update={"method": describe_method(method)})


RECIPES: dict[str, dict[str, Any]] = {
    "mnist": {"model": "mnist-cnn", "epochs": 12, "lr": 2e-3, "schedule": "onecycle", "dtype": "bfloat16"},
    "cifar10": {
        "model": "cifar-cnn",
        "epochs": 60,
        "batch_size": 64,
        "lr": 1e-3,
        "schedule": "onecycle",
        "augment": "flip",
        "dtype": "bfloat16",
    },
}
"""One recipe a data set, for every method alike; `benchmarks/recipes.py` chose it on held-out training images."""

OTHER_EPOCHS = {("cifar10", "fgsm"): 24, ("cifar10", "pgd"): 8, ("mnist", "pgd"): 8}
"""Where a method does not train for the recipe's epochs: a batch of attacked images costs as much as several others."""
PGD_STEPS = {"mnist": 7, "cifar10": 3}
HEADLINE = {"vanilla": "vanilla", "fgsm": "FGSM-trained", "batchout": "BatchOut", "gaussian": "Gaussian"}
"""Methods and what figures call them; Gaussian is the paper's own baseline (its section 6.7)."""

SLOTS = ("c1", "c2", "f1", "c1,c2", "c1,f1", "c2,f1")
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
MULTIPLES = (1, 2, 5, 10)
"""Of the paper's eta."""


def _network(
    scale: Scale,
    dataset: str,
    label: str,
    method: Mapping[str, Any],
    *,
    slug: str = "",
    seed: int = 0,
    epochs: int | None = None,
) -> Network:
    """A network of a method; `epochs` where it is an ablation."""
    recipe = RECIPES[dataset]
    name = scale.mnist if dataset == "mnist" else dataset
    whole = scale.epochs or OTHER_EPOCHS.get((dataset, method["name"]), recipe["epochs"])
    values = recipe | {"method": dict(method), "dataset": name, "seed": seed, "limit": scale.limit}
    spec = resolve(TrainSpec(**(values | {"epochs": epochs or whole})))
    short = "" if epochs in (None, whole) else f"-{epochs}epochs"
    return Network(f"{name}-{slug or method['name']}{short}-seed{seed}", label, spec)


def _headline(scale: Scale, dataset: str, seeds: int = 1, methods: Iterable[str] = HEADLINE) -> tuple[Network, ...]:
    """The paper's networks; several seeds of its three, one of the Gaussian baseline."""
    return tuple(
        _network(scale, dataset, HEADLINE[method], {"name": method}, seed=seed)
        for method in methods
        for seed in range(1 if method == "gaussian" else seeds)
    )


def _larger_eta(scale: Scale, method: str, label: str, multiple: int, epochs: int | None) -> Network:
    options: dict[str, Any] = {"name": method}
    if multiple > 1:
        options["eta"] = [multiple * eta for eta in MODELS["mnist-cnn"].paper_eta]
    slug = method if multiple == 1 else f"{method}-eta{multiple}x"
    return _network(scale, "mnist", label, options, slug=slug, epochs=epochs)


def _beyond(scale: Scale, dataset: str) -> tuple[Network, ...]:
    """What the paper does not have: a network trained against PGD and, on MNIST, larger eta."""
    larger = MULTIPLES[1:] if dataset == "mnist" else ()
    return (
        *(_larger_eta(scale, "batchout", f"BatchOut, eta x {multiple}", multiple, None) for multiple in larger),
        _network(scale, dataset, "PGD-trained", {"name": "pgd", "steps": PGD_STEPS[dataset]}),
    )


def _attacks(fgsm: Budgets, pgd: Budgets) -> tuple[AttackSpec, ...]:
    """The paper's two attacks, DeepFool in its own form and in ours, and beside them vanilla's FGSM images and PGD."""
    return (
        AttackSpec("fgsm", fgsm),
        AttackSpec("fgsm", (fgsm[-1],), source="vanilla"),
        AttackSpec("deepfool:iters=5,box=none", price="costly"),
        AttackSpec("deepfool:iters=50", price="costly"),
        AttackSpec("pgd:steps=40", pgd, price="costly"),
    )


def _shown(scale: Scale, dataset: str) -> str:
    """What titles call the data set: `mnist-sample` where that takes MNIST's place."""
    return {"mnist": "MNIST", "cifar10": "CIFAR-10"}.get(scale.mnist if dataset == "mnist" else dataset, scale.mnist)


def _accuracies(scale: Scale, dataset: str, budgets: Budgets, seeds: int, dear: Budgets) -> Part:
    shown = _shown(scale, dataset)
    section = {"mnist": "6.2", "cifar10": "6.3"}[dataset]
    return Part(
        name=dataset,
        title=f"Clean accuracy on {shown}, and what attacks leave of it",
        source=f"section {section}",
        dataset=dataset,
        networks=_headline(scale, dataset, seeds) + _beyond(scale, dataset),
        attacks=(*_attacks(budgets, budgets), AttackSpec("autoattack", dear, price="dear")),
    )


def _against_attacks(scale: Scale, name: str, dataset: str, fgsm: Budgets, pgd: Budgets) -> Part:
    shown = _shown(scale, dataset)
    return Part(
        name=name,
        title=f"Accuracy on {shown} against FGSM's eps and DeepFool's iterations",
        source=f"Figure {name.removeprefix('fig')}",
        dataset=dataset,
        networks=_headline(scale, dataset, scale.seeds if dataset == "mnist" else 1),
        attacks=_attacks(fgsm, pgd),
    )


def _fig4b(scale: Scale, note: str) -> Part:
    epochs = scale.ablation_epochs
    filled = [
        _network(
            scale,
            "mnist",
            slots.replace(",", "+"),
            {"name": "batchout", "layers": slots.split(",")},
            slug=f"batchout-{slots.replace(',', '')}",
            epochs=epochs,
        )
        for slots in SLOTS
    ]
    whole = _network(scale, "mnist", "all", {"name": "batchout"}, epochs=epochs)
    none = _network(scale, "mnist", "none", {"name": "vanilla"}, epochs=epochs)
    return Part(
        "fig4b",
        f"BatchOut in different slots of the network, on {_shown(scale, 'mnist')}",
        "Figure 4b, section 6.5",
        "mnist",
        (none, *filled, whole),
        (AttackSpec("fgsm", ("0.3",)), AttackSpec("pgd:steps=40", ("0.1",), price="costly")),
        note,
    )


def _fig5a(scale: Scale, note: str) -> Part:
    networks = [
        _network(
            scale,
            "mnist",
            f"k = {fraction:g}",
            {"name": "batchout", "fraction": fraction} if fraction else {"name": "vanilla"},
            slug=f"batchout-k{fraction:g}" if fraction not in (0.0, 0.5) else "",
            epochs=scale.ablation_epochs,
        )
        for fraction in FRACTIONS
    ]
    attacks = (AttackSpec("fgsm", ("0.4",)), AttackSpec("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "fig5a",
        "The share k of the batch that is augmented",
        "Figure 5a, section 6.6",
        "mnist",
        (*networks,),
        attacks,
        note,
    )


def _fig5b(scale: Scale, note: str) -> Part:
    networks = [
        _larger_eta(scale, method, f"{HEADLINE[method]}, eta x {multiple}", multiple, scale.ablation_epochs)
        for method in ("batchout", "gaussian")
        for multiple in MULTIPLES
    ]
    attacks = (AttackSpec("fgsm", ("0.1", "0.3")), AttackSpec("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "fig5b",
        "BatchOut against Gaussian noise of similar magnitude",
        "Figure 5b, section 6.7",
        "mnist",
        (*networks,),
        attacks,
        note,
    )


def _stopgrad(scale: Scale, note: str) -> Part:
    networks = [
        _network(
            scale,
            "mnist",
            "with the stop-gradient" if stop else "without it",
            {"name": "batchout", "stop_gradient": stop},
            slug="" if stop else "batchout-nostop",
            seed=seed,
            epochs=scale.ablation_epochs,
        )
        for stop in (True, False)
        for seed in range(scale.seeds)
    ]
    attacks = (AttackSpec("fgsm", ("0.1", "0.3", "0.4")), AttackSpec("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "stopgrad", "BatchOut with and without the stop-gradient", "section 6.1", "mnist", (*networks,), attacks, note
    )


def parts(scale: Scale) -> dict[str, Part]:
    """Every result of the paper, by name, in the order in which `all` makes them."""
    note = f"Each network trained for {scale.ablation_epochs} epochs with the data set's recipe."
    grey, colour = ("0.1", "0.3"), ("2/255", "8/255")
    sweep = ("0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.4")
    fine = ("1/255", "2/255", "4/255", "8/255", "16/255")
    made = (
        Part(
            "fig1",
            "The toy example: five Gaussians before and after augmentation",
            "Figure 1",
            note="Every point is moved by U[0, 0.5] of its way to a partner: more than in training, to be seen.",
        ),
        _accuracies(scale, "mnist", grey, scale.seeds, grey),
        _against_attacks(scale, "fig2", "mnist", sweep, ("0.05", "0.1", "0.2", "0.3")),
        _fig4b(scale, note),
        _fig5a(scale, note),
        _fig5b(scale, note),
        _stopgrad(scale, note),
        _accuracies(scale, "cifar10", colour, 1, colour[-1:]),
        _against_attacks(scale, "fig3", "cifar10", fine, ("1/255", "2/255", "4/255", "8/255")),
        Part(
            "fig4a",
            "Training loss by epoch on CIFAR-10",
            "Figure 4a, section 6.4",
            "cifar10",
            _headline(scale, "cifar10", methods=("vanilla", "batchout")),
        ),
    )
    return {part.name: part for part in made}
