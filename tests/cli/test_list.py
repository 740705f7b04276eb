from __future__ import annotations

from collections.abc import Iterable

import pytest

from robustcli.attacks import ATTACKS
from robustcli.data.named import DATASETS
from robustcli.models import MODELS
from robustcli.models.zoo import entries
from robustcli.training.methods import METHODS

from .conftest import Call


@pytest.mark.parametrize(
    ("what", "names", "words"),
    [
        ("models", MODELS, ["c1, c2, f1"]),
        (
            "attacks",
            ATTACKS,
            ["overshoot", "step_size", "minimal", "scores", "decisions", "linf l2", "2020"],
        ),
        ("methods", METHODS, ["eta", "layers", "craft"]),
        ("datasets", DATASETS, ["1x28x28", "3x32x32"]),
        ("zoo", [f"zoo:{name}" for name in entries()], ["seed 0", "12 epochs", "fgsm 0.3", "pgd-40 0.1"]),
    ],
)
def test_a_list_shows_every_name_and_what_it_takes(
    call: Call, what: str, names: Iterable[str], words: list[str]
) -> None:
    ended = call("list", what)
    first_words = [line.split()[0] for line in ended.out.splitlines() if line.strip()]
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in names if name not in first_words] == []
    assert [word for word in words if word not in ended.out] == []
