"""Progress: what is done and what is spared add up, and what is left is what the samples that stand still need."""

import pytest

from robustcli.engine.guard import Meter
from robustcli.engine.progress import ProgressTracker
from robustcli.testing import tiny_net, tiny_samples

EFFORTS = (10, 90, 100)


class Told:
    """Sums of what was told, in samples."""

    def __init__(self):
        self.done = self.spared = 0.0

    def __call__(self, done, spared):
        self.done += done
        self.spared += spared

    def left(self, total):
        return total - self.done - self.spared


@pytest.fixture
def told():
    return Told()


def begun(told, samples=100, outcomes=4, efforts=EFFORTS):
    meter = Meter(tiny_net())
    forecast = ProgressTracker(told, meter)
    forecast.start(samples, outcomes, efforts)
    return meter, forecast


def test_a_sample_that_is_broken_is_spared_what_the_other_members_cost(told, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = begun(told)
    forecast.enter(0, 100)
    meter.forwards = 300
    meter.on_pass(0)
    forecast.judge(50, 1)
    # 50 samples are left of this member, and of all as many as of those that are judged for the others.
    unit = 4 / sum(EFFORTS)
    assert told.left(400) == pytest.approx(unit * (50 * 10 + 100 * 0.02 * 190))
    forecast.judge(50, 3)
    assert told.left(400) == pytest.approx(unit * 4 * 190)
    forecast.enter(1, 4)
    meter.forwards = 480
    forecast.judge(4, 4)
    assert told.left(400) == pytest.approx(unit * 4 * 100)
    assert told.done == pytest.approx(unit * 180), "no speed before anyone knows what the others will meet"
    forecast.end()
    assert told.left(400) == pytest.approx(0)


def test_a_bar_moves_within_a_chunk_and_never_past_it(told, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = begun(told, 11, 1, (4,))
    samples, seen = tiny_samples(tiny_net()), []
    forecast.enter(0, 11)
    for _ in range(6):
        meter(samples.x.detach())
        seen.append(told.left(11))
    assert seen == pytest.approx([33 / 4, 22 / 4, 11 / 4, 0, 0, 0])
    forecast.judge(11, 3)
    assert told.left(11) == pytest.approx(0)
    assert told.done == pytest.approx(66 / 4)


def test_passes_in_other_threads_count_once(told, monkeypatch):
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0.0)
    meter, forecast = begun(told, 20, 1, (10,))
    forecast.enter(0, 20)
    meter.on_pass(50)
    meter.on_pass(120)
    assert (told.done, told.left(20)) == (pytest.approx(12), pytest.approx(8))
    meter.forwards = 100  # the first thread's, which is done; the other's 20 are not
    forecast.judge(10, 5)
    meter.on_pass(30)
    assert (told.done, told.left(20)) == (pytest.approx(13), pytest.approx(7))


def test_what_is_known_from_before_is_no_work(told):
    _, forecast = begun(told, 100, 1, (10,))
    forecast.enter(0, 30)
    assert (told.done, told.left(100)) == (0, pytest.approx(30))
