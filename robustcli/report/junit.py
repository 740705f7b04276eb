"""A bar for CI: records judged on the lower end of their interval, as exit code and as JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from robustcli.measure.record import Record
from robustcli.measure.stats import wilson
from robustcli.report.table import data_name, interval, percent
from robustcli.text import visible


def with_budget(records: Sequence[Record]) -> list[Record]:
    """The records that a bar is for; those without a budget are not: such an attack breaks every sample in the end."""
    return [record for record in records if record.kind != "minimal"]


def below(records: Sequence[Record], fail_under: float) -> list[Record]:
    """The records whose accuracy is not surely at least `fail_under` per cent: the 95 % interval begins below it."""
    return [one for one in with_budget(records) if 100 * wilson(one.correct, one.n)[0] < fail_under]


def describe(record: Record) -> str:
    """`a.pt: fgsm Linf 0.3: 46.8 % [43.7, 49.9], n = 1000`; with the data where its split is not the held-out one."""
    on = "" if record.split == "test" else f" on {data_name(record.dataset, record.split)}"
    return f"{record.subject.checkpoint}: {_attack(record)}{on}: {_accuracy(record)}"


def junit(
    records: Sequence[Record], fail_under: float | None, cut_short: str = "", not_run: Sequence[str] = ()
) -> bytes:
    """JUnit XML: a suite a checkpoint, a case a record, which fails where it is below `fail_under`.

    Where the run was `cut_short` by something, one more case is in error: a part of a run is not green. Nor is an
    attack that was `not_run`, for want of time: it fails where there is a bar, and is skipped where there is none.
    A record without a budget is skipped where there is a bar, which does not judge it.
    """
    failed = below(records, fail_under) if fail_under is not None else []
    failures = len(failed) + (len(not_run) if fail_under is not None else 0)
    tests = str(len(records) + len(not_run))
    suites = ElementTree.Element("testsuites", name="robustcli", tests=tests, failures=str(failures))
    for subject, group in groupby(records, key=lambda record: record.subject):
        own = list(group)
        count = sum(record in failed for record in own)
        seconds = f"{sum(record.seconds for record in own):.3f}"
        suite = ElementTree.SubElement(
            suites, "testsuite", name=subject.checkpoint, tests=str(len(own)), failures=str(count), time=seconds
        )
        for record in own:
            seconds = f"{record.seconds:.3f}"
            test = ElementTree.SubElement(
                suite, "testcase", classname=subject.checkpoint, name=_attack(record), time=seconds
            )
            if record in failed:
                message = f"{_accuracy(record)}: its lower end is below {fail_under:g} %"
                ElementTree.SubElement(test, "failure", message=message, type="fail-under")
            if fail_under is not None and record.kind == "minimal":
                ElementTree.SubElement(test, "skipped", message="has no budget, so no bar judges it")
            on = data_name(record.dataset, record.split)
            ElementTree.SubElement(test, "system-out").text = f"{on}: {_accuracy(record)}"
    if not_run:
        outcome, key = ("skipped", "skipped") if fail_under is None else ("failure", "failures")
        counts = {"tests": str(len(not_run)), key: str(len(not_run))}
        suite = ElementTree.SubElement(suites, "testsuite", counts, name="not run")
        for name in not_run:
            test = ElementTree.SubElement(suite, "testcase", classname="not run", name=name)
            ElementTree.SubElement(test, outcome, message="no sample was reached in time")
    if cut_short:
        suites.set("errors", "1")
        suite = ElementTree.SubElement(suites, "testsuite", name="robustcli", tests="1", errors="1")
        test = ElementTree.SubElement(suite, "testcase", classname="robustcli", name="the run came to its end")
        ElementTree.SubElement(test, "error", message=cut_short, type="cut short")
    for element in suites.iter():  # XML has no way to write most control characters
        element.attrib = {key: visible(value) for key, value in element.attrib.items()}
        element.text = element.text and visible(element.text)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _attack(record: Record) -> str:
    return f"{record.name} {record.ball}"


def _accuracy(record: Record) -> str:
    return f"{percent(record.correct, record.n)} % {interval(record.correct, record.n)}, n = {record.n}"
