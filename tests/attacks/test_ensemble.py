"""AutoAttack, and what the driver promises of any ensemble."""

from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import pytest
import torch
from torch import nn

from robustcli.attacks import APGD, APGDT, FABT, FGSM, AutoAttack, Square, label, parse_attack
from robustcli.attacks.base import Ensemble, survivors
from robustcli.attacks.losses import is_right
from robustcli.attacks.norms import L1, L2, NORMS, Linf, Norm
from robustcli.engine.run import Samples, run_attack, stream_attack
from robustcli.errors import AttackError
from robustcli.noise import Noise
from robustcli.testing import check_attack

from .conftest import random_linear

norms = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
EPS = {"linf": 0.04, "l2": 0.25, "l1": 1.5}


@dataclass(frozen=True)
class Pair:
    """An ensemble of any members."""

    members: tuple
    eps: float = 0.1
    norm: Norm = field(default_factory=Linf)
    name: ClassVar[str] = "pair"
    summary: ClassVar[str] = "an ensemble"
    kind, needs, losses, weak, parameter_free, cost = "ensemble", "gradients", ("cross-entropy",), False, False, 4

    def perturb(self, model, x, y, noise):
        return survivors([member.perturb for member in self.members], model, x, y, noise)


@dataclass(frozen=True)
class TooFar:
    eps: float = 0.1
    norm: Norm = field(default_factory=Linf)
    name: ClassVar[str] = "too-far"
    summary: ClassVar[str] = "leaves its ball"
    kind, needs, losses, weak, parameter_free, cost = "budget", "decisions", (), True, False, 1

    def perturb(self, model, x, y, noise):
        return (x + 1.1 * self.eps).clamp(0, 1)


def small(norm, **options):
    return AutoAttack(EPS[norm.name], rounds=3, queries=20, norm=norm, **options)


def test_the_standard_is_that_of_the_authors():
    for norm in (Linf(), L2()):
        assert AutoAttack(0.1, norm=norm).members == (
            APGD(0.1, steps=100, restarts=1, loss="ce", norm=norm),
            APGDT(0.1, steps=100, restarts=1, targets=9, norm=norm),
            FABT(0.1, iters=100, restarts=1, targets=9, norm=norm),
            Square(0.1, queries=5000, norm=norm),
        )


def test_in_l1_there_are_more_restarts_fewer_targets_and_no_square():
    assert AutoAttack(8.0, norm=L1()).members == (
        APGD(8.0, steps=100, restarts=5, norm=L1()),
        APGDT(8.0, steps=100, targets=5, norm=L1()),
        FABT(8.0, iters=100, norm=L1()),
    )


def test_rand_averages_over_20_passes():
    members = AutoAttack(0.1, version="rand").members
    assert members == (APGD(0.1, eot=20), APGD(0.1, loss="dlr", eot=20))
    assert [member.eot for member in AutoAttack(0.1, version="rand", eot=3).members] == [3, 3]


def test_its_label_is_its_name_unless_it_was_changed():
    assert label(AutoAttack(0.1)) == "autoattack"
    assert label(parse_attack("autoattack:eps=0.1,version=rand,rounds=50")) == "autoattack:version=rand,rounds=50"


@norms
def test_a_members_flags_depend_neither_on_its_place_nor_on_the_others(trained, norm):
    # So that the worst case is the same in any order, and running one only where the others failed loses nothing.
    net, samples = trained
    ensemble = small(norm)
    noise = Noise(0, samples.ids).stream(ensemble.name)
    left = is_right(net(samples.x), samples.y)
    for i, member in enumerate(ensemble.members):
        x_adv = member.perturb(net, samples.x, samples.y, noise.stream(f"attempt {i}"))
        left &= is_right(net(x_adv), samples.y)
    outcomes = run_attack(net, ensemble, samples, batch_size=7)
    assert torch.equal(outcomes[-1].robust, left)
    assert 0 < int(left.sum()) < len(samples)


@norms
def test_the_driver_and_perturb_find_the_same(trained, norm):
    net, samples = trained
    ensemble = small(norm)
    outcome = run_attack(net, ensemble, samples, keep_images=True)[-1]
    right = samples[outcome.clean.nonzero()[:, 0]]
    x_adv = ensemble.perturb(net, right.x, right.y, Noise(0, right.ids).stream(ensemble.name))
    assert torch.equal(is_right(net(x_adv), right.y), outcome.robust[outcome.clean])


