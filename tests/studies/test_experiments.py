"""What the study asks for: each network under one name with one spec, one recipe a data set, attacks that parse."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from robustcli.attacks import parse_attack
from robustcli.config import TrainSpec
from robustcli.data.named import DATASETS, SAMPLE
from robustcli.models import MODELS
from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.experiments import (
    FULL,
    HEADLINE,
    OTHER_EPOCHS,
    QUICK,
    RECIPES,
    Network,
    Scale,
    parts,
    resolve,
)
from robustcli.studies.batchout.paper_figures import DRAW
from robustcli.training.train import prepare

SCALES = [FULL, QUICK, replace(FULL, seeds=1), replace(FULL, ablation_epochs=12)]


def networks(scale: Scale) -> list[Network]:
    return [network for part in parts(scale).values() for network in part.networks]


def test_every_part_has_a_name_and_a_way_to_be_drawn() -> None:
    assert tuple(parts(FULL)) == tuple(parts(QUICK)) == PARTS
    assert DRAW.keys() == set(PARTS)


@pytest.mark.parametrize("scale", SCALES)
def test_networks_of_one_name_are_one_network(scale: Scale) -> None:
    specs: dict[str, TrainSpec] = {}
    for network in networks(scale):
        assert specs.setdefault(network.name, network.spec) == network.spec


@pytest.mark.parametrize("scale", SCALES)
def test_no_network_is_trained_twice_under_two_names(scale: Scale) -> None:
    found = {(network.name, network.spec.model_dump_json()) for network in networks(scale)}
    assert len({name for name, _ in found}) == len({spec for _, spec in found}) == len(found)


@pytest.mark.parametrize("scale", SCALES)
def test_a_part_has_a_network_once_and_a_label_and_seed_once(scale: Scale) -> None:
    for part in parts(scale).values():
        assert len({network.name for network in part.networks}) == len(part.networks)
        assert len({(network.label, network.spec.seed) for network in part.networks}) == len(part.networks)


@pytest.mark.parametrize("scale", SCALES)
def test_all_methods_of_a_data_set_share_one_recipe(scale: Scale) -> None:
    own = {"method", "seed", "epochs"}
    for dataset in (scale.mnist, "cifar10"):
        recipes = [network.spec.as_dict() for network in networks(scale) if network.spec.dataset == dataset]
        assert len({tuple((key, spec[key]) for key in spec if key not in own) for spec in recipes}) == 1


def test_the_recipe_is_what_the_study_says() -> None:
    for network in networks(FULL):
        spec = network.spec.as_dict()
        recipe = RECIPES[network.spec.dataset]
        assert {key: spec[key] for key in recipe if key != "epochs"} == {
            key: value for key, value in recipe.items() if key != "epochs"
        }


@pytest.mark.parametrize("dataset", RECIPES)
def test_headline_networks_train_for_the_recipes_epochs_or_the_methods_own(dataset: str) -> None:
    epochs = {network.name: network.spec.epochs for network in parts(FULL)[dataset].networks}
    other = {name: count for name, count in epochs.items() if count != RECIPES[dataset]["epochs"]}
    own = {f"{name}-{method}-seed0": count for (name, method), count in OTHER_EPOCHS.items() if name == dataset}
    assert other == own


def test_an_ablations_name_carries_its_epochs() -> None:
    for name in ("fig4b", "fig5a", "fig5b", "stopgrad"):
        for network in parts(FULL)[name].networks:
            assert network.spec.epochs == FULL.ablation_epochs
            assert f"-{FULL.ablation_epochs}epochs-seed{network.spec.seed}" in network.name


def test_an_ablation_as_long_as_its_recipe_is_the_headline_network() -> None:
    study = parts(replace(FULL, ablation_epochs=RECIPES["mnist"]["epochs"]))
    names = [network.name for part in study.values() for network in part.networks]
    assert not [name for name in names if name.startswith("mnist") and "epochs" in name]
    headline = {network.name for network in study["mnist"].networks}
    assert {network.name for network in study["stopgrad"].networks if network.label.startswith("with the")} <= headline


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_seeds_are_of_the_papers_networks_on_mnist_and_of_the_stop_gradient(seeds: int) -> None:
    study = parts(replace(FULL, seeds=seeds))
    found = {
        name: {
            label: [network.spec.seed for network in part.networks if network.label == label]
            for label in dict.fromkeys(network.label for network in part.networks)
        }
        for name, part in study.items()
    }
    several = list(range(seeds))
    for label in ("vanilla", "FGSM-trained", "BatchOut"):
        assert found["mnist"][label] == found["fig2"][label] == several
    assert found["stopgrad"] == {"with the stop-gradient": several, "without it": several}
    others = [seen for name in PARTS if name not in ("mnist", "fig2", "stopgrad") for seen in found[name].values()]
    single = [found["mnist"]["Gaussian"], found["fig2"]["Gaussian"], found["mnist"]["PGD-trained"]]
    assert all(seen == [0] for seen in [*others, *single])


@pytest.mark.parametrize("scale", SCALES)
def test_every_attack_parses_and_none_is_met_twice(scale: Scale) -> None:
    for part in parts(scale).values():
        met = [
            (attack.source, parse_attack(attack.attack, {"eps": eps}))
            for attack in part.attacks
            for eps in attack.eps or (None,)
        ]
        assert len(set(met)) == len(met)


def test_images_of_vanilla_are_asked_of_the_others_at_the_largest_budget_of_fgsm() -> None:
    study = parts(FULL)
    for name in ("mnist", "fig2", "cifar10", "fig3"):
        (found,) = [attack for attack in study[name].attacks if attack.source is not None]
        assert (found.attack, found.source, found.price) == ("fgsm", "vanilla", "cheap")
        assert found.eps == (study[name].attacks[0].eps[-1],)
        assert study[name].networks[0].label == "vanilla", "it is trained before it is needed"
    others = [part for name, part in study.items() if name not in ("mnist", "fig2", "cifar10", "fig3")]
    assert not [attack for part in others for attack in part.attacks if attack.source]


@pytest.mark.parametrize("scale", SCALES)
def test_iterative_attacks_are_the_costly_ones_and_autoattack_is_dear(scale: Scale) -> None:
    for attack in itertools.chain.from_iterable(part.attacks for part in parts(scale).values()):
        assert attack.price == {"fgsm": "cheap", "autoattack": "dear"}.get(attack.attack.partition(":")[0], "costly")


def test_the_tables_of_clean_accuracy_have_autoattack_beside_pgd() -> None:
    for name, eps in (("mnist", ("0.1", "0.3")), ("cifar10", ("8/255",))):
        pgd, autoattack = parts(FULL)[name].attacks[-2:]
        assert (pgd.attack, autoattack.attack, autoattack.eps) == ("pgd:steps=40", "autoattack", eps)


def test_a_parts_networks_need_the_data_set_that_it_names() -> None:
    for scale, name in ((FULL, "mnist"), (QUICK, SAMPLE)):
        for part in parts(scale).values():
            expected = {"mnist": {name}, "cifar10": {"cifar10"}, None: set()}[part.dataset]
            assert {network.spec.dataset for network in part.networks} == expected


def test_specs_are_resolved_as_a_run_resolves_them() -> None:
    """Else a finished checkpoint would not be recognised."""
    for network in {network.name: network for network in networks(replace(QUICK, limit=8))}.values():
        if network.spec.dataset == SAMPLE:
            assert prepare(network.spec, device="cpu").job.spec == network.spec


def test_resolving_decides_every_option_and_is_idempotent() -> None:
    for network in networks(FULL):
        assert resolve(network.spec) == network.spec
        open_options = {key for key, value in network.spec.method.items() if value is None}
        assert open_options <= {"step_size"}, "PGD's follows from eps and steps"
        slots = MODELS[network.spec.model or ""].slot_names
        assert set(network.spec.method.get("layers", slots)) <= set(slots)


def test_the_figures_networks_differ_in_what_the_figure_is_about() -> None:
    study = parts(FULL)
    methods = {network.label: network.spec.method for network in study["fig4b"].networks}
    assert methods["none"]["name"] == "vanilla"
    assert list(methods["c1+f1"]["layers"]) == ["c1", "f1"]
    assert list(methods["all"]["layers"]) == ["c1", "c2", "f1"]
    shares = {network.label: network.spec.method.get("fraction") for network in study["fig5a"].networks}
    assert shares == {"k = 0": None, "k = 0.25": 0.25, "k = 0.5": 0.5, "k = 0.75": 0.75, "k = 1": 1.0}
    eta = {network.label: network.spec.method["eta"] for network in study["fig5b"].networks}
    for method in (HEADLINE["batchout"], HEADLINE["gaussian"]):
        first = eta[f"{method}, eta x 1"]
        assert list(eta[f"{method}, eta x 10"]) == pytest.approx([10 * one for one in first])
    stop = {network.label: network.spec.method["stop_gradient"] for network in study["stopgrad"].networks}
    assert stop == {"with the stop-gradient": True, "without it": False}


def test_a_quick_look_is_small_and_says_so() -> None:
    assert QUICK.quick
    assert not FULL.quick
    assert (FULL.limit, FULL.n, FULL.epochs) == (None, None, None)
    assert all(network.spec.limit == QUICK.limit for network in networks(QUICK))
    assert DATASETS[QUICK.mnist].torchvision is None, "bundled"
