"""`robustcli report --output` and `robustcli plot`, from files and from a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Call

FGSM = ("--attack", "fgsm:eps=0.1", "--limit", "12")


@pytest.fixture
def measured(call: Call, models: Path) -> Path:
    """A result of two models, kept in a file and in the default store."""
    names = [str(models.relative_to(models.parent) / f"{name}.pt") for name in ("vanilla", "batchout")]
    assert call("compare", *names, *FGSM, "--json", "r.json", "--checks", "off").code == 0
    return Path("r.json")


def test_a_page_of_a_file_has_images_of_the_default_store(call: Call, measured: Path) -> None:
    ended = call("report", measured, "--output", "p.html")
    assert (ended.code, ended.out) == (0, "")
    assert "p.html: 2 rows, images of" in ended.err
    page = Path("p.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "robustcli report r.json --output p.html" in page


def test_a_page_of_the_store_alone_has_its_documents_once(call: Call, measured: Path) -> None:
    ended = call("report", "--output", "p.html")
    assert ended.code == 0, ended.err
    assert "p.html: 2 rows, images of" in ended.err


def test_rows_of_a_store_without_a_document_are_on_the_page(call: Call, models: Path) -> None:
    model = str(models.relative_to(models.parent) / "vanilla.pt")
    assert call("attack", model, *FGSM, "--save", "x.npz", "--store", "s.db").code == 0  # no document is kept of it
    ended = call("report", "--store", "s.db", "--output", "p.html")
    assert "p.html: 1 row," in ended.err
    assert 'data-verdict="-"' in Path("p.html").read_text(encoding="utf-8")


def test_what_the_store_holds_is_printed_without_output(call: Call, measured: Path) -> None:
    printed = call("report", measured)
    ended = call("report")
    assert (ended.code, ended.out) == (0, printed.out)


def test_without_files_and_store_one_line_says_what_to_give(call: Call, here: Path) -> None:
    for arguments in (("report",), ("plot", "curve", "--output", "c.png")):
        ended = call(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "give a FILE.json, or --store FILE" in ended.err


@pytest.mark.parametrize("kind", ["curve", "pairs", "classes", "confusion", "history", "gallery"])
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_each_chart_is_drawn(call: Call, measured: Path, kind: str, suffix: str) -> None:
    ended = call("plot", kind, measured, "--output", f"x.{suffix}")
    assert (ended.code, ended.out) == (0, ""), ended.err
    assert Path(f"x.{suffix}").stat().st_size > 1000
    assert call("plot", kind, measured, "--output", f"x.{suffix}").code == 0, "it may be replaced"


def test_a_chart_without_data_is_one_line_that_says_what_gives_it(call: Call, measured: Path) -> None:
    ended = call("plot", "progress", measured, "--output", "x.png")
    assert ended.code == 3
    assert "--preset standard" in ended.err
    assert not Path("x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("plot", "curv", "r.json", "--output", "x.png"), 2, "did you mean 'curve'?"),
        (("plot", "curve", "r.json", "--output", "x.gif"), 2, "should end in .png, .svg, .pdf"),
        (("plot", "curve", "r.json", "--output", "r.json"), 2, "should end in"),
        (("plot", "curve", "r.json", "--output", "no/x.png"), 2, "its folder no does not exist"),
        (("plot", "classes", "r.json", "--model", "nobody", "--output", "x.png"), 3, "there are batchout, vanilla"),
        (("plot", "classes", "r.json", "--attack", "pgd", "--output", "x.png"), 3, "there are fgsm"),
        (("plot", "curve", "missing.json", "--output", "x.png"), 3, "missing.json"),
        (("plot", "gallery", "r.json", "--store", "no.db", "--output", "x.png"), 3, "no.db"),
        (("report", "r.json", "--output", "x.pdf"), 2, "should be .html, a page without --format"),
        (("report", "r.json", "--output", "x.html", "--format", "csv"), 2, "should be .html, a page without --format"),
        (("report", "r.json", "--output", "no/x.html"), 2, "its folder no does not exist"),
    ],
)
def test_a_mistake_is_one_line(call: Call, measured: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = call(*arguments)
    assert ended.code == code
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content"), [("x.html", "<html>mine"), ("x.png", "text"), ("x.svg", "{}"), ("x.pdf", "text")]
)
def test_a_file_of_another_kind_is_not_replaced(call: Call, measured: Path, name: str, content: str) -> None:
    Path(name).write_text(content)
    command = ("report",) if name == "x.html" else ("plot", "curve")
    ended = call(*command, measured, "--output", name)
    assert ended.code == 2
    assert "is there already and is not" in ended.err
    assert Path(name).read_text() == content


def test_a_page_replaces_a_page_but_no_link_to_what_it_reads(call: Call, measured: Path) -> None:
    for _ in range(2):
        assert call("report", measured, "--output", "p.html").code == 0
    Path("l.html").symlink_to("r.json")
    ended = call("report", measured, "--output", "l.html")
    assert ended.code == 2
    assert "is the result that this command reads" in ended.err
    assert json.loads(measured.read_text())["rows"]


def test_a_damaged_store_that_nobody_named_is_a_warning(call: Call, measured: Path) -> None:
    Path("results/robustcli.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    ended = call("report", measured, "--output", "p.html")
    assert (ended.code, ended.err.count("\n")) == (0, 2)
    assert "no images are shown" in ended.err
    assert call("report", measured, "--store", "results/robustcli.db", "--output", "p.html").code == 3


def test_a_store_without_rows_is_one_line(call: Call, measured: Path) -> None:
    assert call("results", "prune", "--all").code == 0
    for arguments in ((), ("--format", "csv"), ("--format", "latex-document"), ("--output", "p.html")):
        ended = call("report", *arguments)
        assert (ended.code, ended.out) == (3, "")
        assert "results/robustcli.db: there is no row to show" in ended.err


def test_a_suffix_may_be_in_capitals(call: Call, measured: Path) -> None:
    assert call("plot", "curve", measured, "--output", "x.PDF").code == 0
    assert Path("x.PDF").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("attack", ["fgsm:eps=0.1", "deepfool:iters=2"])
def test_a_model_card_replaces_a_model_card(call: Call, models: Path, attack: str) -> None:
    arguments = ("--attack", attack, "--limit", "12", "--checks", "off", "--json", "r.json")
    assert call("evaluate", models / "vanilla.pt", *arguments).code == 0
    for _ in range(2):
        ended = call("report", "r.json", "--format", "model-card", "--output", "card.md")
        assert ended.code == 0, ended.err
    Path("card.md").write_text("# My notes\n")
    assert call("report", "r.json", "--format", "model-card", "--output", "card.md").code == 2
