"""Progress: what is done and what is spared add up, and what is left is what the samples that stand still need."""

import gc
from contextlib import nullcontext, suppress
from itertools import pairwise

import pytest
import torch
from torch import nn

from robustcli.attacks import APGD, APGDT, FABT, PGD, AutoAttack, Square
from robustcli.engine.guard import Meter
from robustcli.engine.outcome import OutcomeBuilder
from robustcli.engine.progress import ProgressTracker
from robustcli.engine.run import Run, Samples, run_attack
from robustcli.errors import AttackError
from robustcli.testing import tiny_net, tiny_samples

EFFORTS = (10, 90, 100)


class Sums:
    """Of what was reported, in samples."""

    def __init__(self):
        self.done = self.spared = 0.0

    def __call__(self, done, spared):
        self.done += done
        self.spared += spared

    def left(self, total):
        return total - self.done - self.spared


@pytest.fixture
def sums():
    return Sums()


def start(sums, samples=100, outcomes=4, efforts=EFFORTS):
    meter = Meter(tiny_net())
    forecast = ProgressTracker(sums, meter)
    forecast.start(samples, outcomes, efforts)
    return meter, forecast


def test_a_sample_that_is_broken_is_spared_what_the_other_members_cost(sums, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = start(sums)
    forecast.enter(0, 100)
    meter.forwards = 300
    meter.on_pass([meter])
    forecast.judge(50, 1)
    # 50 samples are left of this member, and of all as many as of those that are judged for the others.
    unit = 4 / sum(EFFORTS)
    assert sums.left(400) == pytest.approx(unit * (50 * 10 + 100 * 0.02 * 190))
    forecast.judge(50, 3)
    assert sums.left(400) == pytest.approx(unit * 4 * 190)
    forecast.enter(1, 4)
    meter.forwards = 480
    forecast.judge(4, 4)
    assert sums.left(400) == pytest.approx(unit * 4 * 100)
    assert sums.done == pytest.approx(unit * 180), "no speed before anyone knows what the others will meet"
    forecast.end()
    assert sums.left(400) == pytest.approx(0)


def test_a_bar_moves_within_a_chunk_and_never_past_it(sums, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = start(sums, 11, 1, (4,))
    samples, seen = tiny_samples(tiny_net()), []
    forecast.enter(0, 11)
    meter.begin(11)
    for _ in range(6):
        meter(samples.x.detach())
        seen.append(sums.left(11))
    assert seen == pytest.approx([33 / 4, 22 / 4, 11 / 4, 0, 0, 0])
    forecast.judge(11, 3)
    assert sums.left(11) == pytest.approx(0)
    assert sums.done == pytest.approx(66 / 4)


def test_passes_in_other_threads_count_once(sums, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = start(sums, 20, 1, (10,))
    first, second = Meter(meter.model), Meter(meter.model)
    forecast.enter(0, 20)
    passed(first, 10, 5)
    meter.on_pass([first, second])
    passed(second, 10, 2)
    passed(first, 10, 5)
    meter.on_pass([first, second])
    assert (sums.done, sums.left(20)) == (pytest.approx(12), pytest.approx(8))
    meter.forwards = 100  # the first thread's, which is done; the other's 20 are not
    forecast.judge(10, 5)
    assert (sums.done, sums.left(20)) == (pytest.approx(12), pytest.approx(8))
    second.had, second.forwards = 3, 30
    meter.on_pass([second])
    assert (sums.done, sums.left(20)) == (pytest.approx(13), pytest.approx(7))


def passed(meter, size, passes):
    """A chunk of so many samples, each of which has had so many more passes."""
    if not meter.size:
        meter.begin(size)
    meter.had += passes
    meter.forwards += size * passes


class Brittle(nn.Module):
    """Takes an image for class 1 as soon as a pixel is dark; counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        margin = 10 * (x.flatten(1).amin(1) - 0.45)
        return torch.stack((margin, -margin, margin - 20), 1)


@pytest.mark.parametrize(
    "attack",
    [PGD(0.1, steps=40), APGD(0.1, steps=40), APGDT(0.1, steps=40), Square(0.1, queries=80), FABT(0.1, iters=30)],
    ids=lambda attack: attack.name,
)
def test_what_is_left_falls_with_the_samples_and_not_at_the_end_of_their_chunk(sums, monkeypatch, attack):
    monkeypatch.setattr("robustcli.engine.progress.time", Clock())
    x = torch.full((128, 1, 8, 8), 0.5)
    x[::16] = 0.9  # 8 that stand
    model, seen = Brittle().eval(), []

    def report(done, spared):
        sums(done, spared)
        seen.append((model.calls, sums.left(128)))

    run_attack(model, attack, Samples(x, torch.zeros(128).long(), torch.arange(128)), on_progress=report)
    early = [left for calls, left in seen if 6 <= calls <= 9]
    assert early
    assert max(early) < 12, "of 128 samples 8 are alive"
    rises = [now - before for (_, before), (_, now) in pairwise(seen)]
    assert max(rises) < 1, "the bar does not run backwards"
    assert sums.left(128) == pytest.approx(0)


class Clock:
    """A second later each time that it is asked."""

    now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


def test_of_members_that_will_meet_a_sample_no_more_than_that_is_left(sums):
    meter = Meter(tiny_net())
    forecast = ProgressTracker(sums, meter)
    forecast.start(1000, 4, EFFORTS, 1)
    forecast.enter(0, 1000)
    forecast.judge(1000, 800)
    assert sums.left(4000) == pytest.approx(4 / sum(EFFORTS) * 80 * 190)


def test_what_is_known_from_before_is_no_work(sums):
    _, forecast = start(sums, 100, 1, (10,))
    forecast.enter(0, 30)
    assert (sums.done, sums.left(100)) == (0, pytest.approx(30))


class Opaque(nn.Module):
    """A model that an attack by gradients fails on."""

    def __init__(self):
        super().__init__()
        self.net = tiny_net()

    def forward(self, x):
        return self.net(x.detach())


@pytest.mark.parametrize("attack", [PGD(0.1, steps=3), AutoAttack(0.1, rounds=2, queries=3)])
@pytest.mark.parametrize("model", [tiny_net, Opaque])
def test_an_attack_that_is_over_or_has_failed_holds_no_images_and_no_model(attack, model):
    net = model()
    samples = tiny_samples(net)
    gc.collect()
    before = {id(one) for one in _held()}
    gc.disable()  # a circle of references would keep them until it is asked for
    try:
        with suppress(AttackError) if model is Opaque else nullcontext():
            run_attack(net, attack, samples)
        assert {id(one) for one in _held()} <= before
    finally:
        gc.enable()


def _held():
    return [one for one in gc.get_objects() if type(one) in (Run, OutcomeBuilder, Meter)]
