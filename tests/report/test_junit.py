from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from robustcli.measure.record import Record
from robustcli.measure.stats import wilson
from robustcli.report.junit import below, describe, junit

from ..records import record


def of(name: str, correct: int, attack: str = "fgsm") -> Record:
    return record(attack, "8/255", "1" * correct + "0" * (100 - correct), name=name, seconds=1.25)


@pytest.mark.parametrize(
    ("bar", "passes"), [(0, True), (40.3, True), (40.4, False), (50, False), (100, False)]
)  # 50 of 100 is [40.38, 59.62]
def test_the_lower_end_of_the_interval_is_judged(bar: float, passes: bool) -> None:
    assert 100 * wilson(50, 100)[0] == pytest.approx(40.38, abs=0.01)
    assert (below([of("a.pt", 50)], bar) == []) == passes


def test_a_record_is_described_with_everything_it_takes_to_find_it() -> None:
    line = "a.pt: fgsm Linf 8/255{}: 50.0 % [40.4, 59.6], n = 100"
    assert describe(of("a.pt", 50)) == line.format("")
    assert describe(replace(of("a.pt", 50), split="train")) == line.format(" on mnist (train split)")


def test_junit_has_a_suite_a_checkpoint_and_a_failure_a_record_below() -> None:
    root = ElementTree.fromstring(junit([of("a.pt", 50), of("b<&>.pt", 90)], 45))
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "2", "1")
    assert [suite.get("name") for suite in root] == ["a.pt", "b<&>.pt"]
    first, second = root.iter("testcase")
    assert (first.get("name"), first.get("time")) == ("fgsm Linf 8/255", "1.250")
    (failure,) = root.iter("failure")
    assert first.find("failure") is failure
    assert failure.get("message") == "50.0 % [40.4, 59.6], n = 100: its lower end is below 45 %"
    assert second.findtext("system-out") == "mnist: 90.0 % [82.6, 94.5], n = 100"


def test_a_run_that_was_cut_short_is_not_green() -> None:
    root = ElementTree.fromstring(junit([of("a.pt", 90)], None, "interrupted"))
    assert root.get("errors") == "1"
    assert [error.get("message") for error in root.iter("error")] == ["interrupted"]


def test_without_a_bar_nothing_fails() -> None:
    assert ElementTree.fromstring(junit([of("a.pt", 0)], None)).get("failures") == "0"


@pytest.mark.parametrize(("bar", "end", "failures"), [(45, "failure", "1"), (None, "skipped", "0")])
def test_junit_does_not_call_an_attack_green_that_was_not_run(bar: float | None, end: str, failures: str) -> None:
    root = ElementTree.fromstring(junit([of("a.pt", 90)], bar, not_run=["a.pt: pgd Linf 0.3"]))
    assert (root.get("tests"), root.get("failures")) == ("2", failures)
    (case,) = [case for case in root.iter("testcase") if case.get("name") == "a.pt: pgd Linf 0.3"]
    assert case.find(end) is not None


def test_an_attack_without_a_budget_is_not_judged() -> None:
    """It breaks every sample in the end."""
    minimal = of("a.pt", 0, "deepfool")
    assert below([minimal], 50) == []
    root = ElementTree.fromstring(junit([minimal, of("a.pt", 90)], 50))
    assert (root.get("failures"), len(list(root.iter("skipped")))) == ("0", 1)
