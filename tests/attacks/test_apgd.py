"""What auto-PGD promises beyond the contract."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from robustcli.attacks import APGD, APGDT
from robustcli.attacks.apgd import Ascent, SparseSteps, StepHalving, random_start
from robustcli.attacks.losses import cross_entropy, is_right
from robustcli.attacks.norms import L1, NORMS, Linf
from robustcli.engine.guard import Meter
from robustcli.engine.run import run_attack
from robustcli.noise import Noise
from robustcli.testing import check_attack

EPS = {"linf": 0.05, "l2": 0.3, "l1": 1.5}
norms = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


@pytest.fixture
def right(trained):
    net, samples = trained
    return net, samples[is_right(net(samples.x), samples.y).nonzero()[:, 0]]


def raised(logits, y, target):
    return cross_entropy(logits, y)


def test_checkpoints_are_those_of_the_paper():
    assert list(StepHalving.checkpoints(100))[:8] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(SparseSteps.checkpoints(50)) == list(range(2, 51, 2))


@pytest.mark.parametrize("rule", [StepHalving, SparseSteps])
@pytest.mark.parametrize("steps", [1, 2, 5, 17])
def test_any_number_of_steps_has_checkpoints(rule, steps):
    found = list(rule.checkpoints(steps))
    assert found == sorted(set(found))
    assert found[0] >= 1


@norms
def test_no_run_ends_below_its_start(right, norm):
    net, samples = right
    eps = EPS[norm.name]
    start = norm.confine(random_start(norm, eps, samples.x, Noise(0, samples.ids)), samples.x, eps)
    ascent = Ascent(raised, norm, eps, 12, early_stop=False)
    end = ascent.run(net, start, samples.x, samples.y, samples.y)
    gain = cross_entropy(net(end), samples.y) - cross_entropy(net(start), samples.y)
    assert (gain >= 0).all()
    assert gain.mean() > 0.1


def test_more_steps_from_one_start_never_end_lower(right):
    # The first checkpoints of 100 and of 101 steps are the same, so one run is the other's beginning.
    net, samples = right
    losses = []
    for steps in (100, 101):
        ascent = Ascent(raised, Linf(), 0.05, steps, early_stop=False)
        losses.append(cross_entropy(net(ascent.run(net, samples.x, samples.x, samples.y, samples.y)), samples.y))
    assert (losses[1] >= losses[0]).all()


@pytest.mark.parametrize("eot", [1, 3])
def test_a_sample_that_stands_gets_every_step_and_no_more(right, eot):
    net, samples = right
    meter = Meter(net)
    attack = APGD(1e-6, steps=7, eot=eot)
    x_adv = attack.ascend(meter, samples.x, samples.x, samples.y)
    assert is_right(net(x_adv), samples.y).all()
    assert meter.forwards == len(samples) * 8 * eot
    assert meter.backwards == len(samples) * 7 * eot


def test_a_broken_sample_gets_no_further_step(right):
    net, samples = right
    meter = Meter(net)
    start = APGD(0.9, steps=50).ascend(net, samples.x, samples.x, samples.y)
    assert not is_right(net(start), samples.y).any()
    x_adv = APGD(0.9, steps=50).ascend(meter, start, samples.x, samples.y)
    assert torch.allclose(x_adv, start, rtol=0, atol=1e-15)
    assert meter.forwards == len(samples)


@norms
@pytest.mark.parametrize("attack", [APGD, APGDT])
def test_dropping_broken_samples_changes_no_flag(right, attack, norm):
    net, samples = right
    attack = attack(EPS[norm.name], steps=10, norm=norm)
    start = random_start(norm, attack.eps, samples.x, Noise(0, samples.ids))
    together = is_right(net(attack.ascend(net, start, samples.x, samples.y)), samples.y)
    alone = []
    for i in range(len(samples)):
        one = slice(i, i + 1)
        alone.append(is_right(net(attack.ascend(net, start[one], samples.x[one], samples.y[one])), samples.y[one]))
    assert torch.equal(torch.cat(alone), together)
    assert 0 < int(together.sum()) < len(samples)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_targets_are_the_wrong_classes_at_most(classes):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes)).double().requires_grad_(False)
    x = Noise(0, torch.arange(4)).uniform(torch.empty(4, 1, 8, 8, dtype=torch.float64))
    y = model(x).argmax(1)
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    APGDT(1e-9, steps=2).perturb(model, x, y, Noise(0, torch.arange(4)))
    ranks = min(9, classes - 1)
    # A run ranks the classes, looks at its start and takes two steps; all but the last are judged.
    assert sum(seen) == 1 + 4 * (ranks * 4 + ranks - 1)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_two_classes_are_enough_for_every_loss(loss):
    weight = torch.stack((torch.ones(64), -torch.ones(64))).double()
    x = torch.full((2, 1, 8, 8), 0.52).double()

    def model(x):
        return (x.flatten(1) - 0.5) @ weight.T

    x_adv = APGD(0.05, steps=5, loss=loss).perturb(model, x, torch.zeros(2).long(), Noise(0, torch.arange(2)))
    assert not is_right(model(x_adv), torch.zeros(2).long()).any()


def test_l1_starts_in_a_ball_of_three_eps():
    x = torch.full((3, 1, 8, 8), 0.5)
    start = random_start(L1(), 2.0, x, Noise(0, torch.arange(3)))
    assert torch.allclose(L1().distance(start, x), torch.full((3,), 6.0))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_l1_takes_few_steps_too(net, samples, steps):
    outcome = run_attack(net, APGD(1.0, steps=steps, norm=L1()), samples)[0]
    assert outcome.robust.sum() <= outcome.clean.sum()


def test_what_is_broken_in_a_larger_ball_is_not_broken_yet():
    weight = torch.zeros(64, 2).double()
    weight[:, 1] = 1 / 64

    def model(x):
        return (x.flatten(1) - 0.5) @ weight - torch.tensor([0.0, 1.5 / 64])

    x = torch.full((1, 1, 8, 8), 0.5).double()
    outcome = is_right(
        model(APGD(1.0, steps=10, norm=L1()).perturb(model, x, torch.zeros(1).long(), Noise(0, torch.arange(1)))),
        torch.zeros(1).long(),
    )
    assert outcome.all()  # the boundary is at 1.5, inside the first balls of 3 and 2


def test_a_run_from_a_given_start_takes_it(right):
    net, samples = right
    seen = []

    def model(x):
        seen.append(x)
        return net(x)

    start = Linf().spread(samples.x, 0.02, Noise(7, samples.ids)).clamp(0, 1)
    partial(APGD(0.02, steps=1).ascend, model)(start, samples.x, samples.y)
    assert torch.allclose(seen[0], start, rtol=0, atol=1e-15)


def test_steps_that_are_halved_for_all_at_once_fail_the_contract(monkeypatch):
    # The mistake to make when a batch has one step size: a sample's result depends on those beside it.
    honest = StepHalving.adapt

    def coupled(self, state, longest):
        adapted = honest(self, state, longest)
        return replace(adapted, step=adapted.step.min().expand_as(adapted.step).clone())

    check_attack(APGD(0.05, steps=15))
    monkeypatch.setattr(StepHalving, "adapt", coupled)
    with pytest.raises(AssertionError, match="depends on the batch"):
        check_attack(APGD(0.05, steps=15))
