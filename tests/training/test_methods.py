"""The methods' options: what is refused and how, what is filled in, and what a method does to a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import FGSM, PGD
from robustcli.errors import ConfigError
from robustcli.fields import Eps, format_eta
from robustcli.models import MODELS, BatchOut, GaussianNoise, MnistCNN
from robustcli.testing import check_objective
from robustcli.training.methods import METHODS, describe_method, parse_method
from robustcli.training.objectives import standard

EPS = Eps("0.3")
AUGMENTING = ("batchout", "gaussian")
ADVERSARIAL = ("fgsm", "pgd")


def resolve(name, **options):
    return parse_method({"name": name} | options).resolve(MnistCNN, EPS)


def test_each_key_is_its_methods_own_name():
    assert {key: method.name for key, method in METHODS.items()} == {key: key for key in METHODS}
    assert all(method.summary for method in METHODS.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "batchot"}, r"--method 'batchot' is unknown \(allowed: .*\); did you mean 'batchout'"),
        ({}, "--method '' is unknown"),
        ({"name": "vanilla", "eta": 0.1}, r"--eta: method vanilla does not take it \(it takes no options\)$"),
        (
            {"name": "fgsm", "steps": 3},
            r"--steps: method fgsm does not take it \(it takes eps, fraction, craft, norm\)",
        ),
        (
            {"name": "batchout", "fractoin": 0.1},
            "--fractoin: method batchout does not take it .*did you mean 'fraction'",
        ),
        ({"name": "batchout", "eta": -0.1}, "eta=-0.1: should be a number of at least 0 or a range"),
        ({"name": "batchout", "eta": "U[0.2,0.1]"}, "eta=.*: should be a number of at least 0 or a range"),
        ({"name": "gaussian", "eta": [0.1, float("inf")]}, "eta=0.1,inf: should be a number"),
        ({"name": "batchout", "fraction": 1.01}, "fraction=1.01: input should be less than or equal to 1"),
        ({"name": "gaussian", "fraction": -0.1}, "fraction=-0.1: input should be greater than or equal to 0"),
        ({"name": "fgsm", "eps": -0.1}, "eps=-0.1: should be a number of at least 0"),
        ({"name": "fgsm", "craft": "test"}, "craft=test: input should be 'eval' or 'train'"),
        ({"name": "fgsm", "norm": "l7"}, "--norm 'l7' is unknown"),
        ({"name": "pgd", "steps": 0}, "steps=0: input should be greater than 0"),
        ({"name": "gaussian", "scale": "huge"}, "scale=huge: input should be 'matched' or 'printed'"),
        ({"name": "batchout", "stop_gradient": "perhaps"}, "stop_gradient=perhaps"),
    ],
)
def test_a_bad_option_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_method(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", AUGMENTING)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "c1,c3"}, r"--layers 'c3' is unknown \(allowed: c1, c2, f1\)"),
        ({"layers": ""}, "--layers '' is unknown"),
        ({"layers": "c1,c1"}, "--layers c1,c1: each slot may be named once"),
        ({"eta": "0.1,0.2"}, r"--eta has 2 values; should be 1 or 3, one a slot \(c1,c2,f1\)"),
        ({"eta": "0.1,0.2,0.3", "layers": "c1"}, r"--eta has 3 values; should be 1 or 1, one a slot \(c1\)"),
        ({"eta": []}, "--eta has 0 values; should be 1 or 3"),
    ],
)
def test_an_option_that_does_not_fit_the_network_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        resolve(name, **options)


@pytest.mark.parametrize("name", AUGMENTING)
@pytest.mark.parametrize(
    ("options", "layers", "eta"),
    [
        ({}, ("c1", "c2", "f1"), (0.05, 0.1, 0.1)),
        ({"layers": "c2,f1"}, ("c2", "f1"), (0.1, 0.1)),
        ({"layers": "f1,c1"}, ("f1", "c1"), (0.1, 0.05)),
        ({"layers": ["c1"]}, ("c1",), (0.05,)),
        ({"eta": 0.2}, ("c1", "c2", "f1"), (0.2, 0.2, 0.2)),
        ({"eta": "0.2,U[0,0.1],0.3"}, ("c1", "c2", "f1"), (0.2, (0.0, 0.1), 0.3)),
        ({"eta": "0.2,0.3", "layers": "f1,c1"}, ("f1", "c1"), (0.2, 0.3)),
        ({"eta": "U[0,0.15]", "layers": "c1,c2"}, ("c1", "c2"), ((0.0, 0.15),) * 2),
    ],
)
def test_open_options_take_the_papers_values_slot_by_slot(name, options, layers, eta):
    method = resolve(name, **options)
    assert (method.layers, method.eta) == (layers, eta)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_an_open_eps_takes_the_datas_budget_as_it_is_written(name):
    assert str(resolve(name).eps) == "0.3"
    assert str(resolve(name, eps="8/255").eps) == "8/255"
    assert resolve(name, eps=0).eps == 0, "0 is a budget, not an open option"
    assert str(resolve(name, norm="l2", eps="8").eps) == "8"


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": "8"}, r"--eps 8: is over 1, .*\(allowed: 0 to 1\); did you mean 8/255\?"),
        ({"eps": 300}, r"--eps 300: is over 1, .*\(allowed: 0 to 1\)$"),
        ({"norm": "l2"}, "method (fgsm|pgd): L2 has no usual budget; give --eps, such as 1.0"),
    ],
)
def test_a_budget_that_no_training_can_use_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        resolve(name, **options)


@pytest.mark.parametrize("name", METHODS)
def test_a_resolved_method_stays_as_it_is(name):
    method = resolve(name)
    assert method.resolve(MnistCNN, Eps("0.9")) == method


magnitudes = st.floats(0, 10)
etas = st.one_of(magnitudes, st.tuples(magnitudes, magnitudes).map(sorted).map(tuple).map(format_eta))
fractions = st.floats(0, 1)
eps = st.one_of(st.none(), st.floats(0, 1), st.just("8/255"))
slot_choices = st.one_of(st.none(), st.permutations(MnistCNN.slot_names).map(lambda names: names[:2]))
crafts = st.sampled_from(["eval", "train"])
norms = st.sampled_from(["linf", "l2"])


def with_a_budget(options):
    """L2 has no usual budget: with it, resolving needs an eps."""
    open_l2 = options.get("norm") == "l2" and options.get("eps") is None
    return options | {"eps": 1.5} if open_l2 else options


OPTIONS = {
    "vanilla": {},
    "fgsm": {"eps": eps, "fraction": fractions, "craft": crafts, "norm": norms},
    "pgd": {"eps": eps, "fraction": fractions, "craft": crafts, "norm": norms, "steps": st.integers(1, 50)},
    "batchout": {
        "eta": st.one_of(st.none(), etas),
        "fraction": fractions,
        "layers": slot_choices,
        "stop_gradient": st.booleans(),
    },
    "gaussian": {
        "eta": st.one_of(st.none(), etas),
        "fraction": fractions,
        "layers": slot_choices,
        "scale": st.sampled_from(["matched", "printed"]),
    },
}
described = st.sampled_from(sorted(METHODS)).flatmap(
    lambda name: st.fixed_dictionaries({"name": st.just(name)}, optional=OPTIONS[name])
)


@given(described)
def test_a_method_is_read_back_from_its_description_open_and_resolved(options):
    for value in (parse_method(options), parse_method(with_a_budget(options)).resolve(MnistCNN, EPS)):
        assert parse_method(describe_method(value)) == value


def test_vanilla_is_the_plain_objective_on_the_plain_network():
    recipe = resolve("vanilla").recipe()
    assert recipe.objective is standard
    assert (recipe.filling, recipe.attack, recipe.fraction) == ({}, None, 0)


@pytest.mark.parametrize(("name", "fraction"), [("fgsm", 0.5), ("pgd", 1.0)])
def test_an_adversarial_recipe_names_its_attack_and_share(name, fraction):
    recipe = resolve(name, norm="l2", eps="0.7").recipe()
    assert isinstance(recipe.attack, {"fgsm": FGSM, "pgd": PGD}[name])
    assert (str(recipe.attack.eps), recipe.attack.norm.label) == ("0.7", "L2")
    assert recipe.fraction == fraction
    assert recipe.filling == {}


def test_pgd_training_takes_all_its_steps():
    attack = resolve("pgd", steps=7, step_size="2/255").recipe().attack
    assert (attack.steps, str(attack.step_size), attack.early_stop, attack.random_start) == (7, "2/255", False, True)


@pytest.mark.parametrize(("name", "layer"), [("batchout", BatchOut), ("gaussian", GaussianNoise)])
def test_an_augmenting_recipe_fills_the_slots_with_its_options(name, layer):
    recipe = resolve(name, layers="f1,c1", fraction=0.25).recipe()
    assert recipe.objective is standard
    assert recipe.attack is None
    assert {slot: (type(filled), filled.eta, filled.fraction) for slot, filled in recipe.filling.items()} == {
        "f1": (layer, 0.1, 0.25),
        "c1": (layer, 0.05, 0.25),
    }
    assert recipe.filling["f1"] is not recipe.filling["c1"]


def test_what_only_one_method_knows_reaches_its_layer():
    assert resolve("batchout", stop_gradient=False).recipe().filling["c1"].stop_gradient is False
    assert resolve("gaussian", scale="printed").recipe().filling["c1"].scale == "printed"


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_objective_keeps_the_contract(name):
    check_objective(resolve(name).recipe().objective)


@pytest.mark.parametrize("network", MODELS.values())
@pytest.mark.parametrize("name", AUGMENTING)
def test_every_network_has_an_eta_for_each_of_its_slots(network, name):
    method = parse_method({"name": name}).resolve(network, EPS)
    assert method.layers == network.slot_names
    assert method.eta == network.paper_eta
