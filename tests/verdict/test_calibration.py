"""The calibration set: good networks raise nothing at SUSPECT, each masked one its check, and the page says so."""

from __future__ import annotations

import importlib.util
import json
import sys
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
def make_verdict() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_verdict", ROOT / "scripts" / "make_verdict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(make_verdict: ModuleType) -> None:
    found = json.loads(make_verdict.RESULTS.read_text(encoding="utf-8"))
    assert make_verdict.PAGE.read_text(encoding="utf-8") == make_verdict.page(found), (
        "run python scripts/make_verdict.py --page"
    )


def test_the_measured_set_keeps_what_the_verdict_promises(make_verdict: ModuleType) -> None:
    networks = json.loads(make_verdict.RESULTS.read_text(encoding="utf-8"))["networks"]
    fired = {network["name"]: network["fired"] for network in networks}
    for network in networks:
        assert network["fired"].keys() <= CHECKS.keys()
        if network["kind"] == "good":
            assert not {"SUSPECT", "INVALID"} & set(network["fired"].values()), network
        if network["kind"] == "as it is":
            assert network["word"] == "SUSPECT"
    for mask in MASKS:
        assert LEVELS.index(fired[mask.name][mask.check]) >= LEVELS.index(mask.level)  # type: ignore[arg-type]
