"""`--checks` and `--force`, the verdict under the table and in the JSON, and exit code 5."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from robustcli.models import sources
from robustcli.testing.masked import MASKS, Wrapped
from robustcli.verdict import judge, rows, survivors

from .conftest import Call

FGSM = ("--attack", "fgsm:eps=0.1", "--limit", "24")
PGD = ("--attack", "pgd:eps=0.1,steps=3", "--limit", "24")
FAULT = "batch norm ignores eval"
BOUND = "An upper bound; an adaptive attack may lower it."


@pytest.fixture
def mask(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Every checkpoint that is opened gets this fault."""

    def masked(name: str) -> None:
        build = next(one.build for one in MASKS if one.name == name)
        real = sources.load_model

        def load(*arguments: Any) -> nn.Module:
            return build(real(*arguments))

        monkeypatch.setattr(sources, "load_model", load)

    return masked


def test_weak_attacks_are_never_better_than_preliminary(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FGSM)
    assert ended.code == 0
    assert (
        "\nVerdict: PRELIMINARY: only fgsm ran: an upper bound from weak attacks; add pgd or autoattack\n" in ended.out
    )
    assert re.search(r"\n  \d+ checks were not run: --checks full can run \d+ of them\.\n", ended.out)
    assert ended.out.rstrip().endswith(BOUND)


def test_json_holds_the_verdict_of_each_checkpoint(call: Call, models: Path) -> None:
    ended = call("compare", models / "vanilla.pt", models / "batchout.pt", *PGD, "--format", "json")
    verdict = ended.document["verdict"]
    assert (verdict["word"], verdict["checks"]) == ("PRELIMINARY", "quick")
    assert [one["checkpoint"] for one in verdict["checkpoints"]] == [
        str(models / name) for name in ("vanilla.pt", "batchout.pt")
    ]
    findings = {one["id"]: one for one in verdict["checkpoints"][0]["findings"]}
    assert {"P1", "P6", "P13", "R5", "R18", "R19", "R21", "R23"} <= findings.keys()
    assert findings["P1"].keys() == {"id", "title", "level", "message", "criterion"}
    assert "R8" in verdict["checkpoints"][0]["not_run"]


def test_checks_off_ask_nothing_and_say_nothing(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "before", lambda *_: pytest.fail("checked"))
    assert "Verdict" not in call("evaluate", models / "vanilla.pt", *FGSM, "--checks", "off").out
    ended = call("evaluate", models / "vanilla.pt", *FGSM, "--checks", "off", "--format", "json")
    assert ended.document["verdict"] is None


def test_full_checks_can_end_reliable(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "MANY_QUERIES", 20)
    monkeypatch.setattr(survivors, "DRAWS", 5)
    monkeypatch.setattr(rows, "WIDE_INTERVAL", 1.0)
    attacks = ("--attack", "pgd:eps=0.02", "--limit", "24")
    verdict = call("evaluate", models / "vanilla.pt", *attacks, "--checks", "full", "--format", "json").document[
        "verdict"
    ]
    (one,) = verdict["checkpoints"]
    assert (verdict["checks"], one["word"]) == ("full", "RELIABLE"), one["reason"]
    assert {"R8", "R12", "R13", "R16"} & set(one["not_run"]) == set()


