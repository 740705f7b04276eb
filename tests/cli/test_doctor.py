"""`robustcli doctor`: one line a finding, and what to do about what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustcli import doctor
from robustcli.attacks import ATTACKS, PGD
from robustcli.attacks.norms import Linf
from robustcli.config import EvalSpec
from robustcli.doctor import Finding, examine, examine_checkpoint
from robustcli.measure.binarisation import Binarised
from robustcli.models import zoo

from .conftest import Call, write_checkpoint


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """Of this installation, without data."""
    return {finding.what: finding for finding in examine(tmp_path_factory.mktemp("nothing"))}


def test_this_installation_is_well(findings: dict[str, Finding]) -> None:
    assert [finding for finding in findings.values() if finding.state == "wrong"] == []


def test_every_attack_is_examined_in_the_norms_that_it_takes(findings: dict[str, Finding]) -> None:
    assert {name for name in ATTACKS if findings[name].state == "ok"} == set(ATTACKS)
    assert findings["pgd"].message.startswith("keeps its contract in linf, l2")


def test_missing_data_is_a_note_with_what_to_do(findings: dict[str, Finding]) -> None:
    assert findings["mnist"].state == "note"
    assert "--data-dir or $ROBUSTCLI_DATA" in findings["mnist"].message
    assert findings["mnist-sample"].message == "4000 training and 1000 test images, bundled"


def found_in(examined: Iterator[Finding]) -> Finding:
    (finding,) = [finding for finding in examined if finding.state == "wrong"]
    return finding


@pytest.mark.parametrize(("there", "state", "told"), [(True, "ok", "in hardware"), (False, "note", "take float32")])
def test_a_type_that_would_be_slow_is_noted(
    there: bool, state: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "multiplies", lambda dtype, device: there)
    (finding,) = [finding for finding in doctor._environment() if finding.what == "bfloat16"]
    assert (finding.state, told in finding.message) == (state, True)


def test_an_attack_that_breaks_its_contract_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("fgsm left the ball")

    monkeypatch.setattr(doctor, "check_attack", broken)
    monkeypatch.setattr(doctor, "ATTACKS", {"fgsm": ATTACKS["fgsm"]})
    assert found_in(doctor._attacks()).message.startswith("in linf: fgsm left the ball")


def test_other_draws_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PINNED", (0.1, 0.2, 0.3))
    assert "results cannot be compared" in found_in(iter([doctor._draws()])).message


def test_a_damaged_network_of_the_zoo_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(zoo.FOLDER, tmp_path / "zoo")
    (folder / "mnist-vanilla.pt").write_bytes(b"no longer")
    monkeypatch.setattr(zoo, "FOLDER", folder)
    assert found_in(doctor._zoo()).message == "mnist-vanilla: damaged or missing; install the package again"


def test_images_that_are_not_the_published_ones_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FINGERPRINTS", {("mnist-sample", "test"): "ab12"})
    assert found_in(doctor._data(tmp_path)).message.endswith("bundled: its test images are not the published ones")


def test_the_command_prints_a_line_a_finding_and_ends_with_3_where_one_is_wrong(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Finding("torch", "ok", "2.4"), Finding("zoo", "wrong", "damaged"), Finding("mnist", "note", "not here")]
    monkeypatch.setattr(doctor, "examine", lambda data_dir: iter(made))
    ended = call("doctor")
    assert ended.code == 3
    assert [line.split() for line in ended.out.splitlines()] == [
        ["ok", "torch", "2.4"],
        ["wrong", "zoo", "damaged"],
        ["note", "mnist", "not", "here"],
        [],
        ["1", "wrong"],
    ]
    monkeypatch.setattr(doctor, "examine", lambda data_dir: iter(made[:1]))
    assert call("doctor").code == 0


# --- With a checkpoint


def test_a_checkpoint_adds_the_binarisation_test(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda data_dir: iter(()))
    ended = call("doctor", models / "vanilla.pt", "--limit", 4, "--attack", "pgd:steps=5", "--eps", "0.1,0.2")
    assert ended.code == 0, ended.err
    first, second, *_ = ended.out.splitlines()
    assert "binarisation   pgd:steps=5 finds 4 of 4 adversarials planted at Linf 0.1, random draws " in first
    assert "Linf 0.2" in second


def judged(found: int, at_random: int) -> tuple[str, str]:
    flags = tuple((1,) * count + (0,) * (20 - count) for count in (found, at_random))
    return doctor._judged(Binarised(PGD(0.1), 0.1, Linf(), tuple(range(20)), *flags, 0))


def test_an_attack_that_misses_what_is_planted_is_wrong() -> None:
    assert judged(19, 0)[0] == "ok"
    state, told = judged(18, 0)
    assert state == "wrong"
    assert "finds 18 of 20 adversarials" in told
    assert "accuracy under it is too high" in told


def test_what_chance_finds_tells_nothing() -> None:
    state, told = judged(20, 10)
    assert state == "note"
    assert "random draws 10: too easy" in told


def test_a_checkpoint_without_its_data_is_a_note(here: Path) -> None:
    write_checkpoint(here / "digits.pt")
    (finding,) = examine_checkpoint(here / "digits.pt", EvalSpec(attacks=("pgd",), limit=4))
    assert (finding.what, finding.state) == ("binarisation", "note")
    assert finding.message.startswith("not run: ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--attack", "pgd"), 2, "--attack: is of the binarisation test, which takes a checkpoint"),
        (("checkpoints/vanilla.pt", "--attack", "deepfool"), 2, "--attack deepfool: has no budget"),
        (("checkpoints/vanilla.pt", "--attack", "pdg"), 2, "did you mean 'pgd'?"),
        (("checkpoints/vanilla.pt", "--limit", "0"), 2, "--limit 0"),
        (("missing.pt",), 3, "missing.pt"),
    ],
)
def test_a_mistake_is_one_line(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda data_dir: iter(()))
    ended = call("doctor", *arguments)
    assert ended.code == code
    assert message in ended.error
