"""The page of documents and a store: all that comes from outside is text in it, and what is missing is said."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustcli.measure.document import make_document
from robustcli.measure.record import Subject
from robustcli.report.meanings import MEANINGS
from robustcli.report.page import make_page
from robustcli.report.points import Results, gather
from robustcli.verdict.check import CHECKS
from robustcli.verdict.judge import judge  # noqa: F401 - which declares the checks

from ..records import documents, record

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}=cmd|\\\x1b[2J\u202e\u200b\r\nx"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]")


class _Parsed(HTMLParser):
    """Elements with their attributes, and all text by the element that it stands in."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def texts_of(self, tag: str) -> list[str]:
        return [attributes["class"] or "" for name, attributes in self.tags if name == tag and "class" in attributes]


def page(*found: dict[str, Any], galleries: dict[str, Any] | None = None) -> str:
    results = gather(found)
    return make_page(Results(results.documents, results.names, results.rows, galleries or {}), ["r.json"], "r.html")


def verdict_of(name: str, text: str = "says so") -> dict[str, Any]:
    findings = [
        {"id": "R18", "title": text, "level": "WARN", "message": text, "criterion": text, "budget": text},
        {"id": "P1", "title": "eval mode", "level": "OK", "message": "fine"},
    ]
    checkpoint = {"checkpoint": name, "word": "SUSPECT", "reason": text, "findings": findings, "not_run": ["R2"]}
    whole = checkpoint | {"full_runs": ["R2"], "interrupted": False}
    return {"word": "SUSPECT", "note": text, "checks": "quick", "checkpoints": [whole]}


def nasty_document() -> dict[str, Any]:
    """All texts that may come from outside are nasty."""
    rows = [
        record("pgd", eps, "1100", name=name, method=NASTY) for name in (NASTY, f"{NASTY}2") for eps in ("0.1", "1")
    ]
    rows += [record("deepfool:iters=2", distance=(0.0, 0.5, 1.0, float("inf")), by_iter=(2, 1), name=NASTY)]
    changed = [
        one.__class__(**{**vars(one), "dataset": NASTY, "label": NASTY, "norm": NASTY}) for one in map(_plain, rows)
    ]
    spec = {NASTY: NASTY, "runs": [{"checkpoint": NASTY, "classes": [NASTY, NASTY]}]}
    origin = {
        "command": NASTY,
        "spec": spec,
        "time": NASTY,
        "hardware": NASTY,
        "versions": {NASTY: NASTY},
        NASTY: NASTY,
    }
    history = [{NASTY: 0.5, "epoch": 1.0}]
    training = [{"checkpoint": NASTY, "checkpoint_sha256": f"sha256 of {NASTY}", "history": history}]
    notes = [("notice", NASTY), (NASTY, "x")]
    verdict = verdict_of(NASTY, NASTY)
    return make_document("evaluate", changed, origin, verdict=verdict, notes=notes, training=training)


def _plain(one: Any) -> Any:
    """Without what a frozen dataclass has cached."""
    return one.__class__(**{key: value for key, value in vars(one).items() if key in one.__dataclass_fields__})


def tile(**changes: Any) -> dict[str, Any]:
    url = "data:image/png;base64,AA=="
    whole = {"sample": 3, "before": "cat", "after": "dog", "distance": "Linf 0.1", "factor": "5"}
    return whole | {"original": url, "adversarial": url, "difference": url} | changes


