import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import nn

from robustcli.attacks import FAB, FABT, FGSM, FMN, MIFGSM, PGD, Bisection, CarliniWagner, DeepFool, UniformNoise
from robustcli.attacks.base import BudgetAttack
from robustcli.attacks.norms import Linf, Norm
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.errors import AttackError
from robustcli.testing.state import require_unchanged, state_of

ALL = [
    *(FGSM(0.1), PGD(0.1, steps=3), UniformNoise(0.1), DeepFool(iters=3), FMN(iters=5), FAB(iters=2)),
    *(FABT(0.1, iters=2), CarliniWagner(steps=3, binary_search_steps=2), Bisection(FGSM(0.1), steps=2)),
]
attacks = pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)


@dataclass(frozen=True)
class Moves:
    """Adds a constant to each pixel, and notes which labels it was given."""

    by: float
    eps: float = 0.1
    norm: Norm = field(default_factory=Linf)
    given: list = field(default_factory=list)
    name: ClassVar[str] = "moves"
    summary: ClassVar[str] = "a constant step"
    kind, needs, losses, weak, parameter_free, cost = "budget", "gradients", (), True, False, 1

    def perturb(self, model, x, y, noise):
        self.given.append(noise.ids)
        return x + self.by


def test_a_sample_that_was_wrong_before_is_not_attacked(net, samples):
    attack = Moves(0.0)
    outcome = run_attack(net, attack, samples, batch_size=4)[0]
    assert torch.equal(torch.cat(attack.given), samples.ids[outcome.clean])


@attacks
def test_a_sample_that_was_wrong_before_stays_wrong_at_distance_0(net, samples, attack):
    outcome = run_attack(net, attack, samples, keep_images=True)[0]
    wrong = ~outcome.clean
    assert wrong.any()
    assert not outcome.robust[wrong].any()
    assert (outcome.distance[wrong] == 0).all()
    assert torch.equal(outcome.x_adv[wrong], samples.x[wrong].float())
    assert torch.equal(outcome.pred_after[wrong], predict(net, samples.x, 4)[wrong])


@attacks
def test_what_an_outcome_says_of_a_sample_agrees(net, samples, attack):
    outcome = run_attack(net, attack, samples, keep_images=True)[0]
    assert torch.equal(outcome.robust, outcome.clean & (outcome.pred_after == samples.y))
    assert torch.equal(outcome.robust, outcome.distance.isinf())
    after = predict(net, outcome.x_adv.double(), 4)
    assert torch.equal(after, outcome.pred_after)


@attacks
def test_known_predictions_change_the_work_only(net, samples, attack):
    pred = predict(net, samples.x, 4)
    computed = run_attack(net, attack, samples)[0]
    given = run_attack(net, attack, samples, pred=pred)[0]
    assert torch.equal(given.distance, computed.distance)
    assert given.forwards == computed.forwards - len(samples)


@attacks
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_progress_adds_up_to_every_sample_of_every_row(net, samples, attack, batch_size):
    budgets = [0.1, 0.2, 0.3] if isinstance(attack, BudgetAttack) else []
    calls = []
    run_attack(
        net, attack, samples, budgets=budgets, batch_size=batch_size, on_progress=lambda *parts: calls.append(parts)
    )
    assert sum(map(sum, calls)) == pytest.approx(len(samples) * max(1, len(budgets)))
    assert min(done for done, _ in calls) >= 0


@attacks
@pytest.mark.parametrize("which", ["none", "wrong"])
def test_nothing_to_attack_is_no_error(net, samples, attack, which):
    class FlattensByView(nn.Module):
        def forward(self, x):
            return net(x.view(x.size(0), -1).view(-1, 1, 8, 8))

    wrong = predict(net, samples.x, 4) != samples.y
    few = samples[wrong.nonzero()[:, 0]] if which == "wrong" else samples[:0]
    outcome = run_attack(FlattensByView(), attack, few, keep_images=True)[0]
    assert outcome.robust.sum() == 0
    assert outcome.x_adv.shape == few.x.shape
    assert outcome.by_iter == ((0, 0, 0) if isinstance(attack, DeepFool) else ())


def broken_after(net, good, broken):
    """A model that answers `good` times before its logits are broken."""

    class Breaks(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return net(x) if self.calls <= good else broken(net(x))

    return Breaks()


@attacks
@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused(net, samples, attack, good, factor):
    with pytest.raises(AttackError, match=r"the model returned NaN or infinite logits for \d+ of \d+ images"):
        run_attack(broken_after(net, good, lambda logits: logits * factor), attack, samples)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (0.2, r"moves left the box: pixels from 0.2 to 1.2, allowed is \[0, 1\]"),
        (-0.01, r"moves left the box: pixels from -0.01 to 0.99"),
        (torch.nan, "moves returned NaN or infinite pixels"),
    ],
)
def test_an_attack_that_leaves_the_box_is_refused(net, samples, by, message):
    with pytest.raises(AttackError, match=message):
        run_attack(net, Moves(by, eps=1.0), samples)


