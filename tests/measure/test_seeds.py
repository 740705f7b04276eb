from __future__ import annotations

import json
from typing import Any

import pytest
from scipy.stats import ttest_ind

from robustcli.config import TrainSpec
from robustcli.measure.record import Record
from robustcli.measure.seeds import contests, families

from ..records import record

N = 100


def group(method: str, seed: int, correct: int, attack: str = "fgsm") -> list[Record]:
    """A checkpoint's only record."""
    return [record(attack, "0.3", "1" * correct + "0" * (N - correct), name=f"{method}-{seed}.pt", method=method)]


def spec(method: str, seed: int, **changes: Any) -> dict[str, Any]:
    return TrainSpec(method={"name": method}, seed=seed, **changes).as_dict()


VANILLA = [(group("vanilla", seed, correct), spec("vanilla", seed)) for seed, correct in enumerate((10, 12, 11))]
BATCHOUT = [(group("batchout", seed, correct), spec("batchout", seed)) for seed, correct in enumerate((45, 41, 47))]


FGSM = VANILLA[0][0][0].setting


def made(*parts: tuple[list[Record], dict[str, Any]]) -> list[Any]:
    return families([rows for rows, _ in parts], [spec for _, spec in parts])


def test_checkpoints_of_one_recipe_are_a_family_and_a_single_one_is_none() -> None:
    found = made(*VANILLA, *BATCHOUT, (group("pgd", 0, 80), spec("pgd", 0)))
    assert [(family.method, len(family.groups)) for family in found] == [("vanilla", 3), ("batchout", 3)]
    assert found[0].accuracies(FGSM) == [0.10, 0.12, 0.11]
    assert found[0].clean == [1.0, 1.0, 1.0]


def test_another_option_is_another_recipe_and_named_by_it() -> None:
    longer = [(rows, spec("vanilla", seed, epochs=30)) for seed, (rows, _) in enumerate(VANILLA)]
    assert [family.method for family in made(*VANILLA, *longer)] == ["vanilla epochs=12", "vanilla epochs=30"]


def test_a_contest_is_welchs_test() -> None:
    wide = [(10, 20, 15), (45, 62, 53)]  # seeds differ by more than 100 samples alone would make them
    named = zip(("vanilla", "batchout"), wide, strict=True)
    parts = [(group(name, seed, correct), spec(name, seed)) for name, c in named for seed, correct in enumerate(c)]
    (contest,) = contests(made(*parts))
    assert contest.p == pytest.approx(float(ttest_ind(*wide, equal_var=False).pvalue))
    assert contest.separable


def test_a_contest_as_json() -> None:
    (contest,) = contests(made(*VANILLA, *BATCHOUT))
    assert contest.difference == pytest.approx(-1 / 3)
    said = json.loads(json.dumps(contest.as_dict(), allow_nan=False))
    assert said["kind"] == "seeds"
    assert said["a"] == ["vanilla-0.pt", "vanilla-1.pt", "vanilla-2.pt"]
    assert (said["label"], said["budget"], said["eps"]) == ("fgsm", "0.3", 0.3)
    assert said["accuracies_b"] == [0.45, 0.41, 0.47]


def test_seeds_that_do_not_vary_are_taken_to_vary_as_much_as_samples_do() -> None:
    same = [(group("vanilla", seed, 10), spec("vanilla", seed)) for seed in range(2)]
    other = [(group("pgd", seed, 10), spec("pgd", seed)) for seed in range(2)]
    better = [(group("pgd", seed, 90), spec("pgd", seed)) for seed in range(2)]
    assert [contest.p for contest in contests(made(*same, *other))] == [1.0]
    assert [contest.separable for contest in contests(made(*same, *better))] == [True]
    one_more = [(group("pgd", seed, 11), spec("pgd", seed)) for seed in range(2)]
    assert [contest.separable for contest in contests(made(*same, *one_more))] == [False]


def test_a_copy_of_a_checkpoint_is_no_other_seed() -> None:
    copy = (group("copy", 0, 90), spec("vanilla", 0))
    assert made(*VANILLA, copy)[0].accuracies(FGSM) == [0.10, 0.12, 0.11]


def test_an_attack_that_one_seed_alone_has_met_is_no_contest() -> None:
    lone = [(rows + group("vanilla", seed, 50, "pgd") * (seed == 0), s) for seed, (rows, s) in enumerate(VANILLA)]
    assert [contest.record.label for contest in contests(made(*lone, *BATCHOUT))] == ["fgsm"]
