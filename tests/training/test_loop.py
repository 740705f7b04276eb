"""The loop itself: it learns, stops where it should, and leaves the random states as they were."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustcli.errors import TrainingError
from robustcli.training import loop
from robustcli.training.loop import Run, epoch_order, fit
from robustcli.training.methods import METHODS
from robustcli.training.schedules import learning_rate

from .conftest import PER_EPOCH, same, stop_at, weights


@pytest.mark.parametrize("name", METHODS)
def test_every_method_overfits_64_samples(make, name):
    method = {"name": name} | ({"eps": 0.1} if name in ("fgsm", "pgd") else {})
    job = make(method=method, validation=0, epochs=20, batch_size=16, lr=3e-3).job
    assert len(job.train) == 64
    run = Run()
    assert fit(job, run)
    job.model.eval()
    assert (job.model(job.train.batch(slice(None))).argmax(1) == job.train.y).all()
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_a_stop_after_the_last_step_changes_nothing(make):
    job, run = make(epochs=1).job, Run()
    assert fit(job, run, **stop_at(PER_EPOCH))
    assert len(run.history) == 1


def test_a_run_stops_after_its_first_step(make):
    job, run = make().job, Run()
    assert not fit(job, run, should_stop=lambda: True)
    assert (run.step, run.seen, run.history) == (1, 11, [])


@pytest.mark.parametrize("name", METHODS)
def test_making_and_fitting_leave_the_global_random_states(make, name):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    fit(make(method=name, epochs=1).job, Run())
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    assert same(after, before)


def test_the_global_random_state_does_not_reach_the_weights(make):
    one, other = make(epochs=1).job, make(epochs=1).job
    fit(one, Run())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        fit(other, Run())
    assert same(weights(one.model), weights(other.model))


def test_another_seed_gives_another_run(make):
    one, other = make(epochs=1).job, make(epochs=1, seed=1).job
    fit(one, Run())
    fit(other, Run())
    assert not same(weights(one.model), weights(other.model))


def test_a_diverging_run_stops_with_one_line_that_names_the_rate(make):
    with pytest.raises(TrainingError, match=r"loss became NaN or infinite in epoch \d.*smaller --lr than 1e\+06"):
        fit(make(optimizer="sgd", lr=1e6).job, Run())


def test_every_step_and_epoch_is_reported_in_order(make):
    steps, epochs = [], []
    fit(make(epochs=2).job, Run(), on_step=steps.append, on_epoch=lambda run: epochs.append(len(run.history)))
    assert [step.step for step in steps] == list(range(1, 2 * PER_EPOCH + 1))
    assert [step.epoch for step in steps] == [1] * PER_EPOCH + [2] * PER_EPOCH
    assert [step.samples for step in steps[:PER_EPOCH]] == [11, 11, 11, 11, 4]
    assert {step.steps for step in steps} == {2 * PER_EPOCH}
    assert epochs == [1, 2]


def test_the_history_holds_means_over_samples_not_over_batches(make):
    job, run, means = make(epochs=1).job, Run(), []
    objective = job.recipe.objective

    def noted(*batch):
        loss, logits = objective(*batch)
        means.append((loss.item(), len(logits)))
        return loss, logits

    fit(replace(job, recipe=replace(job.recipe, objective=noted)), run)
    assert run.history[0]["loss"] == pytest.approx(sum(loss * m for loss, m in means) / 48)
    assert set(run.history[0]) == {"epoch", "loss", "accuracy", "seconds", "val_accuracy"}


def test_the_rate_of_each_step_is_the_schedules(make, monkeypatch):
    made, rates = [], []
    build = loop.make_optimizer
    monkeypatch.setattr(loop, "make_optimizer", lambda *args: made.append(build(*args)) or made[-1])
    job = make(schedule="onecycle", epochs=2).job
    fit(job, Run(), on_step=lambda _: rates.append(made[0].param_groups[0]["lr"]))
    assert rates == [learning_rate(job.spec, step, 2 * PER_EPOCH) for step in range(2 * PER_EPOCH)]


def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own():
    orders = [epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(order.sort().values.equal(torch.arange(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(epoch_order(50, 1, 0), orders[2])


@pytest.mark.parametrize("augment", ["flip", "crop-flip"])
def test_augmentation_reaches_the_images_and_differs_from_epoch_to_epoch(make, augment):
    job = make(epochs=2, augment=augment, batch_size=64).job
    seen = []
    job.model.conv1.register_forward_hook(lambda module, args, _: seen.append(args[0]) if module.training else None)
    fit(job, Run())
    plain = job.train.batch(epoch_order(48, 0, 0))
    again = [seen[epoch][epoch_order(48, 0, epoch).argsort()] for epoch in (0, 1)]
    assert not torch.equal(seen[0], plain)
    assert not torch.equal(*again)


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(make):
    run = Run()
    assert fit(make(batch_size=2**70, epochs=2).job, run)
    assert (run.step, len(run.history)) == (2, 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_trains(make, name):
    run = Run()
    assert fit(make(method=name, limit=5, batch_size=3, validation=0.2, epochs=1).job, run)
    assert run.step == 2, "batches of 3 and of 1"


@pytest.mark.parametrize(("fraction", "best"), [(0.0, 0), (0.5, 1), (1.0, 2)])
def test_the_best_epoch_weighs_robust_accuracy_by_the_share_that_is_attacked(make, monkeypatch, fraction, best):
    scores = iter([(0.9, 0.1), (0.8, 0.4), (0.1, 0.5)])
    monkeypatch.setattr(
        loop, "_validate", lambda job: dict(zip(("val_accuracy", "val_robust_accuracy"), next(scores), strict=True))
    )
    job, run, after = make(method={"name": "fgsm", "fraction": fraction}).job, Run(), []
    fit(job, run, on_epoch=lambda _: after.append(weights(job.model)))
    assert same(run.best, after[best])


@pytest.mark.parametrize(("name", "attacked"), [("vanilla", False), ("batchout", False), ("fgsm", True), ("pgd", True)])
def test_validation_is_measured_in_eval_mode_and_under_the_attack_that_is_trained_against(make, name, attacked):
    job, run = make(method=name, epochs=1).job, Run()
    fit(job, run)
    entry = run.history[0]
    under_attack = {"val_robust_accuracy", "val_fgsm_accuracy", "val_pgd_accuracy"}
    assert entry.keys() & under_attack == (under_attack if attacked else set())
    assert entry["val_accuracy"] >= entry.get("val_robust_accuracy", 0)
    job.model.eval()
    right = job.model(job.validation.batch(slice(None))).argmax(1) == job.validation.y
    assert entry["val_accuracy"] == float(right.double().mean())


def test_without_a_validation_part_the_last_epoch_is_the_best(make):
    job, run = make(validation=0).job, Run()
    fit(job, run)
    assert "val_accuracy" not in run.history[0]
    assert same(run.best, weights(job.model))


# Bfloat16: any CPU computes it, if slowly


def in_bfloat16(name):
    return {"method": {"name": name} | ({"steps": 2} if name == "pgd" else {}), "dtype": "bfloat16"}


def test_bfloat16_is_the_type_of_activations_and_of_nothing_that_is_kept(make):
    job, run, types = make(epochs=1, **in_bfloat16("vanilla")).job, Run(), []
    job.model.conv1.register_forward_hook(lambda module, _, h: types.append((module.training, h.dtype)))
    fit(job, run)
    assert set(types) == {(True, torch.bfloat16), (False, torch.float32)}, "validation is measured in float32"
    kept = [*weights(job.model).values(), *run.best.values()]
    kept += [value for state in run.optimizer["state"].values() for value in state.values()]
    assert {value.dtype for value in kept} == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_gives_nearly_the_losses_of_float32(make, name):
    options, histories = in_bfloat16(name), []
    for dtype in ("float32", "bfloat16"):
        run = Run()
        fit(make(**(options | {"dtype": dtype})).job, run)
        histories.append([entry["loss"] for entry in run.history])
    exact, rounded = histories
    assert rounded == pytest.approx(exact, rel=0.1)
    assert rounded != exact


def test_autocast_ends_with_the_step(make):
    fit(make(epochs=1, **in_bfloat16("fgsm")).job, Run())
    assert not torch.is_autocast_enabled("cpu")
    assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
