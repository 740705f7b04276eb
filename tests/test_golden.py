"""Our attacks against frozen results of the peers; `tests/reference` runs the peers themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.attacks import parse_attack
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise

sys.path.insert(0, str(Path(__file__).parent))

from golden.frozen import FILE, Small, measure, read, small

FROZEN = read()
RUNS = FROZEN["runs"]
EXACT = [run for run in RUNS if not run["flags"]]


def label(run: dict[str, Any]) -> str:
    return f"{run['peer']}-{run['spec']}"


@pytest.fixture(scope="module")
def case() -> Small:
    return small(FROZEN)


def test_the_file_is_small_and_names_its_versions() -> None:
    assert FILE.stat().st_size < 100_000
    assert {"foolbox", "torchattacks", "adversarial-robustness-toolbox", "torch"} == set(FROZEN["versions"])


def test_the_frozen_network_is_right_on_its_images(case: Small) -> None:
    with torch.no_grad():
        assert torch.equal(case.net(case.x).argmax(1), case.y)


@pytest.mark.parametrize("run", RUNS, ids=label)
def test_our_images_are_those_of_the_peer(case: Small, run: dict[str, Any]) -> None:
    attack = parse_attack(run["spec"])
    x_adv = attack.perturb(case.net, case.x, case.y, Noise(0, torch.arange(len(case.x))))
    ours = measure(case, attack.norm, x_adv)
    off = sum(mine != theirs for mine, theirs in zip(ours["standing"], run["standing"], strict=True))
    assert off <= run["flags"]
    # The wave adds up the errors of 64 pixels.
    for key, tolerance in (("distance", run["tolerance"]), ("wave", 8 * run["tolerance"])):
        torch.testing.assert_close(torch.tensor(ours[key]), torch.tensor(run[key]), atol=tolerance, rtol=0)


@pytest.mark.parametrize("run", EXACT, ids=label)
def test_the_driver_counts_who_stands_as_the_peer_does(case: Small, run: dict[str, Any]) -> None:
    samples = Samples(case.x, case.y, torch.arange(len(case.x)))
    (outcome,) = run_attack(case.net, parse_attack(run["spec"]), samples, batch_size=16)
    assert "".join(str(int(flag)) for flag in outcome.robust) == run["standing"]
