from __future__ import annotations

import pytest

from robustcli.attacks import ATTACKS
from robustcli.data.named import DATASETS
from robustcli.models import MODELS
from robustcli.models.zoo import entries
from robustcli.training.methods import METHODS

from .conftest import Call


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", MODELS),
        ("attacks", ATTACKS),
        ("methods", METHODS),
        ("datasets", DATASETS),
        ("zoo", {f"zoo:{name}": entry for name, entry in entries().items()}),
    ],
)
def test_a_list_shows_every_name_on_stdout(call: Call, what: str, names: dict[str, object]) -> None:
    ended = call("list", what)
    first_words = [line.split()[0] for line in ended.out.splitlines() if line.strip()]
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in names if name not in first_words] == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("models", ["c1, c2, f1"]),
        ("attacks", ["overshoot", "step_size", "restarts", "minimal", "scores", "decisions", "linf l2", "2020"]),
        ("methods", ["eta", "layers", "craft"]),
        ("datasets", ["1x28x28", "3x32x32"]),
        ("zoo", ["seed 0", "12 epochs", "fgsm 0.3", "pgd-40 0.1"]),
    ],
)
def test_a_list_shows_what_each_name_takes(call: Call, what: str, words: list[str]) -> None:
    shown = call("list", what).out
    assert [word for word in words if word not in shown] == []
