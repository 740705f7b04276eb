import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import (
    ATTACKS,
    FAB,
    FABT,
    FGSM,
    FMN,
    PGD,
    Bisection,
    CarliniWagner,
    DeepFool,
    UniformNoise,
    attack_from,
    describe,
    label,
    parse_attack,
)
from robustcli.attacks.base import Attack, BudgetAttack, Ensemble
from robustcli.attacks.norms import L2, Linf
from robustcli.errors import ConfigError
from robustcli.fields import Eps


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
        ("fmn:iters=50,norm=l1,gamma=0.1", FMN(50, gamma=0.1, norm="l1")),
        ("fab:targets=3,restarts=2", FAB(restarts=2, targets=3)),
        ("fab-t:eps=8/255", FABT("8/255")),
        ("cw:steps=100,lr=1/100,confidence=1", CarliniWagner(100, lr=0.01, confidence=1)),
        ("cw:norm=2", CarliniWagner()),
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
        ("cw:norm=linf", "norm=linf: should be l2: the attack is made for it"),
        ("cw:lr=0", "lr=0: input should be greater than 0"),
        ("fmn:gamma=2", "gamma=2: input should be less than or equal to 1"),
        ("fab:eps=0.1", "key 'eps' is unknown"),
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


def test_a_bisected_attack_is_described_and_labelled_with_what_it_bisects():
    attack = Bisection(PGD(eps="8/255", steps=7), steps=4)
    assert describe(attack) == {"name": "bisect", "attack": describe(attack.attack), "steps": 4}
    assert label(attack) == "bisect:pgd:steps=7"


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_its_name_and_its_summary(name):
    assert ATTACKS[name].name == name
    assert ATTACKS[name].summary[0].islower()
    assert not ATTACKS[name].summary.endswith(".")


OPTIONS = {
    *("fgsm", "fgsm:eot=3", "mifgsm:steps=3,decay=0.5", "pgd:steps=7,step_size=1/255,restarts=2,random_start=false"),
    *("apgd:steps=9,restarts=2,loss=dlr", "apgd-t:steps=9", "deepfool:iters=7,overshoot=0.1,box=clip"),
    *("fmn:iters=9,step_size=0.5,gamma=1e-2", "fab:restarts=2,targets=3,eta=1.1", "fab-t:restarts=2"),
    *("cw:steps=9,lr=0.1,abort_early=false", "square:queries=9", "autoattack:rounds=2,queries=9,version=rand"),
    *("hopskipjump:iters=9", "noise:draws=7"),
}


def in_every_norm(spec: str) -> list[Attack]:
    """The attack in each norm that it has."""
    attacks = []
    for norm in ("linf", "l2", "l1"):
        with contextlib.suppress(ConfigError):
            attacks.append(parse_attack(spec, {"norm": norm, "eps": "8/255"}))
    return attacks


@pytest.mark.parametrize("spec", sorted(OPTIONS | ATTACKS.keys()))
def test_an_attack_is_made_again_of_its_description_and_of_the_spec_that_it_spells(spec: str) -> None:
    """Also where the budget stands apart, as in a row, and where the budget is looked for."""
    assert in_every_norm(spec)
    for attack in in_every_norm(spec):
        described = json.loads(json.dumps(describe(attack)))
        assert attack_from(described) == attack
        again = attack_from({key: value for key, value in described.items() if key != "eps"}, described.get("eps"))
        assert again == attack
        assert str(getattr(again, "eps", None)) == str(described.get("eps"))
        options = [f"{key}={value}" for key, value in described.items() if key != "name" and value is not None]
        assert describe(parse_attack(f"{attack.name}:{','.join(options)}")) == describe(attack)
        if isinstance(attack, BudgetAttack) and not isinstance(attack, Ensemble):
            bisected = Bisection(attack, steps=9)
            assert attack_from(json.loads(json.dumps(describe(bisected)))) == bisected


def test_every_attack_is_among_them() -> None:
    assert {spec.partition(":")[0] for spec in OPTIONS} == ATTACKS.keys()


@pytest.mark.parametrize(
    "odd",
    [
        *[{}, {"name": "pdg"}, {"name": "fgsm"}, {"name": "fgsm", "eps": "x"}],
        {"name": "pgd", "eps": "0.1", "norm": "linf", "stops": 1},
    ],
    ids=str,
)
def test_what_describes_no_attack_is_a_config_error(odd: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        attack_from(odd)
