"""Learning rates, step for step against torch's schedulers, and the optimisers' options."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from robustcli.config import TrainSpec
from robustcli.training.schedules import learning_rate, make_optimizer

LR = 0.2


def rates(schedule, steps):
    spec = TrainSpec(schedule=schedule, lr=LR)
    return [learning_rate(spec, step, steps) for step in range(steps)]


def torch_rates(scheduler, steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    schedule = scheduler(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(found) < steps:
            schedule.step()
    return found


@pytest.mark.parametrize("steps", [7, 10, 100, 333])
def test_onecycle_is_torchs_step_for_step(steps):
    expected = torch_rates(OneCycleLR, steps, max_lr=LR, total_steps=steps, cycle_momentum=False)
    assert rates("onecycle", steps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_cosine_is_torchs_step_for_step(steps):
    assert rates("cosine", steps) == pytest.approx(torch_rates(CosineAnnealingLR, steps, T_max=steps), rel=1e-9)


def test_constant_is_constant():
    assert rates("constant", 5) == [LR] * 5


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_run_of_few_steps_keeps_its_rates_positive_and_at_most_lr(schedule, steps):
    assert all(0 < rate <= LR * (1 + 1e-12) for rate in rates(schedule, steps))


def options(**changes):
    optimizer = make_optimizer(TrainSpec(lr=LR, **changes), [torch.zeros(1, requires_grad=True)])
    return type(optimizer), optimizer.param_groups[0]


def test_adam_takes_rate_and_weight_decay():
    kind, group = options(optimizer="adam", weight_decay=0.01)
    assert kind is torch.optim.Adam
    assert (group["lr"], group["weight_decay"], group["betas"]) == (LR, 0.01, (0.9, 0.999))


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_sgd_takes_momentum_and_is_nesterov_where_there_is_one(momentum, nesterov):
    kind, group = options(optimizer="sgd", momentum=momentum, weight_decay=5e-4)
    assert kind is torch.optim.SGD
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (momentum, nesterov, 5e-4)
