"""Charts: what their points say, and that each can be written for print in each form."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from robustcli.measure.document import make_document
from robustcli.measure.stats import wilson
from robustcli.report import points
from robustcli.report.charts import CHARTS, draw, spec_of
from robustcli.report.points import gather

from ..records import documents, record

HISTORY = [
    {"epoch": 1.0, "loss": 2.0, "val_accuracy": None, "seconds": 3.0},
    {"epoch": 2.0, "loss": 1.0, "seconds": 3.0},
]


def document(*rows: Any, **parts: Any) -> dict[str, Any]:
    return make_document("evaluate", rows, {"seed": 0}, **parts)


def everything() -> points.Results:
    """Results that every chart can be drawn of."""
    training = [{"checkpoint": "a.pt", "checkpoint_sha256": "sha256 of a.pt", "history": HISTORY}]
    rows = [
        record("pgd", eps, robust, name=name)
        for name, robust in (("a.pt", "1100"), ("b.pt", "1111"))
        for eps in ("0.1", "0.2")
    ]
    found = gather([document(*rows, training=training), documents()["evaluate"], documents()["curve"]])
    url = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJ"
    url += "RU5ErkJggg=="
    tile = {"sample": 1, "before": "cat", "after": "dog", "distance": "Linf 0.1", "factor": "5", "adversarial": url}
    return points.Results(found.documents, found.names, found.rows, {"a: pgd Linf 0.1": [tile]})


def only(kind: str, *found: dict[str, Any]) -> list[dict[str, Any]]:
    (made,) = CHARTS[kind].points(gather(found)).values()
    return made


@pytest.mark.parametrize("kind", CHARTS)
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_each_chart_is_written_in_each_form(tmp_path: Path, kind: str, suffix: str) -> None:
    choices = CHARTS[kind].points(everything())
    name, found = next(iter(choices.items()))
    draw(CHARTS[kind], found, name, tmp_path / f"x{suffix}")
    starts = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF-"}
    assert (tmp_path / f"x{suffix}").read_bytes().startswith(starts[suffix])


@pytest.mark.parametrize("kind", CHARTS)
def test_each_chart_is_one_definition_for_page_and_print(kind: str) -> None:
    found = next(iter(CHARTS[kind].points(everything()).values()))
    page, paper = spec_of(CHARTS[kind], found), spec_of(CHARTS[kind], found, "#111", 14)
    assert page.pop("config") != paper.pop("config")
    assert page == paper
    assert json.loads(json.dumps(page)) == page


@pytest.mark.parametrize("kind", [kind for kind in CHARTS if kind != "gallery"])
def test_where_there_is_nothing_there_are_no_points(kind: str) -> None:
    assert CHARTS[kind].points(gather([])) == {}
    assert CHARTS[kind].missing


def test_a_curve_of_rows_begins_with_the_clean_accuracy() -> None:
    made = only("curve", document(record(eps="0.1", robust="1100"), record(eps="8/255", robust="1110")))
    assert [(one["eps"], one["right"], one["n"]) for one in made] == [(0, 4, 4), (0.1, 2, 4), (8 / 255, 3, 4)]
    low, high = wilson(2, 4)
    assert (made[1]["low"], made[1]["high"]) == (round(100 * low, 3), round(100 * high, 3))
    assert {one["series"] for one in made} == {"a, fgsm"}


def test_a_curve_of_distances_is_drawn_through_many_points_and_keeps_what_it_is_at_each() -> None:
    made = [one for one in only("curve", documents()["curve"]) if one["along"] is not None]
    assert len(made) == points.ALONG
    assert (made[0]["right"], made[-1]["eps"], made[-1]["right"]) == (3, 1.0, 1)


def test_members_of_an_ensemble_are_in_no_curve_but_in_the_progress() -> None:
    members = [
        record(name, "0.1", flags, ensemble="autoattack", forwards=40, backwards=0)
        for name, flags in (("apgd", "1100"), ("square", "1000"))
    ]
    whole = document(*members, record("autoattack", "0.1", "1000"))
    assert {one["series"] for one in only("curve", whole)} == {"a, autoattack"}
    made = only("progress", whole)
    assert [(one["step"], one["right"]) for one in made] == [(0, 4), (10, 2), (20, 1)]
    assert {one["over"] for one in made} == {"passes a sample"}


def test_progress_over_iterations_begins_with_the_clean_accuracy() -> None:
    one = record("deepfool:iters=2", distance=(0.0, 0.5, 1.0, math.inf), by_iter=(2, 1))
    made = only("progress", document(one))
    assert [(point["step"], point["right"]) for point in made] == [(0, 3), (1, 2), (2, 1)]


def test_pairs_are_those_of_compare_also_of_several_documents() -> None:
    compared = documents()["compare"]
    singles = [
        document(record("pgd", "0.3", flags, name=name))
        for name, flags in (("x.pt", "1" * 12), ("y.pt", "0" * 10 + "10"))
    ]
    made = only("pairs", *singles)
    assert (made[0]["pair"], made[0]["difference"], made[0]["so"]) == ("x - y", round(100 * 11 / 12, 3), "told apart")
    of_first = [pair for pair in compared["pairs"] if pair["kind"] == "samples" and pair["a"] == "x/vanilla-0.pt"]
    shown = only("pairs", compared)
    assert [round(100 * pair["difference"], 3) for pair in of_first] == [one["difference"] for one in shown]
    assert [pair["separable"] for pair in of_first] == [one["so"] == "told apart" for one in shown]


def test_rows_of_other_samples_are_not_compared() -> None:
    other = record("pgd", "0.3", "1100", name="b.pt", ids=(7, 8, 9, 10))
    assert CHARTS["pairs"].points(gather([document(record("pgd", "0.3")), document(other)])) == {}


def test_many_models_are_not_compared_pair_by_pair() -> None:
    rows = [record(name=f"{i}.pt") for i in range(points.MOST_COMPARED + 1)]
    assert CHARTS["pairs"].points(gather([document(*rows)])) == {}


def test_classes_have_their_names_where_the_document_has_them() -> None:
    spec = {"runs": [{"checkpoint": "a.pt", "classes": ["cat", "dog", "cat"]}]}
    one = record(robust="1100", y=(0, 1, 1, 2))
    named = make_document("evaluate", [one], {"spec": spec})
    assert [point["class"] for point in only("classes", named)] == ["cat (0)"] * 2 + ["dog"] * 2 + ["cat (2)"] * 2
    assert [point["class"] for point in only("classes", document(one))] == ["0", "0", "1", "1", "2", "2"]
    rates = [(point["when"], point["right"], point["n"]) for point in only("classes", named)]
    assert rates == [
        ("clean", 1, 1),
        ("under attack", 1, 1),
        ("clean", 2, 2),
        ("under attack", 1, 2),
        ("clean", 1, 1),
        ("under attack", 0, 1),
    ]


@pytest.mark.parametrize("spec", [None, {}, {"runs": 3}, {"runs": [None, {"checkpoint": "a.pt", "classes": 5}]}])
def test_class_names_of_another_shape_are_none(spec: Any) -> None:
    assert points.class_names({"spec": spec}, "a.pt") == []


def test_confusion_adds_up_to_all_samples_and_shows_what_is_confused_most() -> None:
    made = only("confusion", document(record(robust="1100", y=(0, 1, 1, 2))))
    for when in ("clean", "under attack"):
        assert sum(one["count"] for one in made if one["when"] == when) == 4
    many = record(robust=[0] * 3 + [1] * 60, y=[60, 61, 62, *range(60)])
    shown = only("confusion", document(many))
    assert {60, 61, 62} <= {one["number"] for one in shown}
    assert len({one["number"] for one in shown} | {one["its number"] for one in shown}) == points.CONFUSED


def test_of_many_classes_those_that_lose_most_are_shown() -> None:
    made = only("classes", document(record(robust=[1] * 90 + [0] * 10, y=list(range(100)))))
    assert len(made) == 2 * points.CLASSES
    assert {one["number"] for one in made} >= set(range(90, 100))


def test_the_strongest_attack_of_each_model_comes_first() -> None:
    rows = [record("fgsm", "0.1", "1110"), record("pgd", "0.3", "1000"), record("fgsm", "0.1", "1111", name="b.pt")]
    assert list(CHARTS["classes"].points(gather([document(*rows)]))) == [
        "a: pgd:steps=20 Linf 0.3",
        "b: fgsm Linf 0.1",
        "a: fgsm Linf 0.1",
    ]


def test_rows_whose_classes_nobody_knows_are_in_no_view_by_class() -> None:
    found = gather([document(record(y=(0, -1, 0, 0)))])
    assert CHARTS["confusion"].points(found) == {} == CHARTS["classes"].points(found)


def test_history_leaves_out_seconds_and_what_was_not_finite() -> None:
    training = [{"checkpoint": "a.pt", "checkpoint_sha256": "sha256 of a.pt", "history": HISTORY}]
    made = only("history", document(record(), training=training))
    assert [(one["measure"], one["epoch"], one["value"]) for one in made] == [("loss", 1, 2), ("loss", 2, 1)]


def test_models_of_one_name_are_told_by_their_hash() -> None:
    other = record().__class__(
        **{**_fields(record()), "subject": record(name="b.pt").subject.__class__("a.pt", "12345678", None, None)}
    )
    assert {row.model for row in gather([document(record()), document(other)]).rows} == {"a sha256 o", "a 12345678"}


def _fields(one: Any) -> dict[str, Any]:
    return {key: getattr(one, key) for key in one.__dataclass_fields__}


def test_so_many_series_are_drawn_and_no_more() -> None:
    rows = [record(name=f"{i}.pt") for i in range(40)]
    assert len({one["series"] for one in only("curve", document(*rows))}) == points.SERIES


@pytest.mark.parametrize(
    ("model", "attack", "left"),
    [("a", None, 2), ("b.pt", None, 1), (None, "pgd", 1), (None, "fgsm Linf 0.1", 2), ("a", "fgsm", 1)],
)
def test_rows_are_chosen_by_name(model: str | None, attack: str | None, left: int) -> None:
    rows = [record(), record("pgd", "0.3"), record(name="b.pt")]
    assert len(gather([document(*rows)]).only(model, attack).rows) == left


def run(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A document of PGD at two budgets."""
    rows = [record("pgd", eps, **({"robust": "1100"} | changes)) for eps in ("0.1", "0.3")]
    return make_document("evaluate", rows, {"seed": seed})


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (run(robust="110011"), ("n = 4", "n = 6")),
        (run(seed=1), ("seed 0", "seed 1")),
        (run(dataset="photos"), ("mnist", "photos")),
        (run(ids=(4, 5, 6, 7)), ("samples 0 to 3", "samples 4 to 7")),
        (run(seed=1, robust="110011"), ("n = 4", "n = 6")),
    ],
)
def test_runs_of_one_attack_on_other_samples_or_seeds_stand_apart(other: dict[str, Any], told: tuple[str, str]) -> None:
    found = gather([run(), other])
    assert [row.run for row in found.rows] == [
        f"pgd:steps=20 Linf {eps}, {what}" for what in told for eps in ("0.1", "0.3")
    ]
    for kind in ("classes", "confusion"):
        assert set(CHARTS[kind].points(found)) == {row.title for row in found.rows}
    assert found.only(None, found.rows[2].run).rows == found.rows[2:3]
    (drawn,) = CHARTS["curve"].points(found).values()
    for what in told:
        (name,) = {one["series"] for one in drawn if one["series"].endswith(what)}
        own = [one for one in drawn if one["series"] == name]
        assert [one["eps"] for one in own] == [0, 0.1, 0.3]
        assert len({one["n"] for one in own}) == 1