def test_nothing_from_outside_is_live() -> None:
    html = page(nasty_document(), galleries={NASTY: [tile(before=NASTY, after=NASTY, distance=NASTY)]})
    assert ACTS.search(html) is None
    parsed = _Parsed(html)
    assert [tag for tag, _ in parsed.tags].count("script") == 3
    assert [attributes for tag, attributes in parsed.tags if tag == "img"] == [
        {"src": tile()[kind], "alt": f"Sample 3, {kind}{' x 5' if kind == 'difference' else ''}"}
        for kind in ("original", "adversarial", "difference")
    ]
    names = {name for _, attributes in parsed.tags for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert "{{7*7}}" in html
    assert "49=cmd" not in html


def test_what_is_nasty_is_there_as_text() -> None:
    parsed = _Parsed(page(nasty_document()))
    text = "".join(parsed.texts)
    shown = NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u200b", "\\u200b")
    shown = shown.replace("\r\n", "\\r\\n")
    assert text.count(shown) > 10
    options = [text for text in parsed.texts if text == shown]
    assert options, "as the text of a cell or an option alone"


def test_the_figures_are_json_that_ends_no_script() -> None:
    html = page(nasty_document())
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    figures = json.loads(data)
    assert {"curve", "pairs", "classes", "confusion", "history", "progress"} == figures.keys()
    assert ACTS.search("".join(_strings(figures))) is None
    assert "<" not in data


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return (
        [value]
        if isinstance(value, str)
        else [text for one in value for text in _strings(one)]
        if isinstance(value, list)
        else []
    )


def test_the_policy_allows_our_scripts_alone_and_no_request() -> None:
    parsed = _Parsed(page(documents()["compare"]))
    (policy,) = [attributes["content"] or "" for tag, attributes in parsed.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.count("'sha256-") == 2
    assert "unsafe-eval" not in policy
    assert not [
        attributes for _, attributes in parsed.tags if "http" in (attributes.get("src") or attributes.get("href") or "")
    ]


@pytest.mark.parametrize("kind", ["attack", "evaluate", "curve", "compare", "no rows"])
def test_every_kind_of_document_has_a_page(kind: str) -> None:
    html = page(documents()[kind])
    assert html.startswith('<!doctype html>\n<html lang="en">')
    assert len(html) < 1.3e6


def test_a_part_without_data_says_what_would_give_it() -> None:
    html = page(documents()["attack"])
    missing = re.findall(r'<p class="missing">Nothing to show: (.*?)</p>', html)
    assert len(missing) == 5
    for flag in ("robustcli compare", "robustcli train", "--preset standard", "--store FILE", "--checks"):
        assert sum(flag in line for line in missing) == 1, flag


def test_a_page_of_nothing_is_a_page() -> None:
    assert "there is no row" in page()


def test_a_row_that_comes_twice_is_there_once_and_keeps_its_verdict() -> None:
    first = make_document("evaluate", [record()], {"seed": 0}, verdict=verdict_of("a.pt"))
    html = page(first, make_document("evaluate", [record()], {"seed": 0}))
    assert html.count("<tr data-data=") == 1
    assert 'data-verdict="SUSPECT"' in html


def test_members_of_an_ensemble_are_hidden_behind_a_box() -> None:
    html = page(documents()["evaluate"])
    assert html.count("data-member hidden") == 1
    assert '<input type="checkbox" name="members">' in html
    assert 'name="members"' not in page(documents()["attack"])


def test_findings_at_warn_are_open_and_say_why_they_matter() -> None:
    html = page(make_document("evaluate", [record()], {}, verdict=verdict_of("a.pt")))
    assert re.findall(r"<details( open)?><summary>1 finding (.*?)</summary>", html) == [
        (" open", "at WARN or worse"),
        ("", "that speak for it, or only inform"),
    ]
    assert MEANINGS["R18"] in html
    assert "1 check was not run: --checks full can run it. (R2)" in html


def test_every_check_says_why_it_matters() -> None:
    assert MEANINGS.keys() == CHECKS.keys()
    assert all(re.fullmatch(r"[A-Z][^.]*\.", text) for text in MEANINGS.values())


def test_a_verdict_that_is_none_is_an_error_in_one_line() -> None:
    from robustcli.errors import DataError

    broken = make_document("evaluate", [record()], {}, verdict=verdict_of("a.pt"))
    del broken["verdict"]["checkpoints"][0]["findings"]
    with pytest.raises(DataError, match="is no result that can be shown: lacks 'findings'"):
        page(broken)


def test_a_forged_command_is_quoted() -> None:
    html = page(make_document("evaluate", [record()], {"command": "robustcli x; rm -rf ~ | sh 'unclosed"}))
    assert [line for line in re.findall(r"<code>(.*?)</code>", html) if "rm -rf" in line] == []
    html = page(make_document("evaluate", [record()], {"command": "robustcli x; touch /y"}))
    assert "<code>robustcli &#39;x;&#39; touch /y</code>" in html


def test_an_image_without_original_is_shown_with_what_there_is() -> None:
    bare = {key: value for key, value in tile().items() if key not in ("original", "difference")}
    html = page(documents()["attack"], galleries={"a: fgsm": [bare]})
    assert html.count("<figure><img") == 1
    assert "its original was not kept" in html


def test_two_thousand_rows_take_seconds() -> None:
    draw = np.random.default_rng(0)
    rows = [
        record(attack, str(eps / 100), draw.integers(0, 2, 50).tolist(), name=f"models/net-{i}.pt")
        for i in range(50)
        for attack in ("fgsm", "pgd", "apgd", "square")
        for eps in range(1, 11)
    ]
    found = [make_document("evaluate", rows[i : i + 40], {"seed": 0}) for i in range(0, 2000, 40)]
    started = time.monotonic()
    html = page(*found)
    assert time.monotonic() - started < 60
    assert html.count("<tr data-data=") == 2000
    assert len(html) < 6e6


def test_the_template_names_no_file_of_elsewhere() -> None:
    folder = Path(make_page.__code__.co_filename).parent / "templates"
    for path in folder.iterdir():
        assert not re.search(r"https?://|@import|url\(", path.read_text()), path.name


def test_a_verdict_stands_under_the_network_that_it_is_of() -> None:
    again = record(subject=Subject("a.pt", "12345678", None, None))
    found = [make_document("evaluate", [one], {}, verdict=verdict_of("a.pt")) for one in (record(), again)]
    assert re.findall(r"<h3>(.*?) <span", page(*found)) == ["a 12345678", "a sha256 o"]


def test_a_filter_has_the_whole_value_and_no_members() -> None:
    rows = [record("apgd", ensemble="autoattack"), record("autoattack", dataset="two  spaces")]
    html = page(make_document("evaluate", rows, {}))
    assert '<option value="two  spaces">' in html
    assert '<option value="autoattack/apgd">' not in html
