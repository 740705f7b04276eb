from __future__ import annotations

import json

import torch

from robustcli.attacks import FGSM, DeepFool
from robustcli.attacks.base import Attack
from robustcli.engine.run import Outcome
from robustcli.fields import Eps
from robustcli.measure.record import Row, Subject, document, to_row


def row_of(attack: Attack, flags: list[int], distance: list[float] | None = None, by_iter: tuple[int, ...] = ()) -> Row:
    robust = torch.tensor(flags, dtype=torch.bool)
    n = len(flags)
    clean = torch.ones(n, dtype=torch.bool)
    pred = torch.zeros(n, dtype=torch.int64)
    far = torch.tensor(distance or [0.0] * n)
    outcome = Outcome(attack, clean, robust, far, pred, pred, by_iter, None, 0.5, 10, 4)
    return to_row(Subject("a.pt", "ab", "mnist-cnn", "vanilla"), "mnist", range(100, 100 + n), outcome)


def test_a_row_counts_samples_and_keeps_their_ids() -> None:
    row = row_of(FGSM(eps=Eps("8/255")), [1, 0, 1, 1])
    assert (row.n, row.correct, row.robust, row.ids) == (4, 3, (1, 0, 1, 1), (100, 101, 102, 103))


def test_a_budget_is_a_number_in_the_row_and_text_in_the_attack() -> None:
    line = row_of(FGSM(eps=Eps("8/255")), [1]).as_dict()
    assert (line["eps"], line["attack"]["eps"]) == (8 / 255, "8/255")
    assert type(line["eps"]) is float


def test_only_a_minimal_norm_attack_has_distance_and_iterations() -> None:
    budget = row_of(FGSM(eps=0.1), [0, 0, 1], [1.0, 2.0, float("inf")]).as_dict()
    minimal = row_of(DeepFool(iters=2), [0, 0, 1], [1.0, 2.0, float("inf")], (2, 1)).as_dict()
    assert (budget["median_distance"], "by_iter" in budget) == (None, False)
    assert (minimal["median_distance"], minimal["eps"], minimal["by_iter"]) == (2.0, None, [2, 1])


def test_a_row_of_no_samples_divides_by_nothing() -> None:
    line = row_of(FGSM(eps=0.1), []).as_dict()
    assert (line["n"], line["accuracy"], line["ci95"]) == (0, 0.0, [0.0, 1.0])


def test_the_document_is_strict_json() -> None:
    rows = [row_of(DeepFool(iters=1), [1, 1], [float("inf")] * 2, (2,))]
    text = json.dumps(document(rows, {"seed": 0}), allow_nan=False)
    assert json.loads(text)["rows"][0]["median_distance"] is None


def test_the_document_of_an_interrupted_run_may_have_no_rows() -> None:
    assert document([], {}) == {"schema": 1, "rows": [], "pairs": [], "verdict": None, "provenance": {}}