def test_an_ensemble_on_other_samples_is_a_line_of_its_own() -> None:
    def ensemble(n: int) -> dict[str, Any]:
        return document(record("apgd", robust="1" * n, ensemble="autoattack"), record("autoattack", robust="1" * n))

    drawn = only("progress", ensemble(4), ensemble(8))
    assert [one["series"] for one in drawn] == [f"a: autoattack Linf 0.1, n = {n}" for n in (4, 4, 8, 8)]


def test_pairs_of_two_seeds_are_two_panels() -> None:
    def compared(seed: int) -> dict[str, Any]:
        return make_document("compare", [record(), record(name="b.pt")], {"seed": seed})

    drawn = only("pairs", compared(0), compared(1))
    assert [one["attack"] for one in drawn] == ["fgsm Linf 0.1, seed 0", "fgsm Linf 0.1, seed 1"]


def test_curves_of_other_samples_stand_apart() -> None:
    long = copy.deepcopy(documents()["curve"])
    for curve in long["curves"]:
        curve["dataset"] = "photos"
    drawn = only("curve", documents()["curve"], long)
    assert {one["series"].rpartition(", ")[2] for one in drawn} == {"mnist", "photos"}


def test_progress_ends_where_nothing_changes_any_more() -> None:
    drawn = only("progress", document(record("deepfool:iters=9", distance=(0.5, 1.0), by_iter=(1, *[0] * 8))))
    assert [one["step"] for one in drawn] == [0, 1, 2]
