"""The hints of messages: really near, or none."""

from __future__ import annotations

import pytest

from robustcli.attacks import ATTACKS
from robustcli.data.named import ARRAYS, DATASETS
from robustcli.errors import nearest


@pytest.mark.parametrize(
    ("name", "allowed", "near"),
    [
        ("apgd-ce", ATTACKS, "apgd"),
        ("apgd-dlr", ATTACKS, "apgd"),
        ("APGD_T", ATTACKS, "apgd-t"),
        ("auto-attack", ATTACKS, "autoattack"),
        ("auto", ATTACKS, "autoattack"),
        ("pgd-20", ATTACKS, "pgd"),
        ("pdg", ATTACKS, "pgd"),
        ("fgsm_rs", ATTACKS, "fgsm"),
        ("bim", ATTACKS, None),
        ("x", ATTACKS, None),
        ("", ATTACKS, None),
        ("MNIST", DATASETS, "mnist"),
        ("cifar-10", DATASETS, "cifar10"),
        ("cifar", DATASETS, "cifar10"),
        ("FashionMNIST", DATASETS, "fashion-mnist"),
        ("mydata", DATASETS, None),
        ("data.npy", DATASETS, None),
        ("x_train", ["X_train", "Y_train", "X_test", "Y_test"], "X_train"),
        ("X_TEST", ARRAYS, "x_test"),
        ("images", ARRAYS, None),
        ("--epsilon", ["--eps", "--epochs"], "--eps"),
        ("--Batch_Size", ["--eps", "--batch-size"], "--batch-size"),
    ],
)
def test_a_hint_is_near_or_there_is_none(name, allowed, near):
    assert nearest(name, allowed) == (f"; did you mean '{near}'?" if near else "")
