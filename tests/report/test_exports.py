"""Exports: LaTeX that compiles, a model card, RobustBench's JSON, Hugging Face's YAML; nasty names in each."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robustcli.errors import DataError
from robustcli.measure.document import check_document, make_document
from robustcli.measure.record import Subject
from robustcli.report.exports import EXPORTS, FILL_IN
from robustcli.text import latex

from ..cli.test_nasty_names import NASTY, assert_harmless
from ..records import documents, record

WORSE = NASTY + " [x] * \"'`|<b> \\\\ \\end{document} % \u05d0\u4e2d\U0001f600e\u0301\u0126 a,b:c @x --y ?` << >> ]] }{"
LATEX = [path for name in ("tectonic", "pdflatex", "xelatex") if (path := shutil.which(name))]
STANDARD = {"version": "standard", "rounds": 100, "queries": 5000}
VERDICT = {"checkpoint": "a.pt", "reason": "few", "findings": [], "not_run": ["R13"], "full_runs": ["R13"]}
VERDICT |= {"word": "PRELIMINARY", "interrupted": False}


def export(name: str, *given: dict[str, Any]) -> str:
    return EXPORTS[name][1](given)


def autoattack(eps: str = "8/255", *, name: str = "a.pt", **changes: Any) -> dict[str, Any]:
    """The document of AutoAttack on a model, with its members."""
    attack = changes.pop("attack", {"name": "autoattack", **STANDARD, "norm": changes.get("norm", "linf")})
    whole = replace(record("autoattack", eps, "1" * 9 + "0" * 3, name=name, **changes), attack=attack)
    rows = [record("apgd", eps, "1" * 12, name=name, ensemble="autoattack"), whole]
    verdict = {
        "word": "PRELIMINARY",
        "checks": "quick",
        "note": "a bound",
        "checkpoints": [VERDICT | {"checkpoint": name}],
    }
    origin = {"command": "robustcli evaluate a.pt", "seed": 0, "time": "2026-01-02T03:04:05+00:00"}
    origin |= {"versions": {"robustcli": "1", "torch": "2"}, "hardware": "a processor"}
    return make_document("evaluate", rows, origin, verdict=verdict)


def nasty(value: Any) -> Any:
    """A document with something nasty wherever free text stands."""
    found = copy.deepcopy(value)
    models = {one: f"{WORSE}{i}" for i, one in enumerate(dict.fromkeys(row["checkpoint"] for row in found["rows"]))}
    for row in found["rows"]:
        row |= {
            "checkpoint": models[row["checkpoint"]],
            "dataset": WORSE,
            "model": WORSE,
            "method": WORSE,
            "label": WORSE,
            "norm": WORSE,
        }
    for pair in found["pairs"]:
        pair |= {"label": WORSE} | {key: models[pair[key]] for key in "ab" if pair["kind"] == "samples"}
    for cell in found.get("transfer", []):
        cell |= {"label": WORSE, "source": models[cell["source"]], "target": models[cell["target"]]}
    for family in found.get("families", []):
        family |= {"method": WORSE, "checkpoints": [models[one] for one in family["checkpoints"]]}
    for curve in found.get("curves", []):
        curve |= {"checkpoint": WORSE, "dataset": WORSE, "attacks": [WORSE]}
        for group in curve["by_class"]:
            group["class"] = WORSE
    finding = {"id": "R1", "level": "WARN", "title": WORSE, "message": WORSE}
    one = VERDICT | {"checkpoint": WORSE, "reason": WORSE, "findings": [finding]}
    found["verdict"] = {"word": "SUSPECT", "checks": "quick", "note": WORSE, "checkpoints": [one]}
    found["provenance"] = dict.fromkeys(("command", "commit", "hardware", "time", "data_fingerprint"), WORSE)
    return found | {"notes": [[WORSE, WORSE]]}


def compiled(text: str, folder: Path, program: str) -> str:
    (folder / "r.tex").write_text(text, encoding="utf-8")
    options = [] if program.endswith("tectonic") else ["-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape"]
    done = subprocess.run(
        [program, *options, "r.tex"], cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, re.findall(r"^!.*(?:\n.*){4}", done.stdout, re.MULTILINE) or done.stderr
    assert (folder / "r.pdf").stat().st_size > 1000
    return done.stdout


@pytest.mark.skipif(not LATEX, reason="neither tectonic, pdflatex nor xelatex is on the path")
@pytest.mark.parametrize("program", LATEX, ids=lambda path: Path(path).name)
def test_the_document_compiles_with_any_name(tmp_path: Path, program: str) -> None:
    every = [one for good in documents().values() for one in (good, nasty(good))]
    compiled(export("latex-document", *every, autoattack()), tmp_path, program)


@pytest.mark.skipif(not LATEX, reason="neither tectonic, pdflatex nor xelatex is on the path")
@pytest.mark.parametrize("program", LATEX, ids=lambda path: Path(path).name)
def test_letters_of_latin_scripts_are_printed_and_others_told(tmp_path: Path, program: str) -> None:
    every = "".join(map(chr, (*range(0x20, 0x250), *range(0x2010, 0x2040), *range(0x2580, 0x2590), 0x20AC, 0x1F600)))
    parts = [
        autoattack(name=every[i : i + 80]) for i in range(0, len(every), 80)
    ]  # XeTeX takes no words without an end
    printed = compiled(export("latex-document", *parts), tmp_path, program)
    assert "Missing character" not in printed


def test_a_long_table_is_continued_and_a_long_cell_wrapped() -> None:
    rows = [record(eps=str(i / 100)) for i in range(100)]
    text = export("latex-document", make_document("evaluate", rows, {}))
    assert text.count(r"\begin{table}[H]") == text.count(", continued}") + 1 == 3
    assert [text.count(rf"\label{{tab:robustcli-{i}}}") for i in (1, 2, 3, 4)] == [1, 1, 1, 0]
    wide = make_document("evaluate", [record(label="x" * 50)], {})
    assert r"\begin{tabular}{p{.4\linewidth}lrrrrr}" in export("latex-document", wide)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("caf\u00e9 \u0142", "caf\u00e9 \u0142"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u4e2d", r"\textbackslash{}u4e2d"),
        ("\U0001f600", r"\textbackslash{}U0001f600"),
        ("\u0126\u0301", r"\textbackslash{}u0126\textbackslash{}u0301"),
        ("\u2581\u2588", r"\rule{.3em}{0.2ex}\rule{.3em}{1.6ex}"),
    ],
)
def test_latex_has_only_letters_that_its_fonts_have(text: str, written: str) -> None:
    assert latex(text) == written


@given(st.text(st.characters(), max_size=30))
def test_latex_text_has_nothing_live_and_is_one_line(text: str) -> None:
    written = latex(text)
    assert len(written.splitlines()) <= 1
    bare = re.sub(
        r"\\(textbackslash|textasciitilde)\{\}|\\\^\{\}|\\ensuremath\{[<>]\}|\\rule\{.3em\}\{[\d.]+ex\}|\\[&%$#_{}]",
        "",
        written,
    )
    assert not set(bare) & set("\\&%$#_^~{}")


@pytest.mark.parametrize("name", ["latex-document", "model-card", "eval-results", "robustbench"])
@pytest.mark.parametrize("kind", [*documents(), "autoattack"])
def test_names_are_harmless_in_each(name: str, kind: str) -> None:
    document = nasty((documents() | {"autoattack": autoattack()})[kind])
    if kind == "autoattack":
        for row in document["rows"]:
            row |= {"norm": "linf"} | ({"dataset": "cifar10"} if name == "robustbench" else {})
    check_document(document)
    if kind != "autoattack" and name in ("eval-results", "robustbench"):
        with suppress(DataError):
            assert_harmless(export(name, document))
        return
    text = export(name, document)
    assert_harmless(text)
    if name == "latex-document":
        assert text.count(r"\end{document}") == 1
        assert r"\input" not in text
        assert not re.search(r"^\[|^\*", text, re.MULTILINE)
    if name == "model-card":
        front, body = text.removeprefix("---\n").split("\n---\n", 1) if kind not in ("no rows", "curve") else ("", text)
        assert not front or yaml.safe_load(front)["model-index"][0]["name"] == WORSE + "0"
        shown = [line for line in body.splitlines() if not line.startswith("    ")]  # the others are code
        assert not re.search(r"<script>|<b>|(?<!\\)`", "\n".join(shown))
    if name == "robustbench":
        assert json.loads(text)["architecture"] == WORSE
    if name == "eval-results":
        assert all(isinstance(entry["notes"], str) for entry in yaml.safe_load(text))


def test_a_model_card_has_table_verdict_meaning_command_and_index() -> None:
    text = export("model-card", autoattack(), documents()["curve"])
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    (model,) = yaml.safe_load(front)["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["task"]) == ("a.pt", {"type": "image-classification"})
    assert result["dataset"] == {"type": "ylecun/mnist", "name": "mnist", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "Robust accuracy, autoattack Linf 8/255", "value": 0.75}]
    assert body.startswith("\n# Adversarial robustness\n")
    for part in (
        "**a.pt: vanilla mnist-cnn on mnist, n = 12**",
        "| autoattack",
        "**Verdict on a.pt: PRELIMINARY: few**",
    ):
        assert part in body
    assert "- Something that RELIABLE takes did not run" in body
    assert "- 1 check was not run: --checks full can run it." in body
    assert "\n    robustcli evaluate a.pt\n    # robustcli 1 torch 2; hardware a processor; seed 0; time 2026" in body
    assert "accuracy within Linf eps" in body or "within" in body
    assert "&id" not in export("model-card", autoattack(), autoattack(name="b.pt"))


def test_robustbench_has_its_keys_and_says_what_to_fill_in() -> None:
    made = autoattack(dataset="cifar10")
    found = json.loads(export("robustbench", made))
    keys = "link name authors additional_data number_forward_passes dataset venue architecture eps clean_acc reported"
    assert list(found) == [*keys.split(), "autoattack_acc", "footnote", "unreliable"]
    assert {key for key, value in found.items() if FILL_IN in str(value)} == {
        *("link", "name", "authors", "additional_data", "number_forward_passes", "venue", "reported", "unreliable")
    }
    measured = {key: found[key] for key in ("dataset", "architecture", "eps", "clean_acc", "autoattack_acc")}
    assert measured == {
        "dataset": "cifar10",
        "architecture": "mnist-cnn",
        "eps": "8/255",
        "clean_acc": "100.00",
        "autoattack_acc": "75.00",
    }
    assert "n = 12, 75.0 %" in found["footnote"]
    assert FILL_IN in json.loads(export("robustbench", made | {"verdict": None}))["unreliable"]
    for word, unreliable in (("RELIABLE", False), ("SUSPECT", True), ("INVALID", True)):
        made["verdict"]["checkpoints"][0]["word"] = word
        assert json.loads(export("robustbench", made))["unreliable"] is unreliable


TWIN = Subject("a.pt", "12345678", "mnist-cnn", "vanilla")


def test_two_networks_of_one_name_are_two_models_of_a_card() -> None:
    front, _ = export("model-card", autoattack(), autoattack(subject=TWIN)).removeprefix("---\n").split("\n---\n", 1)
    assert [len(model["results"]) for model in yaml.safe_load(front)["model-index"]] == [1, 1]


@pytest.mark.parametrize("dataset", ["my set", "photos/of/cats", "=x|<b>"])
def test_a_data_set_of_a_card_has_a_type_that_the_hub_takes(dataset: str) -> None:
    front, _ = export("model-card", autoattack(dataset=dataset)).removeprefix("---\n").split("\n---\n", 1)
    found = yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]
    assert re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", found["type"])
    assert found["name"] == dataset


UNMET = {"members": ["square"], "survivors": 9, "probed": 5, "broken": 0}


NOT_RUN = "takes AutoAttack with its usual options on all samples, which did not run"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([documents()["attack"]], f"{NOT_RUN}; `robustcli evaluate MODEL --preset standard"),
        ([documents()["no rows"]], NOT_RUN),
        ([documents()["curve"]], NOT_RUN),
        ([autoattack(attack={"name": "autoattack", **STANDARD, "rounds": 5})], NOT_RUN),
        ([autoattack(attack={"name": "autoattack", **STANDARD, "version": "rand"})], "takes AutoAttack"),
        ([autoattack(norm="l1")], NOT_RUN),
        ([autoattack()], "has cifar10, cifar100, imagenet, and no mnist"),
        (
            [autoattack(), autoattack("0.1")],
            "is of one model at one budget, and here are a.pt Linf 8/255, a.pt Linf 0.1",
        ),
        ([autoattack(), autoattack(name="b.pt")], "is of one model at one budget, and here are a.pt Linf 8/255, b.pt"),
    ],
)
def test_robustbench_is_refused_in_one_line(given: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"--format robustbench: {told}")) as refused:
        export("robustbench", *given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("unmet", "taken"), [(0, True), (4, False)])
def test_the_fast_version_counts_where_it_left_nothing_unmet(unmet: int, taken: bool) -> None:
    fast = autoattack(attack={"name": "autoattack", **STANDARD, "version": "fast"}, dataset="cifar10")
    fast["rows"][-1]["sampled"] = UNMET | {"unmet": unmet}
    if taken:
        assert json.loads(export("robustbench", fast))["autoattack_acc"] == "75.00"
    else:
        with pytest.raises(DataError, match="takes AutoAttack"):
            export("robustbench", fast)


def test_eval_results_are_clean_accuracy_and_each_row_with_a_budget() -> None:
    entries = yaml.safe_load(export("eval-results", autoattack(), autoattack("0.1")))
    assert [entry["value"] for entry in entries] == [100.0, 75.0, 75.0]
    for entry in entries:
        assert entry["dataset"]["id"] == "ylecun/mnist"
        assert FILL_IN in entry["dataset"]["task_id"]
        assert entry["date"] == "2026-01-02T03:04:05+00:00"
        assert entry["source"].keys() == {"url", "name"}
    assert [entry["notes"][:30] for entry in entries[:2]] == [
        "clean accuracy on mnist, n = 1",
        "robust accuracy, autoattack Li",
    ]
    other = yaml.safe_load(export("eval-results", autoattack(dataset="photos")))
    assert other[1]["dataset"]["id"] == FILL_IN


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([documents()["curve"]], "no row here has a budget"),
        ([documents()["no rows"]], "no row here has a budget"),
        ([autoattack(), autoattack(name="b.pt")], "here are a.pt (sha256 o), b.pt (sha256 o); give each one's result"),
        ([autoattack(), autoattack(subject=TWIN)], "here are a.pt (sha256 o), a.pt (12345678); give"),
    ],
)
def test_eval_results_of_none_or_several_models_are_refused(given: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"--format eval-results: is of one model at a budget, and {told}")):
        export("eval-results", *given)


@pytest.mark.parametrize("name", ["latex-document", "model-card"])
@pytest.mark.parametrize(
    "change", [{"verdict": {"word": "x", "checkpoints": [{}]}}, {"rows": [{}]}, {"provenance": {"versions": 3}}]
)
def test_what_is_no_document_is_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        export(name, autoattack() | change)
