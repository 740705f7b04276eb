"""Chunks beside each other give what chunks in turn give, count what they do, and stop when they should."""

import threading
from concurrent.futures import CancelledError

import pytest
import torch
from torch import nn

from robustcli.attacks import parse_attack
from robustcli.config import ModelSpec
from robustcli.engine.convolutions import quick_convolutions
from robustcli.engine.guard import Meter
from robustcli.engine.run import run_attack
from robustcli.engine.threads import LEAST, plan_threads, run_in_threads
from robustcli.errors import AttackError
from robustcli.models import MODELS
from robustcli.models.nets import build_model
from robustcli.testing import tiny_net, tiny_samples

N = 4 * LEAST
CPU = torch.device("cpu")
ATTACKS = ["pgd:eps=0.06,restarts=2", "apgd:eps=0.5,norm=l2,steps=15", "fab:iters=6", "fmn:iters=10,norm=l2"]


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    given_back = torch.get_num_threads()
    torch.set_num_threads(before)
    assert given_back == 3


@pytest.mark.parametrize("spec", [*ATTACKS, "autoattack:eps=0.06,rounds=5,queries=20"])
def test_outcomes_are_those_of_chunks_in_turn(spec):
    net, attack = tiny_net(), parse_attack(spec)
    samples = tiny_samples(net, N)
    calls = []
    net[2].register_forward_hook(lambda *_: calls.append(threading.get_ident()))
    in_turn = run_attack(net, attack, samples, batch_size=LEAST)
    assert set(calls) == {threading.get_ident()}, "somebody listens"
    net[2]._forward_hooks.clear()
    for one, other in zip(run_attack(net, attack, samples, batch_size=LEAST), in_turn, strict=True):
        assert torch.equal(one.robust, other.robust)
        assert one.backwards == other.backwards
        assert abs(one.forwards - other.forwards) <= N // LEAST, "APGD-T asks once a chunk how many classes there are"
        assert torch.allclose(one.distance, other.distance, rtol=0, atol=1e-9)


class Own(nn.Sequential):
    """A user's class, which may keep what it likes."""


def hooked(net):
    net[0].register_forward_pre_hook(lambda *_: None)
    return net


def replaced(net):
    net[0].forward = net[0].forward
    return net


@pytest.mark.parametrize(
    ("net", "device", "n", "threads"),
    [
        (tiny_net(), "cpu", N, 3),
        (tiny_net(), "cpu", 2 * LEAST, 2),
        (tiny_net(), "cpu", LEAST, 1),
        (tiny_net(), "cpu", 0, 1),
        (tiny_net(), "cuda", N, 1),
        (Own(nn.Flatten()), "cpu", N, 1),
        (nn.Sequential(nn.FractionalMaxPool2d(2, 3), nn.Flatten()), "cpu", N, 1),
        (hooked(tiny_net()), "cpu", N, 1),
        (replaced(tiny_net()), "cpu", N, 1),
    ],
)
def test_only_networks_that_keep_nothing_are_called_from_several_threads(net, device, n, threads):
    with quick_convolutions(net):
        assert plan_threads(net, torch.device(device), n, 128)[0] == threads


@pytest.mark.parametrize("name", MODELS)
def test_the_papers_networks_keep_nothing(name):
    net = build_model(ModelSpec(name=name, channels=1, height=28, width=28, classes=10)).eval()
    assert plan_threads(net, CPU, N, 128) == (3, N // 3)
    assert plan_threads(net, CPU, 100 * N, 96) == (3, 64), "two batches at once, at most"
    assert plan_threads(net, CPU, N, LEAST) == (2, LEAST)
    assert plan_threads(net, CPU, N, 2) == (1, 2)


def test_what_a_caller_has_switched_on_for_his_thread_holds():
    net = tiny_net()
    with torch.autocast("cpu"):
        assert plan_threads(net, CPU, N, 128)[0] == 1
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert plan_threads(net, CPU, N, 128)[0] == 1
    handle.remove()
    assert plan_threads(net, CPU, N, 128)[0] == 3


def test_this_thread_keeps_its_own_threads():
    net, seen = tiny_net(), []
    run_attack(
        net,
        parse_attack("pgd:eps=0.05"),
        tiny_samples(net, N),
        on_progress=lambda *_: seen.append(torch.get_num_threads()),
    )
    assert set(seen) == {3}


def endless(meter):
    while True:
        meter(torch.zeros(1, 1, 8, 8).double())


def failing(meter):
    raise AttackError("left the ball")


def test_one_that_fails_stops_the_others():
    made = run_in_threads([failing, endless, endless, endless], Meter(tiny_net()), 3)
    with pytest.raises(AttackError, match="left the ball"):
        list(made)


def test_whoever_stops_listening_stops_them():
    ended = []

    def watched(meter):
        try:
            endless(meter)
        except CancelledError:
            ended.append(True)
            raise

    before = threading.active_count()
    made = run_in_threads([lambda meter: torch.ones(2), watched, watched], Meter(tiny_net()), 3)
    assert next(made).tolist() == [1, 1]
    made.close()
    assert all(ended)
    assert threading.active_count() <= before


def test_ctrl_c_keeps_what_is_finished_and_ends_soon():
    net = tiny_net()
    seen = []

    def interrupt(*parts):
        seen.append(parts)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(net, parse_attack("pgd:eps=0.001"), tiny_samples(net, N), on_progress=interrupt)
    assert torch.get_num_threads() == 3
    assert all(not module._forward_hooks for module in net.modules())
