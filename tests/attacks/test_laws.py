"""What must hold between attacks, whatever the model."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from robustcli.attacks import (
    APGD,
    FAB,
    FABT,
    FGSM,
    FMN,
    MIFGSM,
    PGD,
    Bisection,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    UniformNoise,
)
from robustcli.attacks.base import survivors
from robustcli.attacks.losses import cross_entropy, is_right, margin
from robustcli.engine.outcome import split_evenly
from robustcli.engine.run import run_attack
from robustcli.noise import Noise

norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
LARGER = {"linf": 1, "l2": 5, "l1": 30}
"""How much larger than in Linf a budget of about the same effect is."""


def robust(trained, attack, **options):
    return int(run_attack(*(trained[0], attack, trained[1]), **options)[0].robust.sum())


@norms
def test_pgd_of_one_whole_step_is_fgsm_bit_for_bit(trained, norm):
    net, samples = trained
    one_step = PGD(0.1, steps=1, step_size=0.1, random_start=False, norm=norm, early_stop=False)
    right = is_right(net(samples.x), samples.y)
    samples = samples[right]
    noise = Noise(0, samples.ids)
    x_pgd, x_fgsm = (attack.perturb(net, samples.x, samples.y, noise) for attack in (one_step, FGSM(0.1, norm=norm)))
    assert torch.allclose(x_pgd, x_fgsm, rtol=0, atol=1e-15)


def test_robust_counts_never_rise_in_eps(trained):
    counts = [
        o.robust.sum().item()
        for o in run_attack(*(trained[0], PGD(0.1), trained[1]), budgets=[0, 0.02, 0.05, 0.1, 0.2, 0.4])
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[-1] == 0


@norms
@pytest.mark.parametrize("attack", [PGD(0.3, steps=2, step_size=0.01), UniformNoise(0.3), APGD(0.03, steps=1)])
def test_robust_counts_never_rise_in_restarts(trained, attack, norm):
    field = "draws" if isinstance(attack, UniformNoise) else "restarts"
    attack = replace(attack, norm=norm, eps=attack.eps * LARGER[norm])
    counts = [robust(trained, replace(attack, **{field: n})) for n in (1, 2, 4, 8)]
    assert counts == sorted(counts, reverse=True)


def test_a_restart_that_fails_leaves_earlier_breaks_alone(trained):
    net, samples = trained
    attack = PGD(0.3, steps=2, step_size=0.01)
    noise = Noise(0, samples.ids)
    attempts = [attack._attempt(net, samples.x, samples.y, noise.stream(f"attempt {i}")) for i in range(4)]
    left = torch.stack([is_right(net(x_adv), samples.y) for x_adv in attempts])
    together = is_right(net(replace(attack, restarts=4).perturb(net, samples.x, samples.y, noise)), samples.y)
    assert torch.equal(together, left.all(0))
    assert together.sum() < left[0].sum()


def test_an_ensemble_is_at_most_each_of_its_members(trained):
    net, samples = trained
    members = [UniformNoise(0.2), FGSM(0.04), PGD(0.04)]
    noise = Noise(0, samples.ids)
    left = []
    for attacks in (members, *[[member] for member in members]):
        x_adv = survivors([attack.perturb for attack in attacks], net, samples.x, samples.y, noise)
        left.append(int(is_right(net(x_adv), samples.y).sum()))
    assert left[0] <= min(left[1:])


@norms
def test_fgsm_for_many_budgets_is_fgsm_for_each_bit_for_bit(trained, norm):
    net, samples = trained
    budgets = [0.0, 0.05, 0.3]
    noise = Noise(0, samples.ids)
    swept = FGSM(1.0, norm=norm).sweep(net, samples.x, samples.y, noise, budgets)
    for eps, x_adv in zip(budgets, swept, strict=True):
        assert torch.equal(x_adv, FGSM(eps, norm=norm).perturb(net, samples.x, samples.y, noise))


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=3), UniformNoise(0.1)])
def test_many_budgets_in_one_run_give_the_flags_of_separate_runs(trained, attack):
    net, samples = trained
    together = run_attack(net, attack, samples, budgets=[0.02, 0.2])
    for outcome in together:
        alone = run_attack(net, outcome.attack, samples)[0]
        assert torch.equal(outcome.robust, alone.robust)
        assert torch.equal(outcome.distance, alone.distance)


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=3), UniformNoise(0.1, draws=2), DeepFool(iters=3)])
def test_the_rows_work_adds_up_to_the_runs(trained, attack):
    net, samples = trained
    seen = []
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    budgets = [] if isinstance(attack, DeepFool) else [0.02, 0.05, 0.1, 0.2]
    outcomes = run_attack(net, attack, samples, budgets=budgets, batch_size=7)
    handle.remove()
    assert sum(outcome.forwards for outcome in outcomes) == sum(seen)
    assert max(o.forwards for o in outcomes) - min(o.forwards for o in outcomes) <= 1


def test_fgsm_takes_one_backward_pass_for_any_number_of_budgets(trained):
    net, samples = trained
    outcomes = run_attack(net, FGSM(0.1), samples, budgets=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert sum(outcome.backwards for outcome in outcomes) == int(outcomes[0].clean.sum())


CW = CarliniWagner(steps=25, binary_search_steps=2, lr=0.05, initial_const=0.1)


@pytest.mark.parametrize(
    ("attack", "field", "values"),
    [
        (FAB(), "iters", (1, 3, 10)),
        (FAB(iters=5, norm="l2"), "targets", (1, 2)),
        (FAB(iters=5, norm="l1"), "restarts", (1, 2, 4)),
        (CW, "binary_search_steps", (1, 2, 4)),
        (DeepFool(), "iters", (1, 2, 5)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_distance_never_grows_with_effort(trained, attack, field, values):
    net, samples = trained
    found = [run_attack(net, replace(attack, **{field: value}), samples)[0].distance for value in values]
    assert all(bool((more <= less).all()) for less, more in pairwise(found))
    assert found[-1].isfinite().any()


@norms
def test_fmn_gets_closer_with_iterations(trained, norm):
    few, many = (run_attack(trained[0], FMN(iters, norm=norm), trained[1])[0].distance for iters in (10, 40))
    assert many.isfinite().all()
    assert many.median() <= few.median()
    assert (many <= few * 1.02).all()


@norms
def test_fmn_fab_and_bisected_pgd_agree_on_a_smooth_net(trained, norm):
    attacks = FMN(40, norm=norm), FAB(8, norm=norm), Bisection(PGD(0.1, norm=norm, steps=10))
    medians = [float(run_attack(trained[0], attack, trained[1])[0].distance.median()) for attack in attacks]
    assert max(medians) < 1.08 * min(medians)


@norms
def test_what_bisection_finds_breaks_and_a_little_less_does_not(trained, norm):
    net, samples = trained
    attack = PGD(0.1, norm=norm, random_start=False)
    distance = run_attack(net, Bisection(attack, steps=6), samples)[0].distance
    right = (distance > 0).nonzero()[:, 0][:5]
    for i in right.tolist():
        one = samples[i : i + 1]
        below, at = (
            run_attack(net, replace(attack, eps=float(distance[i]) * share), one)[0].robust.item()
            for share in (0.96, 1.03)
        )
        assert (below, at) == (True, False)


def test_fab_t_stops_with_the_first_adversarial_within_eps(trained):
    net, samples = trained
    whole, soon = (run_attack(net, attack, samples)[0] for attack in (FAB(20), FABT(0.3, 20)))
    assert not soon.robust.any()
    assert soon.backwards < whole.backwards / 4


def test_confidence_pushes_farther_beyond_the_boundary(trained):
    net, samples = trained
    gaps = []
    for confidence in (0.0, 1.0):
        outcome = run_attack(net, replace(CW, confidence=confidence, initial_const=10), samples, keep_images=True)[0]
        found = outcome.distance.isfinite() & outcome.clean
        assert found.any()
        gaps.append(margin(net(outcome.x_adv.double()), samples.y)[found].max())
    assert gaps[0] < 0
    assert gaps[1] <= -1 + 1e-5


def test_aborting_early_saves_work_and_little_distance(trained):
    net, samples = trained
    attack = replace(CW, steps=100, lr=0.1)
    early, late = (run_attack(net, replace(attack, abort_early=abort), samples)[0] for abort in (True, False))
    assert early.backwards < late.backwards
    assert early.distance.median() < late.distance.median() * 1.03


@pytest.mark.parametrize(("total", "parts"), [(0, 3), (10, 3), (2, 5), (9, 1)])
def test_an_even_split_loses_nothing(total, parts):
    split = split_evenly(total, parts)
    assert (len(split), sum(split)) == (parts, total)
    assert max(split) - min(split) <= 1


@pytest.mark.parametrize("attack", [PGD(0.05), PGD(0.2), MIFGSM(0.05)])
def test_stopping_early_breaks_at_least_as_many_samples_for_less_work(trained, attack):
    net, samples = trained
    early, late = (run_attack(net, replace(attack, early_stop=stop), samples)[0] for stop in (True, False))
    assert not (early.robust & ~late.robust).any()
    if attack.eps == 0.2:
        assert torch.equal(early.robust, late.robust)
    assert early.backwards < late.backwards == attack.steps * int(late.clean.sum())


@pytest.mark.parametrize(
    "attack", [DeepFool(), *(HopSkipJump(iters=4, directions=40, norm=norm) for norm in ("linf", "l2"))]
)
def test_a_sample_that_is_wrong_already_stays_where_it_is(net, samples, attack):
    x_adv = attack.perturb(net, samples.x, samples.y, Noise(0, samples.ids))
    wrong = ~is_right(net(samples.x), samples.y)
    assert wrong.any()
    assert torch.equal(x_adv[wrong], samples.x[wrong])


def test_more_steps_leave_the_loss_higher_than_the_start(trained):
    net, samples = trained
    attack = PGD(0.05, early_stop=False)
    x_adv = attack.perturb(net, samples.x, samples.y, Noise(0, samples.ids))
    before, after = (cross_entropy(net(x), samples.y) for x in (samples.x, x_adv))
    assert (after > before).all()


def test_margin_is_negative_exactly_where_a_sample_is_wrong(trained):
    net, samples = trained
    logits = net(FGSM(0.05).perturb(net, samples.x, samples.y, Noise(0, samples.ids)))
    assert torch.equal(margin(logits, samples.y) > 0, is_right(logits, samples.y))
