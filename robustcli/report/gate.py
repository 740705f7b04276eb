"""A bar for CI: rows judged on the lower end of their interval, as exit code and as JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from robustcli.measure.record import Row
from robustcli.measure.stats import wilson
from robustcli.report.sheets import data_name
from robustcli.report.tables import budget, interval, percent, row_name
from robustcli.text import visible


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows that a bar is for; those without a budget are not: such an attack breaks every sample in the end."""
    return [row for row in rows if row.eps is not None]


def below(rows: Sequence[Row], fail_under: float) -> list[Row]:
    """The rows whose accuracy is not surely at least `fail_under` per cent: the 95 % interval begins below it."""
    return [row for row in judged(rows) if 100 * wilson(row.correct, row.n)[0] < fail_under]


def told(row: Row) -> str:
    """`a.pt: fgsm Linf 0.3: 46.8 % [43.7, 49.9], n = 1000`; with the data where its split is not the held-out one."""
    on = "" if row.split == "test" else f" on {data_name(row.dataset, row.split)}"
    return f"{row.subject.checkpoint}: {_case(row)}{on}: {_accuracy(row)}"


def junit(rows: Sequence[Row], fail_under: float | None, cut_short: str = "", not_run: Sequence[str] = ()) -> bytes:
    """JUnit XML: a suite a checkpoint, a case a row, which fails where it is below `fail_under`.

    Where the run was `cut_short` by something, one more case is in error: a part of a run is not green. Nor is an
    attack that was `not_run`, for want of time: it fails where there is a bar, and is skipped where there is none.
    A row without a budget is skipped where there is a bar, which does not judge it.
    """
    failed = below(rows, fail_under) if fail_under is not None else []
    spared = [row for row in rows if row not in judged(rows)] if fail_under is not None else []
    failures = len(failed) + (len(not_run) if fail_under is not None else 0)
    suites = ElementTree.Element(
        "testsuites", name="robustcli", tests=str(len(rows) + len(not_run)), failures=str(failures)
    )
    for subject, group in groupby(rows, key=lambda row: row.subject):
        own = list(group)
        count = sum(row in failed for row in own)
        seconds = f"{sum(row.seconds for row in own):.3f}"
        suite = ElementTree.SubElement(
            suites, "testsuite", name=subject.checkpoint, tests=str(len(own)), failures=str(count), time=seconds
        )
        for row in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=subject.checkpoint, name=_case(row), time=f"{row.seconds:.3f}"
            )
            if row in failed:
                message = f"{_accuracy(row)}: its lower end is below {fail_under:g} %"
                ElementTree.SubElement(case, "failure", message=message, type="fail-under")
            if row in spared:
                ElementTree.SubElement(case, "skipped", message="has no budget, so no bar judges it")
            on = data_name(row.dataset, row.split)
            ElementTree.SubElement(case, "system-out").text = f"{on}: {_accuracy(row)}"
    if not_run:
        end = "skipped" if fail_under is None else "failure"
        counts = {"tests": str(len(not_run)), "skipped" if fail_under is None else "failures": str(len(not_run))}
        suite = ElementTree.SubElement(suites, "testsuite", counts, name="not run")
        for name in not_run:
            case = ElementTree.SubElement(suite, "testcase", classname="not run", name=name)
            ElementTree.SubElement(case, end, message="no sample was reached in time")
    if cut_short:
        suites.set("errors", "1")
        suite = ElementTree.SubElement(suites, "testsuite", name="robustcli", tests="1", errors="1")
        case = ElementTree.SubElement(suite, "testcase", classname="robustcli", name="the run came to its end")
        ElementTree.SubElement(case, "error", message=cut_short, type="cut short")
    for element in suites.iter():  # XML has no way to write most control characters
        element.attrib = {key: visible(value) for key, value in element.attrib.items()}
        element.text = element.text and visible(element.text)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _case(row: Row) -> str:
    return f"{row_name(row)} {budget(row)}"


def _accuracy(row: Row) -> str:
    return f"{percent(row.correct, row.n)} % {interval(row.correct, row.n)}, n = {row.n}"
