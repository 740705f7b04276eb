"""Several processes share a run: the parts are even, and what all know at the end is what one process finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import parse_attack
from robustcli.engine.ranks import shares
from robustcli.engine.run import Outcome, predict, run_attack
from robustcli.testing import tiny_net, tiny_samples
from tests.engine import test_sampled as sampled
from tests.processes import run_both

PROGRAM = """
import sys
import torch
from robustcli.engine.ranks import Ranks, SharedJournal
from tests.engine.test_ranks import outcomes

torch.set_num_threads(1)
ranks = Ranks()
shared = SharedJournal(ranks, None)
if ranks.rank:
    ranks.send(b"x" * 2**24)
else:
    while not (found := list(ranks.receive())):
        pass
    assert found == [b"x" * 2**24], "more than torch's store takes at once"
torch.save(outcomes(shared=shared), f"{sys.argv[1]}/{ranks.rank}.pt")
ranks.leave()
"""


def outcomes(**options: Any) -> list[dict[str, object]]:
    """A sweep over budgets, one attack at two, a trace, and an ensemble whose members meet fewer and fewer samples."""
    net = tiny_net()
    images = tiny_samples(net)
    options |= {"keep_images": True, "pred": predict(net, images.x, 11)}
    rows, found = list[Outcome](), []
    for text, budgets in (
        ("fgsm:eps=0.1", (0.02, 0.1)),
        ("pgd:eps=0.1,steps=3", (0.02, 0.1)),
        ("deepfool:iters=3", ()),
        ("autoattack:eps=0.05,rounds=2,queries=5", ()),
    ):
        rows += run_attack(net, parse_attack(text, {}), images, budgets=budgets, **options)
    _, met = sampled.run(sampled.FIRST)
    options["pred"] = torch.zeros(sampled.N).long()
    rows += sampled.run(sampled.FIRST, met[1][:1], **options)[0]  # so that all is met after the sample
    for row in rows:
        passes = () if row.attack.name in ("breaks", "trio") else ("forwards", "backwards")  # what is in a chunk counts
        found.append({key: value for key, value in vars(row).items() if key not in ("attack", "seconds", *passes)})
    return found


@given(st.sets(st.integers(0, 60)), st.integers(1, 5))
def test_parts_are_even_disjoint_and_mostly_where_they_were(positions: set[int], ranks: int) -> None:
    busy = torch.tensor(sorted(positions), dtype=torch.int64)
    parts = shares(busy, ranks)
    assert sorted(torch.cat(parts).tolist()) == busy.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for rank, part in enumerate(parts):
        own = int((busy % ranks == rank).sum())
        assert int((part % ranks == rank).sum()) >= min(own, len(busy) // ranks)


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    for ended in run_both(["-c", PROGRAM, tmp_path]):
        assert ended.returncode == 0, ended.stderr
    alone = outcomes()
    for rank in range(2):
        both = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for one, two in zip(alone, both, strict=True):
            for key, value in one.items():
                same = torch.equal(value, two[key]) if isinstance(value, torch.Tensor) else value == two[key]
                assert same, (rank, one["ensemble"], key, value, two[key])
