"""T1: the warning comes when many steps break what one step does not, or all at once, and at no other time."""

import pytest
import torch

from robustcli.attacks import FGSM
from robustcli.engine.run import Samples
from robustcli.training.loop import Run, fit
from robustcli.training.overfitting import WATCHED, overfitting, watch


def history(*accuracies):
    """Epochs of which FGSM and PGD-10 leave these shares."""
    return [
        {"epoch": float(i), "val_fgsm_accuracy": one, "val_pgd_accuracy": many}
        for i, (one, many) in enumerate(accuracies, 1)
    ]


def test_more_than_20_points_between_one_step_and_ten_are_told():
    assert overfitting(history((0.60, 0.40))) is None
    assert "FGSM leaves 61.0 %, PGD-10 40.0 % of the validation images" in overfitting(history((0.61, 0.40)))


def test_an_accuracy_that_halves_within_an_epoch_is_told_with_where_it_was_best():
    assert overfitting(history((0.5, 0.44), (0.3, 0.22))) is None
    told = overfitting(history((0.5, 0.40), (0.5, 0.44), (0.3, 0.21)))
    assert told.endswith(
        "PGD-10 21.0 % (an epoch ago 44.0 %) of the validation images; PGD-10 left most, 44.0 %, after epoch 2"
    )


def test_a_run_that_recovers_is_not_told_again():
    assert overfitting(history((0.9, 0.1), (0.5, 0.45))) is None


@pytest.mark.parametrize("entries", [[], [{"epoch": 1.0, "val_accuracy": 0.9}]])
def test_nothing_is_told_of_a_run_that_was_not_watched(entries):
    assert overfitting(entries) is None
    assert overfitting([*history((0.9, 0.1)), {"epoch": 2.0}]) is None


def test_the_first_256_images_are_attacked_at_the_budget_that_is_trained_against(make):
    job = make(method="fgsm").job
    samples = Samples(job.train.batch(slice(None)), job.train.y, job.train.ids)
    n = 8 * len(samples)
    many = Samples(samples.x.repeat(8, 1, 1, 1), samples.y.repeat(8), torch.arange(n))
    assert len(many) > WATCHED
    attack = FGSM(eps=0.05)
    assert watch(job.model, attack, many, 0) == watch(job.model, attack, many[:WATCHED], 0)
    assert watch(job.model, FGSM(eps=1e-9), samples, 0) == pytest.approx(
        dict.fromkeys(("val_fgsm_accuracy", "val_pgd_accuracy"), clean(job.model, samples))
    )


def clean(model, samples):
    model.eval()
    return float((model(samples.x).argmax(1) == samples.y).double().mean())


def test_watching_changes_nothing_that_is_trained(make, monkeypatch):
    found = []
    for watched in (True, False):
        if not watched:
            monkeypatch.setattr("robustcli.training.loop.watch", lambda *_: {})
        job = make(method="fgsm").job
        fit(job, Run())
        found.append([value.clone() for value in job.model.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
