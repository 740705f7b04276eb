import pytest

from robustcli.attacks import ATTACKS, Bisection, parse_attack
from robustcli.attacks.base import norms
from robustcli.testing import check_attack
from robustcli.testing.effort import WEAK, small_attack


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in ATTACKS for norm in norms(ATTACKS[name])])
def test_every_attack_keeps_the_contract_in_every_norm(name, norm):
    check_attack(small_attack(name, norm), weak=name in WEAK)


@pytest.mark.parametrize(
    "spec",
    [
        "deepfool:box=clip",
        "deepfool:box=none",
        "deepfool:box=clip,norm=linf",
        "deepfool:box=none,norm=linf",
        "deepfool:overshoot=0",
        "deepfool:iters=1,overshoot=0.5",
        "pgd:eps=0.3,steps=1,random_start=false,step_size=0.3",
        "pgd:eps=0.1,restarts=3,early_stop=false",
        "pgd:eps=1.5,norm=l2,restarts=2",
        "pgd:eps=0.3,norm=l1,restarts=2",
        "deepfool:box=clip,norm=l1",
        "fgsm:eps=0.3",
        "fmn:iters=15,step_size=0.3,gamma=0.2",
        "fab:iters=3,restarts=2,targets=1",
        "fab-t:eps=0.5,iters=3,restarts=2,norm=l2",
        "fab:iters=3,alpha_max=0.5,beta=0.5,eta=1.02,norm=l1",
        "apgd:eps=0.1,steps=3,loss=dlr,restarts=2",
        "apgd:eps=0.2,steps=5,norm=l1,loss=dlr",
        "apgd:eps=0.1,steps=2,eot=2",
        "apgd-t:eps=0.1,steps=2,targets=9,restarts=2",
        "autoattack:eps=0.1,rounds=2,version=rand",
        "pgd:eps=0.1,steps=3,eot=2",
        "fgsm:eps=0.1,eot=2",
        "mifgsm:eps=0.1,steps=3,decay=0.5",
        "mifgsm:eps=0.1,step_size=0.05,decay=0,early_stop=false",
    ],
)
def test_every_option_keeps_the_contract(spec):
    check_attack(parse_attack(spec))


@pytest.mark.parametrize("attack", ["pgd:eps=0.1,steps=2", "fgsm:eps=4,norm=l2"])
def test_a_bisected_attack_keeps_the_contract(attack):
    check_attack(Bisection(parse_attack(attack)))


@pytest.mark.parametrize(
    "spec",
    [
        "cw:steps=9,lr=0.1,initial_const=1,abort_early=false,confidence=0.5,binary_search_steps=2",
        "cw:steps=9,lr=0.1,initial_const=1,binary_search_steps=1",
        "noise:eps=0.3,draws=5",
        "square:eps=0.1,queries=1",
        "square:eps=0.1,queries=40,restarts=3,p_init=1",
        "square:eps=0.5,queries=40,restarts=2,norm=l2,p_init=0.05",
        "hopskipjump:iters=1,directions=1,tries=1",
        "hopskipjump:iters=2,directions=130,norm=linf",
    ],
)
def test_options_of_weak_attacks_keep_the_contract(spec):
    check_attack(parse_attack(spec), weak=True)


@pytest.mark.parametrize("spec", ["fgsm:eps=0", "fgsm:eps=0.31", "pgd:norm=l2,eps=2"])
def test_a_budget_that_the_check_cannot_judge_is_refused(spec):
    with pytest.raises(ValueError, match="should be above 0 and at most"):
        check_attack(parse_attack(spec))
