"""Attacks that want a certain class."""

from dataclasses import replace

import pytest
import torch

from robustcli.attacks import APGD, FGSM, FMN, MIFGSM, PGD, CarliniWagner, Square, describe, label, parse_attack
from robustcli.attacks.targets import target_classes
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import AttackError, ConfigError
from robustcli.noise import Noise
from robustcli.testing import check_attack

from .conftest import random_linear

attacks = pytest.mark.parametrize("attack", [FGSM, PGD, APGD, MIFGSM])


@pytest.fixture
def task():
    """A linear model of four classes, and 12 images that it gets right."""
    model, ids = random_linear(4), torch.arange(12)
    x = Noise(0, ids).uniform(torch.empty(12, 1, 8, 8, dtype=torch.float64)) / 2 + 0.25
    return model, Samples(x, model(x).argmax(1), ids)


def test_the_wanted_class_is_never_the_own_one(task):
    model, samples = task
    noise = Noise(0, samples.ids)
    for target in ("least-likely", "random", 0, 1, 2, 3):
        assert (target_classes(target, model, samples.x, samples.y, noise) != samples.y).all()
    assert torch.equal(target_classes("least-likely", model, samples.x, samples.y, noise), model(samples.x).argmin(1))
    named = target_classes(2, model, samples.x, samples.y, noise)
    assert (named[samples.y != 2] == 2).all()


def test_random_targets_are_keyed_by_the_sample_and_reach_every_class(task):
    model, samples = task
    noise = Noise(0, samples.ids)
    whole = target_classes("random", model, samples.x, samples.y, noise)
    alone = [
        target_classes("random", model, samples.x[i : i + 1], samples.y[i : i + 1], noise[i : i + 1]) for i in range(12)
    ]
    assert torch.equal(torch.cat(alone), whole)
    assert len(set(whole.tolist())) > 2


@attacks
@pytest.mark.parametrize("target", ["least-likely", "random", 1])
def test_a_targeted_attack_reaches_its_class_where_the_budget_allows(task, attack, target):
    model, samples = task
    options = {} if attack is FGSM else {"steps": 20}
    outcome = run_attack(model, attack(0.25, target=target, **options), samples)[0]
    noise = Noise(0, samples.ids).stream(attack.name)
    aim = target_classes(
        target, model, samples.x, samples.y, noise if attack in (FGSM, MIFGSM) else noise.stream("attempt 0")
    )
    assert (outcome.pred_after == aim).float().mean() > 0.6
    assert not outcome.robust.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_reaches_its_class_by_scores_alone(task, norm):
    model, samples = task
    attack = Square({"linf": 0.25, "l2": 2}[norm], queries=400, norm=norm, target="least-likely")
    outcome = run_attack(model, attack, samples)[0]
    aim = target_classes("least-likely", model, samples.x, samples.y, Noise(0, samples.ids))
    reached = outcome.pred_after == aim
    assert reached.float().mean() > 0.6
    # Those that end in another class were not left alone as soon as they were there.
    plain = run_attack(model, replace(attack, target=None), samples)[0]
    assert outcome.forwards > plain.forwards
    check_attack(replace(attack, eps=0.1, queries=20, target="random"), weak=True)


@pytest.mark.parametrize("attack", [FMN(30, norm="l2"), CarliniWagner(60, 4, lr=0.05, initial_const=1)])
@pytest.mark.parametrize("target", ["least-likely", "random", 1])
def test_a_minimal_attack_with_a_target_finds_that_class_farther_away(task, attack, target):
    model, samples = task
    free, bound = (run_attack(model, replace(attack, target=goal), samples)[0] for goal in (None, target))
    aim = target_classes(target, model, samples.x, samples.y, Noise(0, samples.ids).stream(attack.name))
    assert torch.equal(bound.pred_after, aim)
    assert (bound.distance >= 0.99 * free.distance).all()
    assert target == 1 or (bound.distance > 1.01 * free.distance).any()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_goes_on_behind_other_classes_until_it_is_there(task, loss):
    model, samples = task
    aim = target_classes("least-likely", model, samples.x, samples.y, Noise(0, samples.ids))
    x_adv = APGD(0.25, steps=30, loss=loss).ascend(model, samples.x, samples.x, samples.y, aim)
    assert torch.equal(model(x_adv).argmax(1), aim)


@attacks
@pytest.mark.parametrize("target", ["random", 0])
def test_a_targeted_attack_keeps_the_contract(attack, target):
    check_attack(attack(0.1, target=target, **({} if attack is FGSM else {"steps": 10})))


def test_a_class_that_the_model_has_not_is_named(task):
    with pytest.raises(AttackError, match="target=9: the model has the classes 0 to 3"):
        run_attack(task[0], FGSM(0.1, target=9), task[1])


@pytest.mark.parametrize(("text", "target"), [("3", 3), ("random", "random"), ("least-likely", "least-likely")])
def test_a_target_is_shown_where_there_is_one(text, target):
    attack = parse_attack(f"pgd:eps=0.1,target={text}")
    assert attack.target == target
    assert describe(attack)["target"] == target
    assert label(attack) == f"pgd:steps=20,target={text}"
    assert "target" not in describe(parse_attack("pgd:eps=0.1"))


@pytest.mark.parametrize("text", ["-1", "most-likely", "1.5"])
def test_a_bad_target_is_one_line(text):
    with pytest.raises(ConfigError, match=f"target={text}: "):
        parse_attack(f"pgd:eps=0.1,target={text}")