def test_an_attack_that_leaves_the_ball_by_more_than_rounding_is_refused(net, samples):
    inside = Samples(samples.x * 0.5 + 0.25, samples.y, samples.ids)
    assert run_attack(net, Moves(0.1 + 1e-8), inside)
    with pytest.raises(AttackError, match=r"moves left the ball: Linf distance 0.11, eps 0.1$"):
        run_attack(net, Moves(0.11), inside)


def test_deepfool_without_a_box_is_excused_from_the_box_only(net, samples):
    outcome = run_attack(net, DeepFool(box="none"), samples, keep_images=True)[0]
    assert outcome.x_adv.min() < 0
    net[-1].weight.data.mul_(torch.inf)
    with pytest.raises(AttackError, match="NaN or infinite"):
        run_attack(net, DeepFool(box="none"), samples)


def test_budgets_for_an_attack_without_one_are_refused(net, samples):
    with pytest.raises(AttackError, match="deepfool takes no budget"):
        run_attack(net, DeepFool(), samples, budgets=[0.1])


def test_an_outcome_carries_the_budget_it_ran_at_as_it_was_written(net, samples):
    outcomes = run_attack(net, FGSM("0.1"), samples, budgets=["8/255", 0.3])
    assert [str(outcome.attack.eps) for outcome in outcomes] == ["8/255", "0.3"]


def test_images_are_kept_only_on_request(net, samples):
    assert run_attack(net, FGSM(0.1), samples)[0].x_adv is None


def test_another_seed_is_another_draw(net, samples):
    first, again, other = (
        run_attack(net, UniformNoise(0.3), samples, seed=seed, keep_images=True)[0].x_adv for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("training", [True, False])
def test_frozen_puts_everything_back_after_an_exception(net, samples, training):
    net[4].train()
    net[0].weight.requires_grad_(False)
    before = state_of(net, samples)

    def fails():
        with frozen(net, training):
            assert {module.training for module in net.modules()} == {training}
            assert not any(parameter.requires_grad for parameter in net.parameters())
            net.train()(samples.x)
            raise ZeroDivisionError

    with torch.random.fork_rng(), pytest.raises(ZeroDivisionError):
        fails()
    require_unchanged("frozen", before, state_of(net, samples))


def test_a_model_in_train_mode_is_measured_in_eval_mode_and_handed_back(net, samples):
    with warnings.catch_warnings(action="error"):
        expected = run_attack(net.eval(), PGD(0.05), samples)[0]
    with pytest.warns(UserWarning, match=r"^the model is in train mode; it is measured in eval mode$") as caught:
        outcome = run_attack(net.train(), PGD(0.05), samples)[0]
    assert [warning.filename for warning in caught] == [__file__]
    assert torch.equal(outcome.distance, expected.distance)
    assert all(module.training for module in net.modules())


def test_one_layer_in_train_mode_is_said_too(net, samples):
    net.eval()[1].train()
    with pytest.warns(UserWarning, match="the model is in train mode"):
        run_attack(net, FGSM(0.05), samples)
    assert [module.training for module in net] == [i == 1 for i in range(len(net))]


def test_a_gradient_that_was_there_before_is_still_there(net, samples):
    net(samples.x).sum().backward()
    before = net[0].weight.grad.clone()
    run_attack(net, PGD(0.1), samples)
    assert torch.equal(net[0].weight.grad, before)


def test_an_attack_works_where_gradients_are_off(net, samples):
    expected = run_attack(net, PGD(0.05), samples)[0]
    with torch.no_grad():
        assert torch.equal(run_attack(net, PGD(0.05), samples)[0].distance, expected.distance)


def test_the_meter_counts_samples_not_calls(net, samples):
    meter = Meter(net)
    x = samples.x.clone().requires_grad_()
    logits = meter(x)
    for column in logits.unbind(1):
        torch.autograd.grad(column.sum(), x, retain_graph=True)
    assert (meter.forwards, meter.backwards) == (len(samples), 3 * len(samples))


@pytest.mark.parametrize("attack", [DeepFool(iters=2), MIFGSM(0.1)], ids=lambda attack: attack.name)
def test_a_model_without_gradient_is_left_robust_not_nan(attack):
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :2] + torch.tensor([1.0, 0.0])

    samples = Samples(torch.full((2, 1, 8, 8), 0.5), torch.zeros(2).long(), torch.arange(2))
    outcome = run_attack(Constant(), attack, samples, keep_images=True)[0]
    assert outcome.robust.all()
    assert torch.equal(outcome.x_adv, samples.x)
