import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import ATTACKS, FGSM, PGD, DeepFool, UniformNoise, describe, parse_attack
from robustcli.attacks.norms import L2, Linf
from robustcli.config import Eps
from robustcli.errors import ConfigError


@pytest.mark.parametrize(
    ("spec", "attack"),
    [
        ("fgsm:eps=0.3", FGSM(0.3)),
        ("pgd:eps=8/255,steps=50", PGD("8/255", steps=50)),
        ("pgd: eps = 0.1 , norm = L2 ", PGD(0.1, norm=L2())),
        ("pgd:eps=.1,random_start=false,step_size=1/255", PGD(0.1, random_start=False, step_size="1/255")),
        ("deepfool", DeepFool()),
        ("deepfool:", DeepFool()),
        ("deepfool:iters=5,box=none,norm=inf,overshoot=1e-3", DeepFool(5, 1e-3, "none", Linf())),
        ("noise:eps=1,draws=7", UniformNoise(1, draws=7)),
    ],
)
def test_a_spec_is_the_attack_it_reads_as(spec, attack):
    assert parse_attack(spec) == attack


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pdg:eps=0.1", r"'pdg' is unknown \(allowed: .*\); did you mean 'pgd'\?"),
        ("", "'' is unknown"),
        ("pgd:eps=0.1,step=5", r"key 'step' is unknown \(allowed: .*steps.*\); did you mean 'steps'\?"),
        ("fgsm:eps=0.1,steps=5", "key 'steps' is unknown"),
        ("fgsm", "'eps' is missing"),
        ("pgd:steps=5", "'eps' is missing"),
        ("fgsm:eps=abc", "eps=abc: should be a finite number such as 0.3 or 8/255"),
        ("fgsm:eps=nan", "eps=nan: should be a finite number"),
        ("fgsm:eps=inf", "eps=inf: should be a finite number"),
        ("fgsm:eps=1e999", "eps=1e999: should be a finite number"),
        ("fgsm:eps=-0.1", "eps=-0.1: should be a number of at least 0"),
        ("fgsm:eps=8/0", "eps=8/0: should not divide by zero"),
        ("fgsm:eps=", "eps"),
        ("fgsm:eps", "'eps' should be KEY=VALUE, such as eps=0.1"),
        ("pgd:eps=0.1,steps=0", "steps=0: input should be greater than 0"),
        ("pgd:eps=0.1,steps=2.5", "steps=2.5: input should be a valid integer"),
        ("pgd:eps=0.1,early_stop=perhaps", "early_stop=perhaps: input should be a valid boolean"),
        ("pgd:eps=0.1,norm=l3", r"'l3' is unknown \(allowed: l1, l2, linf\)"),
        ("deepfool:box=foo", "box=foo: input should be 'project', 'clip' or 'none'"),
        ("deepfool:overshoot=-1", "overshoot=-1: input should be greater than or equal to 0"),
    ],
)
def test_a_bad_spec_is_one_line_that_names_the_mistake(spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_attack(spec)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(max_size=20) | st.builds("pgd:{}={}".format, st.text(max_size=6), st.text(max_size=12)))
def test_no_text_raises_anything_else(text):
    with contextlib.suppress(ConfigError):
        parse_attack(text)


def test_a_key_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'eps' is given twice"):
        parse_attack("fgsm:eps=0.1,eps=0.2")


def test_defaults_fill_only_what_the_spec_leaves_out():
    defaults = {"eps": Eps("0.3"), "steps": 7, "norm": "l2"}
    assert parse_attack("pgd:eps=0.1", defaults) == PGD(0.1, steps=7, norm=L2())


def test_defaults_that_the_attack_has_not_or_that_are_none_are_left_out():
    assert parse_attack("fgsm", {"eps": "0.3", "steps": 7, "iters": 5, "norm": None}) == FGSM(0.3)
    assert parse_attack("deepfool", {"eps": "0.3", "iters": 5}) == DeepFool(iters=5)


def test_a_budget_is_shown_as_it_was_written():
    assert describe(parse_attack("fgsm:eps=8/255"))["eps"] == "8/255"
    assert describe(parse_attack("fgsm:eps=0.30"))["eps"] == "0.30"
    assert parse_attack("fgsm:eps=8/255").eps == 8 / 255


budgets = st.sampled_from(["0", "8/255", "0.1", "1e-3", "2"])
named_norms = st.sampled_from(["linf", "l2"])
counts = st.integers(1, 100)


@given(
    st.builds(FGSM, eps=budgets, norm=named_norms)
    | st.builds(
        PGD,
        eps=budgets,
        norm=named_norms,
        steps=counts,
        step_size=st.none() | budgets,
        restarts=counts,
        random_start=st.booleans(),
        early_stop=st.booleans(),
    )
    | st.builds(DeepFool, norm=named_norms, iters=counts, box=st.sampled_from(["project", "clip", "none"]))
    | st.builds(UniformNoise, eps=budgets, norm=named_norms, draws=counts)
)
def test_a_described_attack_reads_back_as_itself(attack):
    parameters = describe(attack)
    name = parameters.pop("name")
    options = ",".join(f"{key}={value}" for key, value in parameters.items() if value is not None)
    read = parse_attack(f"{name}:{options}")
    assert read == attack
    assert describe(read) == describe(attack)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_its_name_and_its_summary(name):
    assert ATTACKS[name].name == name
    assert ATTACKS[name].summary[0].islower()
    assert not ATTACKS[name].summary.endswith(".")
