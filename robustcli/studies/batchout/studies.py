"""What the paper reports, as values: which networks each result needs, and which attacks they meet.

Headline networks (Figures 2 and 3, the clean accuracies) train to the end of their recipe; the ablations of Figures 4b,
5a and 5b and of section 6.1 for fewer epochs, as each of their captions says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from robustcli.config import TrainSpec
from robustcli.models.nets import MNIST_ETA
from robustcli.studies.batchout.design import Budgets, Network, Part, Probe, Scale, resolve

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
        options["eta"] = [multiple * eta for eta in MNIST_ETA]
    slug = method if multiple == 1 else f"{method}-eta{multiple}x"
    return _network(scale, "mnist", label, options, slug=slug, epochs=epochs)


def _beyond(scale: Scale, dataset: str) -> tuple[Network, ...]:
    """What the paper does not have: a network trained against PGD and, on MNIST, larger eta."""
    larger = MULTIPLES[1:] if dataset == "mnist" else ()
    return (
        *(_larger_eta(scale, "batchout", f"BatchOut, eta x {multiple}", multiple, None) for multiple in larger),
        _network(scale, dataset, "PGD-trained", {"name": "pgd", "steps": PGD_STEPS[dataset]}),
    )


def _probes(fgsm: Budgets, pgd: Budgets) -> tuple[Probe, ...]:
    """The paper's two attacks, DeepFool in its own form and in ours, and beside them vanilla's FGSM images and PGD."""
    return (
        Probe("fgsm", fgsm),
        Probe("fgsm", (fgsm[-1],), source="vanilla"),
        Probe("deepfool:iters=5,box=none", price="costly"),
        Probe("deepfool:iters=50", price="costly"),
        Probe("pgd:steps=40", pgd, price="costly"),
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
        probes=(*_probes(budgets, budgets), Probe("autoattack", dear, price="dear")),
    )


def _against_attacks(scale: Scale, name: str, dataset: str, fgsm: Budgets, pgd: Budgets) -> Part:
    shown = _shown(scale, dataset)
    return Part(
        name=name,
        title=f"Accuracy on {shown} against FGSM's eps and DeepFool's iterations",
        source=f"Figure {name.removeprefix('fig')}",
        dataset=dataset,
        networks=_headline(scale, dataset, scale.seeds if dataset == "mnist" else 1),
        probes=_probes(fgsm, pgd),
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
        (Probe("fgsm", ("0.3",)), Probe("pgd:steps=40", ("0.1",), price="costly")),
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
    probes = (Probe("fgsm", ("0.4",)), Probe("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "fig5a",
        "The share k of the batch that is augmented",
        "Figure 5a, section 6.6",
        "mnist",
        (*networks,),
        probes,
        note,
    )


def _fig5b(scale: Scale, note: str) -> Part:
    networks = [
        _larger_eta(scale, method, f"{HEADLINE[method]}, eta x {multiple}", multiple, scale.ablation_epochs)
        for method in ("batchout", "gaussian")
        for multiple in MULTIPLES
    ]
    probes = (Probe("fgsm", ("0.1", "0.3")), Probe("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "fig5b",
        "BatchOut against Gaussian noise of similar magnitude",
        "Figure 5b, section 6.7",
        "mnist",
        (*networks,),
        probes,
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
    probes = (Probe("fgsm", ("0.1", "0.3", "0.4")), Probe("pgd:steps=40", ("0.1",), price="costly"))
    return Part(
        "stopgrad", "BatchOut with and without the stop-gradient", "section 6.1", "mnist", (*networks,), probes, note
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