def test_the_standard_preset_has_what_reliable_takes(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MANY_STEPS", 3)
    monkeypatch.setattr(rows, "WIDE_INTERVAL", 1.0)
    attacks = ("--attack", "autoattack:eps=0.02,rounds=3,queries=1000", "--limit", "12")
    verdict = call("evaluate", models / "vanilla.pt", *attacks, "--format", "json").document["verdict"]
    assert verdict["word"] == "RELIABLE", verdict["checkpoints"][0]["reason"]


@pytest.mark.parametrize("command", ["evaluate", "compare", "attack"])
def test_an_invalid_model_is_not_measured(call: Call, models: Path, mask: Callable[[str], None], command: str) -> None:
    mask(FAULT)
    ended = call(command, models / "vanilla.pt", *FGSM, "--json", "r.json")
    assert (ended.code, "fgsm" in ended.out) == (5, False)
    assert ended.error.startswith(f"error: {models / 'vanilla.pt'}: INVALID P6: ")
    assert "nothing was measured; --force measures all the same" in ended.err
    document = json.loads(Path("r.json").read_text())
    assert (document["rows"], document["verdict"]["word"]) == ([], "INVALID")


def test_force_measures_and_still_ends_with_5(call: Call, models: Path, mask: Callable[[str], None]) -> None:
    mask(FAULT)
    ended = call("evaluate", models / "vanilla.pt", *FGSM, "--force", "--fail-under", 100)
    assert ended.code == 5
    assert "Verdict: INVALID" in ended.out
    assert "warning: " in ended.err


def test_a_suspect_model_is_measured_and_told(call: Call, models: Path, mask: Callable[[str], None]) -> None:
    mask("zero-gradient layer")
    ended = call("evaluate", models / "vanilla.pt", *PGD)
    assert ended.code == 0
    assert "Verdict: SUSPECT\n  SUSPECT P8 zero gradients: " in ended.out


# --- The verdict and the store


@pytest.mark.parametrize("style", ["table", "json", "markdown", "latex"])
@pytest.mark.parametrize(
    ("fault", "flags", "code"), [("", (), 0), (FAULT, ("--force",), 5), (FAULT, (), 5)], ids=["sound", "forced", "not"]
)
def test_the_same_call_repeats_the_verdict_and_its_exit_code(
    call: Call,
    models: Path,
    mask: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    flags: tuple[str, ...],
    code: int,
    style: str,
) -> None:
    if fault:
        mask(fault)
    first = call("evaluate", models / "vanilla.pt", *FGSM, *flags, "--format", style)
    monkeypatch.setattr(judge, "before", lambda *_: pytest.fail("checked again"))
    second = call("evaluate", models / "vanilla.pt", *FGSM, *flags, "--format", style)
    assert (first.code, second.code, second.err) == (code, code, first.err)
    if style == "json":
        assert first.document["verdict"] == second.document["verdict"]
    else:
        assert second.out == first.out


def test_other_checks_and_force_are_another_question(call: Call, models: Path) -> None:
    call("evaluate", models / "vanilla.pt", *FGSM)
    assert "Verdict" not in call("evaluate", models / "vanilla.pt", *FGSM, "--checks", "off").out
    assert "Verdict" in call("evaluate", models / "vanilla.pt", *FGSM, "--force").out


def test_a_run_from_the_store_has_a_verdict(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "MANY_QUERIES", 20)
    monkeypatch.setattr(survivors, "DRAWS", 5)
    call("evaluate", models / "vanilla.pt", *PGD, "--checks", "off")
    for level in ("quick", "full"):
        ended = call("evaluate", models / "vanilla.pt", *PGD, "--checks", level, "--format", "json")
        assert [row["cached"] for row in ended.document["rows"]] == [24]
        (one,) = ended.document["verdict"]["checkpoints"]
        ran = {finding["id"] for finding in one["findings"]}
        assert ran & {"R2", "R4", "R17"} == ({"R2", "R4", "R17"} if level == "full" else set())
        assert {"R5", "R18"} <= ran


def test_ctrl_c_during_the_checks_prints_what_is_finished_and_keeps_no_verdict(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(_: Any) -> Any:
        raise KeyboardInterrupt

    full = ("compare", "--attack", "pgd:eps=0.1,steps=3", "--limit", "24", "--checks", "full", "--json", "r.json")
    with monkeypatch.context() as patched:
        patched.setattr(judge, "of_survivors", stops)
        ended = call(*full)
    told = "2 of 2 rows were finished and are kept; the checks were cut short; the same command goes on from there"
    assert (ended.code, ended.err.splitlines()[-1]) == (130, f"interrupted: {told}")
    assert ended.out.count("PRELIMINARY: the checks were cut short") == 2, "also where the second one's never began"
    assert ended.out.count("  The checks were cut short: ") == 2
    document = json.loads(Path("r.json").read_text())
    assert (len(document["rows"]), document["verdict"]["word"]) == (2, "PRELIMINARY")
    monkeypatch.setattr(survivors, "MANY_QUERIES", 20)
    assert "R13" not in call(*full, "--format", "json").document["verdict"]["checkpoints"][0]["not_run"]


# --- A model that cuts the graph


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint that is opened passes no gradient to its images."""
    real = sources.load_model
    monkeypatch.setattr(
        sources, "load_model", lambda *arguments: Wrapped(real(*arguments), before=lambda x: x.detach())
    )


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("spec", ["fgsm:eps=0.1", "deepfool", "autoattack:eps=0.1", "fab-t:eps=0.1"])
def test_an_attack_along_gradients_on_a_cut_graph_is_one_line(call: Call, models: Path, spec: str) -> None:
    ended = call("evaluate", models / "vanilla.pt", "--attack", spec, "--limit", 8, "--force")
    assert ended.code == 3
    assert ended.error.startswith(f"error: {models / 'vanilla.pt'}: the model passes no gradient to its images (")


@pytest.mark.usefixtures("cut")
def test_a_cut_graph_costs_only_the_checks_that_take_gradients(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survivors, "DRAWS", 5)
    square = ("--attack", "square:eps=0.01,queries=10", "--limit", 12, "--checks", "full", "--format", "json")
    ended = call("evaluate", models / "vanilla.pt", *square)
    assert ended.code == 0, ended.err
    (one,) = ended.document["verdict"]["checkpoints"]
    assert {"R8", "R9", "R10", "R17"} <= set(one["not_run"])
    assert not {"R13", "R16"} & set(one["not_run"])


# --- Rows that are not on the same samples, or have no budget


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_run_that_stops_early_has_a_verdict_on_the_samples_that_all_attacks_met(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(survivors, "MANY_QUERIES", 20)
    monkeypatch.setattr(survivors, "DRAWS", 5)
    attacks = ("--attack", "fgsm:eps=0.1", "--attack", "pgd:eps=0.5,steps=10", "--attack", "deepfool")
    early = ("--until-ci", 14, "--batch-size", 8, "--checks", level, "--format", "json")
    ended = call("evaluate", models / "vanilla.pt", *attacks, *early)
    assert ended.code == 0, ended.err
    reached = [row["n"] for row in ended.document["rows"]]
    assert len(set(reached)) > 1, reached
    told = {one["id"]: one["message"] for one in ended.document["verdict"]["checkpoints"][0]["findings"]}
    assert told["R18"].startswith(f"n = {min(reached)} to {max(reached)}, and what all of them met is compared: ")
    assert ("R10" in told) == (level == "full")


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_curve_has_a_verdict(call: Call, models: Path, level: str) -> None:
    flags = ("--curve", "--attack", "fmn:iters=20", "--eps", "0.1", "--limit", 12, "--checks", level)
    ended = call("evaluate", models / "vanilla.pt", *flags)
    assert ended.code == 0, ended.err
    assert "Verdict: PRELIMINARY" in ended.out


def test_the_transfer_matrix_is_heard(call: Call, models: Path) -> None:
    ended = call("compare", *PGD, "--transfer", "--format", "json")
    for one in ended.document["verdict"]["checkpoints"]:
        (heard,) = [finding for finding in one["findings"] if finding["id"] == "R14"]
        (other,) = {str(Path("checkpoints") / name) for name in ("vanilla.pt", "batchout.pt")} - {one["checkpoint"]}
        assert f"its images of {other} leave " in heard["message"]
