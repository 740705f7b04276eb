"""The rule from findings to a word, and what is said with it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robustcli.attacks import FMN, AutoAttack, Bisection
from robustcli.measure.record import Record
from robustcli.verdict.check import CHECKS, Finding, at_least
from robustcli.verdict.judge import as_document, judge
from robustcli.verdict.rows import autoattack_ran

from .conftest import finding, make_row, results

ROWS = [make_row("pgd:eps=0.1", 50)]


def passed(*names: str) -> list[Finding]:
    return [finding(name, "OK", "", budget="Linf 0.1") for name in names]


PASSED = passed("P1", "P5", "R12", "R13", "R23", "R24")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "RELIABLE"),
        ({"R6": "WARN"}, "RELIABLE"),
        ({"R10": "INFO"}, "RELIABLE"),
        *(({name: "WARN"}, "PRELIMINARY") for name in ("R10", "R11", "R15", "R18", "R24", "P5", "P11", "P12", "P15")),
        ({"R24": None}, "PRELIMINARY"),
        ({"R23": "WARN"}, "PRELIMINARY"),
        ({"R12": None}, "PRELIMINARY"),
        ({"R13": None}, "PRELIMINARY"),
        ({"R6": "SUSPECT"}, "SUSPECT"),
        ({"R6": "SUSPECT", "R23": "WARN"}, "SUSPECT"),
        ({"P6": "INVALID", "R6": "SUSPECT"}, "INVALID"),
    ],
    ids=str,
)
def test_the_rule(changes: dict[str, str | None], word: str) -> None:
    kept = [one for one in PASSED if one.id not in changes]
    added = [finding(name, level, "why") for name, level in changes.items() if level]  # type: ignore[arg-type]
    assert judge("a.pt", [*kept, *added], ROWS).word == word


def test_squares_many_queries_stand_in_for_uniform_noise() -> None:
    findings = [one for one in PASSED if one.id != "R13"]
    for attack in ("autoattack:eps=0.1", Bisection(AutoAttack(0.1))):
        assert judge("a.pt", findings, [make_row(attack, 50)]).word == "RELIABLE"
    in_l1 = [replace(one, budget="L1 10") for one in PASSED if one.id != "R12"]
    assert judge("a.pt", in_l1, [make_row("pgd:eps=10,norm=l1", 50)]).word == "RELIABLE"
    assert judge("a.pt", findings, [make_row("square:eps=0.1,queries=100", 50)]).word == "PRELIMINARY"


NO_WAY = "an attack of many steps in Linf or L2 has to run at a budget"


def test_what_is_missing_is_the_reason() -> None:
    verdict = judge("a.pt", passed("R23", "P5"), ROWS)
    assert verdict.reason == (
        "not run: stronger ensemble at Linf 0.1, black-box not better, random search; --checks full runs them, "
        "--preset standard has them"
    )
    assert {"R12", "R13", "R17", "P1"} <= set(verdict.not_run)
    assert not {"R19", "R20", "R21", "R23"} & set(verdict.not_run)


@pytest.mark.parametrize(
    ("names", "row", "full", "reason"),
    [
        ("P5 R13 R23 R24", ROWS[0], True, f"could not run: black-box not better; {NO_WAY}"),
        ("P5 R13 R23", make_row(Bisection(AutoAttack(0.1)), 50), False, f"not run: black-box not better; {NO_WAY}"),
        ("P5 R13 R23", make_row(FMN(), 50), False, f"not run: black-box not better; {NO_WAY}"),
        (
            "P5 R12 R13",
            make_row("apgd:eps=0.1", 50, ensemble="autoattack"),
            False,
            "not run: stronger ensemble at Linf 0.1; --checks full runs them; or let autoattack finish",
        ),
    ],
    ids=["all ran already", "a bisected ensemble", "no budget", "an interrupted ensemble"],
)
def test_a_reason_offers_only_checks_that_can_run(names: str, row: Record, full: bool, reason: str) -> None:
    assert judge("a.pt", passed(*names.split()), [row], full=full).reason == reason


def test_each_budget_needs_an_ensemble_of_its_own() -> None:
    rows = [*ROWS, make_row("pgd:eps=0.3", 20)]
    assert "stronger ensemble at Linf 0.3;" in judge("a.pt", PASSED, rows).reason
    whole = [*rows, make_row("autoattack:eps=0.3", 20)]
    assert judge("a.pt", [*PASSED, *autoattack_ran(results(*whole))], whole).word == "RELIABLE"
    cut_short = [*ROWS, make_row("apgd:eps=0.3", 20, ensemble="autoattack")]
    assert "stronger ensemble at Linf 0.3;" in judge("a.pt", PASSED, cut_short).reason


def test_a_preflight_that_failed_is_no_pass() -> None:
    findings = [one for one in PASSED if one.id != "P5"]
    assert judge("a.pt", findings, ROWS).reason.startswith("not run: the preflight; ")


def test_a_warning_is_never_under_nothing_speaks_against_it() -> None:
    assert judge("a.pt", PASSED, ROWS).reason.endswith("nothing speaks against it")
    reason = judge("a.pt", [*PASSED, finding("P4", "WARN", ""), finding("R6", "WARN", "")], ROWS).reason
    assert reason == "for this threat model, an ensemble of AutoAttack's grade agrees; P4, R6 warn"


def test_the_number_to_quote_is_the_reason() -> None:
    findings = [*PASSED, finding("R10", "WARN", "moves"), finding("R24", "WARN", "quote 65.9 %", 0.08, "Linf 0.1")]
    assert judge("a.pt", findings, ROWS).reason == "quote 65.9 %"


def test_checks_that_were_cut_short_are_never_reliable_and_hide_nothing() -> None:
    verdict = judge("a.pt", PASSED, ROWS, full=True, interrupted=True)
    assert (verdict.word, verdict.reason) == ("PRELIMINARY", "the checks were cut short")
    suspect = judge("a.pt", [*PASSED, finding("R6", "SUSPECT", "one")], ROWS, full=True, interrupted=True)
    assert (suspect.word, suspect.interrupted) == ("SUSPECT", True)


def test_the_worst_comes_first_and_others_are_counted() -> None:
    findings = [finding("R6", "SUSPECT", "one"), finding("P6", "INVALID", "two")]
    assert judge("a.pt", findings, ROWS).reason == "P6: two (and 1 more)"
    assert [one.id for one in at_least([finding("R11", "WARN", ""), *findings], "SUSPECT")] == ["P6", "R6"]


def test_a_document_has_the_worst_word_and_every_finding() -> None:
    verdicts = [judge("a.pt", PASSED, ROWS), judge("b.pt", [finding("P6", "INVALID", "no", 0.5)], ROWS)]
    document = json.loads(json.dumps(as_document(verdicts, "quick")))
    assert document["word"] == "INVALID"
    assert [one["checkpoint"] for one in document["checkpoints"]] == ["a.pt", "b.pt"]
    assert document["checkpoints"][1]["findings"] == [
        {
            "id": "P6",
            "title": "batch dependence",
            "level": "INVALID",
            "message": "no",
            "criterion": CHECKS["P6"].criterion,
            "value": 0.5,
        }
    ]
    missing = document["checkpoints"][0]
    assert "R17" in missing["full_runs"]
    assert set(missing["full_runs"]) < set(missing["not_run"])
    assert as_document([], "quick") is None
