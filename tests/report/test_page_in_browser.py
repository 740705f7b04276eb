"""The page in Chromium: no error, no request, all by keyboard, and nothing that axe finds serious."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.measure.document import make_document
from robustcli.report.page import make_page
from robustcli.report.points import gather

from ..records import documents, record
from .test_charts import HISTORY, everything
from .test_page import NASTY, nasty_document, verdict_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.filterwarnings("ignore"),  # of playwright's own loop
]


def example(*more: dict[str, Any]) -> str:
    """A page with all parts."""
    training = [{"checkpoint": "a.pt", "checkpoint_sha256": "sha256 of a.pt", "history": HISTORY}]
    rows = [
        record(attack, eps, robust, name=name)
        for attack in ("fgsm", "pgd")
        for eps, name, robust in (("0.1", "a.pt", "1100"), ("0.2", "a.pt", "1000"), ("0.1", "b.pt", "1110"))
    ]
    members = [record("apgd", "0.1", "1100", ensemble="autoattack"), record("autoattack", "0.1", "1100")]
    origin = {"command": "robustcli evaluate a.pt", "seed": 0}
    parts = {"verdict": verdict_of("a.pt"), "training": training}
    first = make_document("evaluate", [*rows, *members], origin, **parts)
    results = gather([documents()["curve"], first, *more])
    return make_page(replace(results, galleries=everything().galleries), ["r.json"], "r.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "r.html"
    path.write_text(example(), encoding="utf-8")
    return path


class Opened:
    """A page that is open, with what it has said and asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.page.on("pageerror", lambda one: self.errors.append(str(one)))
        self.page.on("request", lambda one: self.requests.append(one.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=30_000)

    def rows(self, column: int = 1) -> list[str]:
        """The cells of a column, of the rows that are shown."""
        return self.page.locator(f"#rows tbody tr:not([hidden]) td:nth-child({column})").all_inner_texts()


@pytest.fixture(params=[(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")], ids=str)
def opened(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    width, scheme = request.param
    found = Opened(browser, file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    yield found
    found.context.close()


def test_all_is_drawn_without_an_error_or_a_request(opened: Opened, file: Path) -> None:
    page = opened.page
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    assert page.locator(".chart svg").count() == 6
    broken = "[...document.images].filter((one) => !one.complete || !one.naturalWidth).length"
    assert (page.locator("img").count(), page.evaluate(broken)) == (1, 0)
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing is scrolled sideways"
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.chart svg')].map((one) => one.clientWidth))") < width
    )


def test_axe_finds_nothing_serious(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    found = axe.Axe().run(opened.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


@pytest.fixture
def wide(browser: Any, file: Path) -> Iterator[Opened]:
    found = Opened(browser, file, viewport={"width": 1400, "height": 900}, permissions=[])
    yield found
    found.context.close()


def test_rows_are_sorted_by_keyboard(wide: Opened) -> None:
    button = wide.page.get_by_role("button", name="accuracy %")
    button.focus()
    wide.page.keyboard.press("Enter")
    up = [float(text) for text in wide.rows(8)]
    assert up == sorted(up)
    assert wide.page.locator("#rows th:nth-child(8)").get_attribute("aria-sort") == "ascending"
    wide.page.keyboard.press("Space")
    assert [float(text) for text in wide.rows(8)] == sorted(up, reverse=True)
    assert wide.page.locator("#rows th[aria-sort]").count() == 1
    wide.page.get_by_role("button", name="model").press("Enter")
    assert wide.rows() == sorted(wide.rows())


def test_rows_are_filtered_by_keyboard_and_counted(wide: Opened) -> None:
    page, form, status = wide.page, wide.page.locator(".filters"), wide.page.get_by_role("status")
    assert status.inner_text() == "8 of 9 rows"
    form.get_by_label("attack").focus()
    page.keyboard.type("fgsm")
    assert set(wide.rows(4)) == {"fgsm"}
    assert status.inner_text() == "3 of 9 rows"
    form.get_by_label("verdict").select_option("-")
    assert (set(wide.rows(1)), status.inner_text()) == ({"b"}, "1 of 9 rows")
    form.get_by_label("attack").select_option("")
    form.get_by_label("verdict").select_option("")
    form.get_by_label("members of ensembles").press("Space")
    assert status.inner_text() == "9 of 9 rows"


def test_another_attack_can_be_chosen_and_its_command_follows(wide: Opened) -> None:
    figure = wide.page.locator("figure[data-kind=confusion]")
    before = figure.locator("code").inner_text()
    figure.locator("summary").press("Enter")
    table = figure.locator(".numbers table").inner_text()
    figure.get_by_role("combobox").select_option(index=1)
    assert figure.locator("code").inner_text() != before
    assert figure.locator(".numbers table").inner_text() != table
    assert wide.errors == []


def test_a_command_is_copied_or_at_least_selected(wide: Opened) -> None:
    button = wide.page.locator("#curve .copy")
    button.press("Enter")
    wide.page.wait_for_function("!document.querySelector('#curve .copy').textContent.startsWith('Copy ')")
    assert wide.page.evaluate("getSelection().toString()").startswith("robustcli plot curve r.json")


def test_the_first_tab_leads_to_the_results(wide: Opened) -> None:
    wide.page.keyboard.press("Tab")
    wide.page.keyboard.press("Enter")
    assert wide.page.evaluate("document.activeElement.id") == "main"


def test_on_paper_all_is_open_and_there_are_no_buttons(wide: Opened) -> None:
    wide.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wide.page.emulate_media(media="print")
    assert wide.page.locator("details:not([open])").count() == 0
    assert wide.page.locator("button.copy:visible").count() == 0
    assert wide.page.locator(".filters:visible").count() == 0


def test_what_is_nasty_runs_nowhere(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "n.html"
    path.write_text(example(nasty_document()), encoding="utf-8")
    found = Opened(browser, path)
    alerts: list[str] = []
    found.page.on("dialog", lambda one: alerts.append(one.message))
    found.page.locator(".chart svg").first.hover()
    for summary in found.page.locator(".numbers summary").all():
        summary.click()
    assert (found.errors, alerts) == ([], [])
    assert "alert(2)" in found.page.locator("#rows").inner_text()
    assert found.page.locator("script").count() == 3
    assert found.page.evaluate("[...document.images].filter((one) => one.getAttribute('src') === 'x').length") == 0
    assert NASTY[:9] in found.page.locator("main").inner_text()
    found.context.close()