def test_each_member_has_a_row_and_the_worst_case_comes_last(trained):
    net, samples = trained
    ensemble = small(Linf())
    outcomes = run_attack(net, ensemble, samples, budgets=[0.02, 0.05])
    assert [outcome.attack.name for outcome in outcomes] == ["apgd", "apgd-t", "fab-t", "square", "autoattack"] * 2
    assert [outcome.ensemble for outcome in outcomes] == ([ensemble.name] * 4 + [None]) * 2
    assert [outcome.attack.eps for outcome in outcomes] == [0.02] * 5 + [0.05] * 5
    for rows in (outcomes[:5], outcomes[5:]):
        counts = [int(row.robust.sum()) for row in rows]
        assert counts == sorted(counts, reverse=True)
        assert torch.equal(rows[-1].robust, rows[-2].robust)


def test_the_members_work_adds_up_to_the_runs(trained):
    net, samples = trained
    seen = []
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    outcomes = run_attack(net, small(Linf()), samples, budgets=[0.02, 0.05], batch_size=9)
    handle.remove()
    assert sum(outcome.forwards for outcome in outcomes) == sum(seen)
    assert [outcomes[i].forwards for i in (4, 9)] == [0, 0]


def test_progress_reaches_the_rows_times_the_samples(trained):
    net, samples = trained
    done = []
    outcomes = run_attack(net, small(Linf()), samples, batch_size=9, on_progress=lambda *parts: done.extend(parts))
    assert sum(done) == pytest.approx(len(outcomes) * len(samples))


def test_a_members_row_comes_before_the_next_member_runs(trained):
    net, samples = trained
    ensemble = Pair((FGSM(0.1), TooFar()))
    rows = stream_attack(net, ensemble, samples)
    assert next(rows).attack == FGSM(0.1)
    with pytest.raises(AttackError, match="too-far left the ball"):
        next(rows)


def test_a_finished_row_does_not_change_any_more(trained):
    net, samples = trained
    rows = stream_attack(net, Pair((FGSM(0.0), FGSM(0.1)), 0.1), samples, keep_images=True)
    first = next(rows)
    flags, images = first.robust.clone(), first.x_adv.clone()
    second = next(rows)
    assert int(second.robust.sum()) < int(flags.sum())
    assert torch.equal(first.robust, flags)
    assert torch.equal(first.x_adv, images)


def test_an_ensemble_keeps_the_contract_and_a_bad_member_fails_it():
    assert isinstance(Pair(()), Ensemble)
    check_attack(Pair((FGSM(0.1), APGD(0.1, steps=3))))
    with pytest.raises(AssertionError, match="pair left the ball"):
        check_attack(Pair((FGSM(0.1), TooFar())))
    with pytest.raises(AssertionError, match="leaves 10 of 10 samples of a linear model robust; 4 are"):
        check_attack(Pair((FGSM(0.0), FGSM(0.0))))


@pytest.mark.parametrize("version", ["standard", "rand"])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_are_attacked_with_what_there_is(classes, version):
    model, ids = random_linear(classes), torch.arange(5)
    x = Noise(0, ids).uniform(torch.empty(5, 1, 8, 8, dtype=torch.float64))
    samples = Samples(x, model(x).argmax(1), ids)
    attack = AutoAttack(0.5, version=version, rounds=3, queries=5, eot=1)
    assert not run_attack(model, attack, samples)[-1].robust.any()


# --- Randomised models


class Moody(nn.Module):
    """Of two classes the second leads by 1, but in every fourth pass the first one has 3 more: their mean is right."""

    def __init__(self, passes):
        super().__init__()
        self.passes = count(passes)

    def forward(self, x):
        level = x.flatten(1).sum(1) * 0
        return torch.stack((level + 3 * (next(self.passes) % 4 == 0), level + 1), 1)


def left(attack, passes):
    x = torch.full((1, 1, 8, 8), 0.5)
    second = torch.ones(1).long()
    return bool(run_attack(Moody(passes), attack, Samples(x, second, torch.arange(1)), pred=second)[0].robust)


@pytest.mark.parametrize("passes", range(4))
def test_one_unlucky_pass_breaks_no_sample_of_a_randomised_model(passes):
    assert left(FGSM(0.1, eot=4), passes)
    assert left(APGD(0.1, steps=1, eot=4), passes)
    assert left(FGSM(0.1), passes) == (passes != 3)  # the fourth pass judges
