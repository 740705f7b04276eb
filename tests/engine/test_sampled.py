"""An ensemble whose last members meet a sample first: what they break there decides whether they meet all."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import nn

from robustcli.attacks import AutoAttack, parse_attack
from robustcli.attacks.base import survivors
from robustcli.attacks.norms import L1, Linf, Norm
from robustcli.engine import samples as engine_samples
from robustcli.engine.run import Samples, run_attack
from robustcli.testing.masked import MASKS
from robustcli.testing.tiny import tiny_net

N, SAMPLE = 80, 12


@dataclass(frozen=True)
class Breaks:
    """Breaks the samples of these ids, and notes which it met."""

    ids: tuple = ()
    met: list = field(default_factory=list)
    eps: float = 0.5
    norm: Norm = field(default_factory=Linf)
    name: ClassVar[str] = "breaks"
    summary: ClassVar[str] = "breaks what it is told to"
    kind, needs, losses, weak, parameter_free, cost = "budget", "decisions", (), True, False, 1

    def perturb(self, model, x, y, noise):
        self.met.extend(noise.ids.tolist())
        broken = torch.isin(noise.ids, torch.tensor(self.ids, dtype=torch.int64))
        return torch.where(broken[:, None, None, None], 1 - x, x)


@dataclass(frozen=True)
class Trio:
    """One member on all, and two that meet a sample first."""

    members: tuple
    sampled: int = 2
    eps: float = 0.5
    norm: Norm = field(default_factory=Linf)
    name: ClassVar[str] = "trio"
    summary: ClassVar[str] = "an ensemble"
    kind, needs, losses, weak, parameter_free, cost = "ensemble", "decisions", (), True, False, 3

    def perturb(self, model, x, y, noise):
        return survivors([member.perturb for member in self.members], model, x, y, noise)


class FirstPixel(nn.Module):
    def forward(self, x):
        first = x.flatten(1)[:, 0]
        return torch.stack((first, 1 - first), 1)


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(engine_samples, "LEAST_SAMPLE", SAMPLE)


def samples(order=None):
    ids = torch.arange(N) * 3 + 1
    ids = ids if order is None else ids[order]
    return Samples(torch.full((N, 1, 4, 4), 0.6), torch.zeros(N).long(), ids)


def run(first=(), second=(), third=(), given=None, **options):
    """The outcomes of a trio that breaks these ids, and the ids that each of its members met."""
    trio = Trio((Breaks(first), Breaks(second), Breaks(third)))
    given = samples() if given is None else given
    return run_attack(FirstPixel(), trio, given, **options), [sorted(member.met) for member in trio.members]


def standing(outcome, given=None):
    return sorted((samples() if given is None else given).ids[outcome.robust].tolist())


FIRST = (4, 10, 13)


def test_the_sample_is_drawn_by_ids_whatever_the_order_and_the_chunks():
    _, met = run(FIRST)
    assert met[0] == samples().ids.tolist()
    assert len(met[1]) == SAMPLE
    assert met[1] == met[2]
    assert not set(met[1]) & set(FIRST), "a sample that is broken already is none of what stands"
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for options in ({"batch_size": 1}, {"batch_size": 5}, {"given": samples(order), "batch_size": 7}):
        assert run(FIRST, **options)[1] == met
    assert run(FIRST, seed=1)[1][1] != met[1]


def test_where_the_sample_stands_the_others_are_not_met_and_the_row_says_so():
    _, met = run(FIRST)
    outside = tuple(set(samples().ids.tolist()) - set(met[1]) - set(FIRST))[:5]
    outcomes, met = run(FIRST, outside, outside)
    assert [len(ids) for ids in met] == [N, SAMPLE, SAMPLE]
    assert [int(one.robust.sum()) for one in outcomes] == [N - 3] * 4
    counts = {"survivors": N - 3, "probed": SAMPLE, "broken": 0, "unmet": N - 3 - SAMPLE}
    assert [one.sampled for one in outcomes] == [None, *[{"members": ("breaks", "breaks")} | counts] * 3]


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("batch_size", [9, 100])
def test_one_broken_of_the_sample_makes_both_meet_all(which, batch_size):
    _, met = run(FIRST)
    inside, outside = met[1][3], tuple(set(samples().ids.tolist()) - set(met[1]) - set(FIRST))
    second = (*((inside,) if which == 1 else ()), *outside[:4])
    third = (*((inside,) if which == 2 else ()), *outside[3:6])
    outcomes, met = run(FIRST, second, third, batch_size=batch_size)
    left = set(samples().ids.tolist()) - set(FIRST)
    # What a later member broke of the sample is no part of an earlier one's row, though it was broken first.
    assert [set(standing(one)) for one in outcomes] == [
        left,
        left - set(second),
        left - set(second) - set(third),
        left - set(second) - set(third),
    ]
    assert met == [samples().ids.tolist(), sorted(left), sorted(left - set(second))], "each meets each once"
    assert {(one.sampled["broken"], one.sampled["unmet"]) for one in outcomes[1:]} == {(1, 0)}


def test_a_sample_of_all_leaves_nothing_open():
    _, met = run()
    first = tuple(met[0][SAMPLE:])
    outcomes, met = run(first, (1,), (4,))
    assert met[1:] == [list(met[0][:SAMPLE]), list(met[0][1:SAMPLE])]
    assert outcomes[-1].sampled["unmet"] == 0
    assert standing(outcomes[-1]) == met[0][2:SAMPLE]
    assert run(tuple(met[0]))[0][-1].sampled is None, "there is nothing to draw from"


def test_kept_images_are_those_of_the_flags():
    _, met = run(FIRST)
    outcomes, _ = run(FIRST, (), (met[1][0],), keep_images=True)
    for outcome in outcomes:
        assert torch.equal(FirstPixel()(outcome.x_adv).argmax(1) == 0, outcome.robust)


def test_the_members_of_fast_are_those_of_standard_with_fab_last():
    for norm, eps in ((Linf(), 0.1), (L1(), 8.0)):
        fast, standard = (AutoAttack(eps, version=version, norm=norm) for version in ("fast", "standard"))
        assert set(fast.members) == set(standard.members)
        assert [member.name for member in fast.members[-fast.sampled :]] == (
            ["fab-t"] if norm == L1() else ["square", "fab-t"]
        )
        assert standard.sampled == 0


@pytest.mark.parametrize("name", ["input in 8 levels", "zero-gradient layer"])
def test_a_masked_network_makes_it_run_in_full(name):
    (mask,) = (one for one in MASKS if one.name == name)
    ids = torch.arange(N)
    x = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = mask.build(tiny_net().float())
    attack = parse_attack("autoattack:eps=0.2,version=fast,rounds=3,queries=60")
    outcomes = run_attack(net, attack, Samples(x, net(x).argmax(1), ids))
    assert outcomes[-1].sampled["broken"] > 0
    assert outcomes[-1].sampled["unmet"] == 0
    assert outcomes[-1].robust.sum() < outcomes[1].robust.sum() - SAMPLE
