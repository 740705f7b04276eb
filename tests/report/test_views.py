"""Tables from documents: what stands where, what is said under them, and what must not be claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from robustcli.fields import Eps
from robustcli.measure.compare import contests, families, pairs
from robustcli.measure.curve import Curve, Group, curves
from robustcli.measure.document import make_document
from robustcli.measure.record import Record, Sampled
from robustcli.measure.transfer import Transferred
from robustcli.report.table import Table, percent
from robustcli.report.views import COLUMNS, class_table, curve_table, evaluation_table, sparkline, tables

from ..records import documents, record


def half(attack: str, eps: str | None = "8/255", correct: int = 30, n: int = 50, **changes: object) -> Record:
    """So many of `n` are left; one was wrong before."""
    flags = [1] * correct + [0] * (n - correct)
    far = [math.inf if flag else 1.234 for flag in flags]
    return record(attack, eps, flags, distance=[*far[:-1], 0.0], **changes)


DEEPFOOL = "deepfool:iters=2,box=none"


def all_three(**changes: object) -> list[Record]:
    by_iter = (45, changes.get("correct", 30))
    fgsm, pgd = half("fgsm", **changes), half("pgd:steps=50,norm=l2", "1.5", **changes)
    return [fgsm, pgd, half(DEEPFOOL, by_iter=by_iter, **changes)]


# --- evaluate


def test_the_clean_accuracy_comes_first_and_then_an_attack_a_row() -> None:
    table = evaluation_table(all_three(correct=20))
    assert table.title == "a.pt: vanilla mnist-cnn on mnist, n = 50"
    assert table.headers == ("attack", "budget", "acc. %", "95 % CI", "right", "median", "sec")
    assert [cells[:2] for cells in table.cells] == [
        ("clean", "-"),
        ("fgsm", "Linf 8/255"),
        ("pgd:steps=50", "L2 1.5"),
        ("deepfool:iters=2,box=none", "L2"),
    ]
    assert table.cells[0][2:] == ("98.0", "[89.5, 99.6]", "49", "-", "-")
    assert table.cells[1][2:] == ("40.0", "[27.6, 53.8]", "20", "-", "2.0")
    assert table.cells[3][5] == "1.23"


@pytest.mark.parametrize(("model", "method"), [(None, None), ("mnist-cnn", None), (None, "vanilla")])
def test_what_nobody_knows_of_a_model_is_left_out_of_the_title(model: str | None, method: str | None) -> None:
    made = record(split="train")
    table = evaluation_table([replace(made, subject=replace(made.subject, model=model, method=method))])
    known = model or method
    assert table.title == f"a.pt{f': {known}' if known else ''} on mnist (train split), n = 4"


def test_rows_of_different_numbers_of_samples_each_have_theirs() -> None:
    table = evaluation_table([record(robust="10"), record("pgd", robust="1100")])
    assert (table.headers[2], [cells[2] for cells in table.cells]) == ("n", ["4", "2", "4"])
    assert table.title.endswith("n as in the rows")


def test_an_ensembles_seconds_are_those_of_its_members() -> None:
    members = [
        record(name, ensemble="autoattack", seconds=seconds) for name, seconds in (("apgd", 3.0), ("square", 4.0))
    ]
    table = evaluation_table(
        [record(seconds=1.0), *members, record("autoattack", seconds=0.0), record("pgd", seconds=2.0)]
    )
    assert [cells[-1] for cells in table.cells[1:]] == ["1.0", "3.0", "4.0", "7.0", "2.0"]
    assert table.cells[2][0] == "autoattack/apgd:steps=100"
    assert table.notes[-2].startswith("A member of an ensemble meets")


@pytest.mark.parametrize(
    ("distance", "shown"),
    [((1.0, math.inf, math.inf), "inf"), ((0.0, 0.0, 1.0), "0"), ((0.000123, 0.000123, 1), "0.000123")],
)
def test_a_median_that_was_not_reached_is_infinite(distance: tuple[float, ...], shown: str) -> None:
    assert evaluation_table([record("deepfool", distance=distance)]).cells[1][5] == shown


@pytest.mark.parametrize(("correct", "state"), [(0, "all converged"), (30, "30 of 50 not converged")])
def test_a_minimal_norm_attack_says_whether_it_converged(correct: int, state: str) -> None:
    note = evaluation_table(all_three(correct=correct)).notes[0]
    assert note.startswith("deepfool:iters=2,box=none L2: ")
    assert f"after each iteration 90.0 {percent(correct, 50)}; {state}." in note


@pytest.mark.parametrize(
    ("by_iter", "words"),
    [
        ((45, 20, 0, 0, 0), "90.0 40.0 0.0 0.0 0.0; all"),
        ((45, 20) + 9 * (0,), "90.0 40.0 0.0 (the same in the 8 after); all"),
        (tuple(range(12, -1, -1)), "24.0 22.0 20.0 18.0 16.0 14.0 12.0 10.0 8.0 6.0 4.0 2.0 0.0; all"),
    ],
)
def test_of_many_iterations_the_last_that_change_nothing_are_not_told(by_iter: tuple[int, ...], words: str) -> None:
    assert f"after each iteration {words}" in evaluation_table([half("deepfool", correct=0, by_iter=by_iter)]).notes[0]


@pytest.mark.parametrize(("correct_8bit", "noted"), [(None, False), (30, False), (31, False), (32, True)])
def test_rounding_is_told_where_it_saves_more_than_a_point(correct_8bit: int | None, noted: bool) -> None:
    made = half("fgsm", n=100, correct_8bit=correct_8bit)
    lines = [note for note in evaluation_table([made]).notes if "8 bits" in note]
    words = "fgsm Linf 8/255: accuracy % with its images rounded to 8 bits 32.0, before 30.0."
    assert lines == ([words] if noted else [])


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((50, 0, 81), "square and fab-t on 50 of 131 survivors broke none: at most 2.9 points less (95 %)"),
        ((50, 2, 0), "square and fab-t ran on all 131 survivors, as 2 of a sample of 50 broke"),
        ((131, 2, 0), "square and fab-t ran on all 131 survivors"),
    ],
)
def test_what_a_sample_leaves_open_is_told_once(counts: tuple[int, int, int], words: str) -> None:
    sampled = Sampled(("square", "fab-t"), 131, *counts)
    member = half("square", n=200, ensemble="autoattack", sampled=sampled)
    whole = half("autoattack:version=fast", n=200, sampled=sampled)
    notes = evaluation_table([member, whole]).notes
    assert [note for note in notes if "survivors" in note] == [f"autoattack:version=fast Linf 8/255: {words}."]


@pytest.mark.parametrize("name", ["attack", "evaluate", "curve", "compare"])
def test_accuracy_under_attack_is_never_shown_without_saying_that_it_is_an_upper_bound(name: str) -> None:
    first = tables(documents()[name])[0]
    assert "pper bound" in first.notes[-1]


def test_a_model_has_a_table_of_its_own_and_no_rows_none() -> None:
    assert [table.title.partition(":")[0] for table in tables(documents()["evaluate"])] == ["a.pt", "x/vanilla-0.pt"]
    assert tables(documents()["no rows"]) == []


# --- compare


def compared(*groups: Sequence[Record]) -> list[Table]:
    whole = [record for group in groups for record in group]
    return tables(make_document("compare", whole, {}, pairs=[pair.as_dict() for pair in pairs(groups)]))


def groups(*names: str) -> list[list[Record]]:
    return [all_three(name=name) for name in names]


def test_a_comparison_has_a_row_a_checkpoint_and_a_column_a_budget() -> None:
    table = compared(*groups("a.pt", "b.pt"))[0]
    assert (table.headers[:2], table.left) == (("checkpoint", "method"), 2)
    assert table.headers[2:4] == ("clean", "fgsm\nLinf 8/255")
    assert table.headers[-1] == "median\nL2"
    assert {len(cells) for cells in table.cells} == {len(table.headers)}
    assert table.cells[0][2:4] == ("98.0\n[89.5, 99.6]", "60.0\n[46.2, 72.4]")
    assert table.notes[0].startswith("a, deepfool:iters=2")


@pytest.mark.parametrize(
    ("names", "shared", "shown"),
    [
        (["c/mnist-fgsm-0.pt", "c/mnist-pgd-0.pt"], "c/mnist-*-0.pt", ["fgsm", "pgd"]),
        (["c/fgsm.pt", "c/fgsm-2.pt"], "c/*.pt", ["fgsm", "fgsm-2"]),
        (["a.pt", "b.pt"], "*.pt", ["a", "b"]),
        (["x/a.pt", "y/a.pt"], "*.pt", ["x/a", "y/a"]),
        (["seed1.pt", "seed10.pt"], "*.pt", ["seed1", "seed10"]),
        (["c/a.pt"], "c/a.pt", ["vanilla"]),
    ],
)
def test_checkpoints_are_told_apart_by_what_differs(names: list[str], shared: str, shown: list[str]) -> None:
    table = compared(*groups(*names))[0]
    assert table.title.startswith(f"{shared} on mnist, n = 50")
    assert [cells[0] for cells in table.cells] == shown


def test_a_checkpoint_that_is_named_as_its_method_is_told_by_it_alone() -> None:
    table = compared(*(all_three(name=f"{method}.pt", method=method) for method in ("fgsm", "pgd")))[0]
    assert (table.headers[:2], table.left) == (("method", "clean"), 1)
    assert [cells[0] for cells in table.cells] == ["fgsm", "pgd"]
    assert {len(cells) for cells in table.cells} == {len(table.headers)}


def test_what_a_model_has_not_met_is_a_dash_under_its_own_heading() -> None:
    first, second = groups("a.pt", "b.pt")
    (table, *_) = compared(first, [second[0], second[2]])
    assert table.cells[1][3:] == ("60.0\n[46.2, 72.4]", "-", "60.0\n[46.2, 72.4]", "inf")
    assert {len(cells) for cells in table.cells} == {len(table.headers)}


SEVERAL_NEEDED = "cannot be told apart at n = 20; about 29 samples would be needed"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (20, 0, ("+100.0", "20", "0", "< 0.001", "one is ahead")),
        (0, 20, ("-100.0", "0", "20", "< 0.001", "two is ahead")),
        (20, 20, ("+0.0", "0", "0", "1.000", "cannot be told apart at n = 20")),
        (20, 15, ("+25.0", "5", "0", "0.062", SEVERAL_NEEDED)),
    ],
)
def test_only_what_can_be_told_apart_is_ranked(first: int, second: int, said: tuple[str, ...]) -> None:
    one, two = (
        record(robust="0" * (20 - correct) + "1" * correct, name=name)
        for name, correct in (("one.pt", first), ("two.pt", second))
    )
    (line,) = compared([one], [two])[1].cells
    assert line[:2] == ("one - two", "fgsm Linf 0.1")
    assert (line[2].partition("\n")[0], *line[3:]) == said


def test_many_checkpoints_have_the_pairs_of_the_first_and_the_rest_in_json() -> None:
    table = compared(*([record(robust="10", name=f"{name}.pt")] for name in "abcd"))[1]
    assert [line[0] for line in table.cells] == ["a - b", "a - c", "a - d"]
    assert table.notes[0] == "The pairs of a; all 6 are in the JSON."


def over_seeds(**recipes: Sequence[int]) -> Table:
    """So many of 100 samples that each seed of a method withstood."""
    made, specs = [], []
    for method, seeds in recipes.items():
        for seed, correct in enumerate(seeds):
            robust = "1" * correct + "0" * (100 - correct)
            made.append([record("fgsm", "0.3", robust, name=f"{method}-{seed}.pt", method=method)])
            specs.append({"method": {"name": method}, "seed": seed})
    found = families(made, specs)
    between = [one.as_dict() for one in (*pairs(made), *contests(found))]
    recipes_found = [one.as_dict() for one in found]
    flat = [one for group in made for one in group]
    return tables(make_document("compare", flat, {}, pairs=between, families=recipes_found))[-1]


def test_recipes_have_mean_and_spread_and_only_differences_beyond_seeds_are_ranked() -> None:
    table = over_seeds(vanilla=(10, 12, 11), batchout=(45, 41, 47))
    assert table.headers == ("method", "seeds", "clean", "fgsm\nLinf 0.3")
    assert table.cells == (
        ("vanilla", "3", "100.0 ± 0.0", "11.0 ± 1.0"),
        ("batchout", "3", "100.0 ± 0.0", "44.3 ± 3.1"),
    )
    assert "batchout above vanilla by 33.3 points under fgsm Linf 0.3 (p = 0.00" in table.notes[0]
    assert over_seeds(vanilla=(10, 12, 11), gaussian=(9, 13, 12)).notes[0].endswith("(Holm): none.")


@pytest.mark.parametrize(("correct", "noted"), [((10, 12), False), ((10, 40), True)])
def test_seeds_of_one_recipe_that_can_be_told_apart_are_explained(correct: tuple[int, int], noted: bool) -> None:
    notes = over_seeds(vanilla=correct, batchout=(45, 46), pgd=(99,)).notes
    assert [note.split(":")[0] for note in notes[1:]] == noted * ["Seeds of vanilla are told apart under fgsm Linf 0.3"]


FLAGS = {(0, 0): "1000", (0, 1): "1000", (1, 0): "1100", (1, 1): "1110"}


def crossed(cells: Sequence[tuple[int, int]] = tuple(FLAGS), models: int = 2) -> list[Table]:
    paths = [f"runs/mnist-{name}.pt" for name in ("vanilla", "fgsm")]
    own = [
        [record(attack, eps, FLAGS[i, i], name=paths[i]) for i in (0, 1)]
        for attack, eps in (("fgsm", "8/255"), ("pgd", "0.3"))
    ]
    made = [
        Transferred(pair[source], pair[target].subject, tuple(map(int, FLAGS[source, target]))).as_dict(pair[target])
        for pair in own
        for source, target in cells
    ]
    records = [pair[i] for i in range(models) for pair in own]
    return [
        table for table in tables(make_document("compare", records, {}, transfer=made)) if "Transfer" in table.title
    ]


def test_transfer_has_a_table_an_attack_a_source_a_row_and_a_target_a_column() -> None:
    made = crossed()
    assert [table.title for table in made] == ["Transfer: fgsm Linf 8/255", "Transfer: pgd:steps=20 Linf 0.3"]
    for table in made:
        assert table.headers == ("made on", "vanilla\nasked", "fgsm\nasked")
        assert table.cells == (("vanilla", "25.0", "25.0"), ("fgsm", "50.0", "75.0"))
        note = "fgsm: images made on vanilla break 2 of 4 samples that its own attack left standing."
        assert table.notes[:-1] == (note,)


def test_what_an_interrupted_transfer_did_not_come_to_is_a_dash() -> None:
    table = crossed([(0, 0), (0, 1)], models=1)[0]
    assert table.cells[1] == ("runs/mnist-fgsm.pt", "-", "-")


# --- Curves


def curve() -> Curve:
    found = (0.0, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, math.inf)
    y = (0, 0, 0, 0, 1, 1, 1, 1)
    both = [record("fmn", distance=found, y=y), record("pgd", bisected=True, distance=found, y=y)]
    return curves(both, ("cat", "dog"))[0]


BUDGETS = [Eps("0"), Eps("0.05"), Eps("0.10"), Eps("51/255"), Eps("0.3")]


def test_a_curve_has_a_budget_a_row_spelt_as_it_was_written() -> None:
    table = curve_table(curve(), BUDGETS)
    assert table.title == "a.pt: vanilla mnist-cnn on mnist, n = 8: accuracy within Linf eps"
    assert [cells[0] for cells in table.cells] == ["0", "0.05", "0.10", "51/255", "0.3"]
    assert [cells[1] for cells in table.cells] == ["87.5", "87.5", "37.5", "25.0", "12.5"]
    assert [cells[3] for cells in table.cells] == ["7", "7", "3", "2", "1"]
    assert table.notes[0] == "Half are broken within 0.1; closest of fmn:iters=100 and bisect:pgd:steps=20."


def test_classes_have_all_first_and_a_sparkline_each() -> None:
    table = class_table(curve(), BUDGETS)
    assert [cells[:4] for cells in table.cells] == [
        ("all", "8", "87.5", "0.1"),
        ("cat", "4", "75.0", "0.2"),
        ("dog", "4", "100.0", "0.1"),
    ]
    assert table.headers[-1] == "accuracy, eps 0 to 0.3"
    assert {len(cells[4]) for cells in table.cells} == {COLUMNS + 2}


def test_a_sparkline_falls_from_full_to_empty() -> None:
    line = sparkline(Group("all", (0.1, 0.2, 0.3, 0.4)), 0.5)
    assert (line[0], line[-1]) == ("\u2588", " ")
    assert list(line) == sorted(line, reverse=True)
    assert sparkline(Group("all", (math.inf,)), 1.0) == "\u2588" * COLUMNS
    assert sparkline(Group("all", (0.0,)), 1.0) == " " * COLUMNS
    assert "\u2581" in sparkline(Group("all", (*[0.1] * 99, 0.2)), 0.3), "one of a hundred is not nothing"
