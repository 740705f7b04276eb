"""The calibration set: good networks raise nothing at SUSPECT, each masked one its check, and the page says so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from robustcli.attacks import parse_attack
from robustcli.config import DataSpec
from robustcli.data.images import Images
from robustcli.data.load import load
from robustcli.engine.run import Samples, run_attack
from robustcli.measure.evaluate import to_record
from robustcli.measure.record import Subject
from robustcli.models.sources import open_target
from robustcli.testing.masked import MASKS
from robustcli.verdict.check import CHECKS, LEVELS, Finding, at_least, findings
from robustcli.verdict.controls import transfer_not_better
from robustcli.verdict.model import inspect_model
from robustcli.verdict.probes import Measurement
from robustcli.verdict.rows import Results

ROOT = Path(__file__).parents[2]
SPECS = ("fgsm:eps=0.1", "fgsm:eps=0.3", "pgd:eps=0.1,steps=10", "pgd:eps=0.3,steps=10")


@pytest.fixture(scope="module")
def digits() -> Images:
    """Digits of the training set: what a network remembers makes it no more masked."""
    return load(DataSpec(dataset="mnist-sample", limit=48))


def pixels(images: Images) -> Samples:
    return Samples(images.batch(slice(None)), images.y, images.ids)


def measured(name: str, images: Images) -> list[Finding]:
    target, samples = open_target(f"zoo:{name}"), pixels(images)
    attacks = [parse_attack(spec) for spec in SPECS]
    subject = Subject(target.name, target.key, target.model, target.method)
    rows = [to_record(subject, images, run_attack(target.module, attack, samples)[0]) for attack in attacks]
    seen = inspect_model(target.module, samples, attacks)
    found = [*findings(seen, "preflight"), *findings(Results(rows), "reuse")]
    return found + transfer_not_better(Measurement(target.module, images, rows))


@pytest.mark.parametrize("name", ["mnist-vanilla", "mnist-gaussian", "mnist-pgd"])
def test_a_good_network_raises_nothing_at_suspect(name: str, digits: Images) -> None:
    assert at_least(measured(name, digits), "SUSPECT") == []


@pytest.mark.parametrize(
    ("name", "checks"), [("mnist-fgsm", ["R14", "R22"]), ("mnist-batchout", ["R14"])], ids=["fgsm", "batchout"]
)
def test_fgsm_training_and_batchout_are_told_as_what_they_are(name: str, checks: list[str], digits: Images) -> None:
    suspect = at_least(measured(name, digits), "SUSPECT")
    assert sorted(finding.id for finding in suspect) == checks


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
