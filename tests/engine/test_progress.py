"""Progress: what is done and what is spared add up, and what is left is what the samples that stand still need."""

import pytest

from robustcli.engine.guard import Meter
from robustcli.engine.progress import ProgressTracker
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
    meter.on_pass(0)
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
    forecast.enter(0, 20)
    meter.on_pass(50)
    meter.on_pass(120)
    assert (sums.done, sums.left(20)) == (pytest.approx(12), pytest.approx(8))
    meter.forwards = 100  # the first thread's, which is done; the other's 20 are not
    forecast.judge(10, 5)
    meter.on_pass(30)
    assert (sums.done, sums.left(20)) == (pytest.approx(13), pytest.approx(7))


def test_what_is_known_from_before_is_no_work(sums):
    _, forecast = start(sums, 100, 1, (10,))
    forecast.enter(0, 30)
    assert (sums.done, sums.left(100)) == (0, pytest.approx(30))
