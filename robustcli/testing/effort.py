"""Every attack with no more effort than tiny models need: what the tests of the contract and `robustcli doctor` run."""

from __future__ import annotations

from typing import Any

from robustcli.attacks import parse_attack
from robustcli.attacks.base import Attack

EPS = {"linf": "8/255", "l2": "0.5", "l1": "0.25"}
"""By norm: budgets that `check_attack` can judge."""

WEAK = frozenset({"noise", "square", "hopskipjump", "cw"})
"""Attacks that do not reach the closed form with so little effort."""

EFFORT: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 10},
    "apgd-t": {"steps": 10, "targets": 2},
    "autoattack": {"rounds": 5, "queries": 10},
    "fmn": {"iters": 20},
    "fab": {"iters": 4},
    "fab-t": {"iters": 4},
    "cw": {"steps": 20, "binary_search_steps": 3, "initial_const": 0.1, "lr": 0.1},
    "square": {"queries": 60},
    "hopskipjump": {"iters": 3, "directions": 20},
}


def small_attack(name: str, norm: str) -> Attack:
    """The attack of this name in a norm.

    Raises:
        ConfigError: it has no such norm.
    """
    return parse_attack(name, {"norm": norm, "eps": EPS[norm]} | EFFORT.get(name, {}))
