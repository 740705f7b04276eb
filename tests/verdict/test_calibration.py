"""The calibration set: good networks raise nothing at SUSPECT, each masked one its check, and the page says so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from robustcli.attacks import parse_attack
from robustcli.attacks.driver import Samples, run_attack
from robustcli.config import DataSpec
from robustcli.data import load
from robustcli.evaluation.evaluate import open_checkpoint
from robustcli.evaluation.results import Row, to_row
from robustcli.testing.masked import MASKS, Mask
from robustcli.verdict.controls import transferred
from robustcli.verdict.findings import LEVELS, Finding, at_least
from robustcli.verdict.look import look
from robustcli.verdict.preflight import preflight
from robustcli.verdict.rivals import RIVALS
from robustcli.verdict.runs import EACH, RUNS
from robustcli.verdict.table import CHECKS

ROOT = Path(__file__).parents[2]
SPECS = ("fgsm:eps=0.1", "fgsm:eps=0.3", "pgd:eps=0.1,steps=10", "pgd:eps=0.3,steps=10")
SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def digits() -> Samples:
    """Digits of the training set: what a network remembers makes it no more masked."""
    images = load(DataSpec(dataset="mnist-sample", limit=48))
    return Samples(images.pixels(slice(None)), images.y, images.ids)


def quick(model: nn.Module, rows: list[Row], samples: Samples) -> list[Finding]:
    found = preflight(look(model, samples), [row.attack for row in rows], SHAPE)
    found += [finding for check in (*EACH, *RUNS, *RIVALS) for finding in check(rows)]
    return found + transferred("mnist", model, samples, torch.arange(len(samples)), rows, seed=0)


def measured(name: str, samples: Samples) -> list[Finding]:
    candidate = open_checkpoint(Path(f"zoo:{name}"))
    outcomes = [run_attack(candidate.model, parse_attack(spec), samples)[0] for spec in SPECS]
    rows = [to_row(candidate.subject, "mnist-sample", samples.ids.tolist(), outcome) for outcome in outcomes]
    return quick(candidate.model, rows, samples)


@pytest.mark.parametrize("name", ["mnist-vanilla", "mnist-gaussian", "mnist-pgd"])
def test_a_good_network_raises_nothing_at_suspect(name: str, digits: Samples) -> None:
    assert at_least(measured(name, digits), "SUSPECT") == []


@pytest.mark.parametrize(
    ("name", "checks"), [("mnist-fgsm", ["R14", "R22"]), ("mnist-batchout", ["R14"])], ids=["fgsm", "batchout"]
)
def test_fgsm_training_and_batchout_are_told_as_what_they_are(name: str, checks: list[str], digits: Samples) -> None:
    suspect = at_least(measured(name, digits), "SUSPECT")
    assert sorted(finding.id for finding in suspect) == checks


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
def test_a_masked_network_raises_at_least_its_check(mask: Mask, digits: Samples) -> None:
    model = mask.build(open_checkpoint(Path("zoo:mnist-vanilla")).model)
    attacks = [parse_attack(spec) for spec in SPECS]
    fired = {finding.id: finding for finding in preflight(look(model, digits), attacks, SHAPE)}
    assert fired[mask.check].rank >= LEVELS.index(mask.level), fired[mask.check]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def make_verdict() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")  # it imports `robust_networks`, which lies beside it
        yield importlib.import_module("make_verdict")


def test_the_page_is_what_the_script_writes(make_verdict: ModuleType) -> None:
    assert make_verdict.PAGE.read_text(encoding="utf-8") == make_verdict.page(), (
        "run python scripts/make_verdict.py --page"
    )


def test_the_measured_set_keeps_what_the_verdict_promises(make_verdict: ModuleType) -> None:
    networks = make_verdict.read("networks")
    fired = {network["name"]: network["fired"] for network in networks}
    for network in networks:
        assert network["fired"].keys() <= CHECKS.keys()
        if network["kind"] == "good":
            assert not {"SUSPECT", "INVALID"} & set(network["fired"].values()), network
        if network["kind"] == "as it is":
            assert network["word"] == "SUSPECT"
    for mask in MASKS:
        assert LEVELS.index(fired[mask.name][mask.check]) >= LEVELS.index(mask.level)  # type: ignore[arg-type]


def test_robust_networks_are_robust_and_next_to_none_of_their_runs_is_suspect(make_verdict: ModuleType) -> None:
    for whole in make_verdict.read("ensembles"):
        if whole["network"] in make_verdict.ROBUST:
            assert 2 * whole["correct"] >= whole["clean"], whole
    runs = make_verdict.robust_runs(make_verdict.read("runs"))
    assert len(runs) >= 60
    assert sum(run["word"] in ("SUSPECT", "INVALID") for run in runs) <= 1


def test_reliable_numbers_are_near_autoattacks(make_verdict: ModuleType) -> None:
    found = make_verdict.reliable(make_verdict.read("runs"), make_verdict.read("ensembles"))
    assert len({(run["network"], run["eps"]) for run, _ in found}) >= 12
    gaps = [gap for _, gap in found]
    assert sum(gaps) / len(gaps) <= 1
    assert sum(gap > 2 for gap in gaps) <= 1
