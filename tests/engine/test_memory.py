"""Out of memory: smaller chunks, the same flags, and a line for each halving; what `--batch-size auto` takes."""

import re

import pytest
import torch
from torch import nn

from robustcli.attacks import APGD, FABT, FGSM, FMN, PGD, AutoAttack, DeepFool, Square
from robustcli.engine import memory
from robustcli.engine.memory import ChunkSize, samples_that_fit
from robustcli.engine.outcome import predict_samples
from robustcli.engine.run import run_attack
from robustcli.testing import tiny_net, tiny_samples

N, FITS = 60, 7


class Fail(torch.autograd.Function):
    """The identity, which needs too much memory on the way back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if len(gradient) > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return gradient


class Small(nn.Module):
    """Needs too much memory for more than FITS samples, forwards or on the way back."""

    def __init__(self, where, fits=FITS):
        super().__init__()
        self.net, self.where, self.fits = tiny_net(), where, fits
        self.eval()

    def forward(self, x):
        if self.where == "forward" and len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.net(Fail.apply(x) if self.where == "backward" else x)


ATTACKS = [
    (PGD(0.1, steps=3), [0.05, 0.2]),
    (FGSM(0.1), [0.05, 0.1, 0.2]),  # sweeps
    (DeepFool(iters=3), []),  # traces
    (FMN(iters=3), []),
    (Square(0.1, queries=20), [0.1]),
    (AutoAttack(0.1, rounds=2, queries=10), [0.05]),
    (AutoAttack(0.1, version="fast", rounds=2, queries=10), [0.05]),
]


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("attack", "budgets"), ATTACKS, ids=lambda value: getattr(value, "name", ""))
def test_smaller_chunks_give_the_same_flags(attack, budgets, where):
    samples = tiny_samples(tiny_net(), N)
    expected = run_attack(tiny_net(), attack, samples, budgets=budgets)
    if where == "backward" and attack.needs != "gradients":
        return
    with pytest.warns(UserWarning, match=r"^out of memory with \d+ samples a chunk; going on with \d+$") as caught:
        outcomes = run_attack(Small(where), attack, samples, budgets=budgets)
    for mine, its in zip(outcomes, expected, strict=True):
        assert torch.equal(mine.robust, its.robust)
        assert torch.equal(mine.pred_after, its.pred_after)
        assert mine.by_iter == its.by_iter
    sizes = [tuple(map(int, re.findall(r"\d+", str(one.message)))) for one in caught]
    assert all(now == before // 2 for before, now in sizes)
    assert sizes[-1][1] <= FITS
    assert len(sizes) <= 5, "once a halving"


def test_threads_stop_before_smaller_chunks_begin(monkeypatch):
    monkeypatch.setattr("robustcli.engine.run.plan_threads", lambda model, device, n, size: (2, size))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    samples = tiny_samples(tiny_net(), N)
    with pytest.warns(UserWarning, match="out of memory") as caught:
        outcomes = run_attack(Small("backward"), APGD(0.1, steps=4), samples, batch_size=16)
    assert torch.equal(outcomes[0].robust, run_attack(tiny_net(), APGD(0.1, steps=4), samples)[0].robust)
    assert [str(one.message)[-2:].strip() for one in caught] == ["8", "4"]


def test_a_single_sample_that_is_too_much_is_an_error():
    samples = tiny_samples(tiny_net(), 4)
    with pytest.warns(UserWarning, match="out of memory") as caught, pytest.raises(Exception, match="out of memory"):
        run_attack(Small("forward", 0), FGSM(0.1), samples)
    assert len(caught) == 2
    assert not ChunkSize(8).halve(ValueError("another"), 8)


def test_all_that_shares_a_size_is_halved_once():
    size, samples = ChunkSize(40), tiny_samples(tiny_net(), N)
    with pytest.warns(UserWarning, match="out of memory") as caught:
        pred = predict_samples(Small("forward"), samples, size)
    run_attack(Small("forward"), FABT(0.1, iters=2), samples, batch_size=size)  # a warning would be an error
    assert torch.equal(pred, tiny_net()(samples.x).argmax(1))
    assert [str(one.message).split()[-1] for one in caught] == ["20", "10", "5"]
    assert size.samples == 5


@pytest.mark.parametrize(("free", "fit"), [(10**12, 128), (3 * 10**5, 8), (100, 1)])
def test_auto_takes_half_of_what_is_free(monkeypatch, free, fit):
    monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
    x = tiny_samples(tiny_net(), 2).x
    size = samples_that_fit(tiny_net(), x)
    assert size == fit
    assert memory._free_bytes(x.device) == free
