"""All claims together: each is judged on everything, on nothing, and on whatever an interruption left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from robustcli.studies.batchout import ablations, rules
from robustcli.studies.batchout.claims import CLAIMS, Claim, judged
from robustcli.studies.batchout.findings import Findings, Judgement

from .conftest import every_part, findings

VERDICTS = ("holds", "holds in part", "does not hold", "cannot be told")


def test_every_claim_is_judged_where_everything_was_measured() -> None:
    whole = findings(*every_part().values())
    found = {(claim.source, claim.words): judged(claim, whole) for claim in CLAIMS}
    assert len(found) == len(CLAIMS)
    assert {judgement.verdict for judgement in found.values()} <= set(VERDICTS)
    assert all(judgement.numbers.strip("-") for judgement in found.values())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words[:40])
def test_no_claim_is_judged_on_nothing(claim: Claim) -> None:
    found = judged(claim, findings(speed={}))
    assert (found.verdict, found.breaks) == ("not measured", "-")
    assert found.numbers.startswith("lacks ")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words[:40])
def test_a_claim_has_its_rule_in_one_line(claim: Claim) -> None:
    function = claim.judge.func if isinstance(claim.judge, partial) else claim.judge
    assert claim.rule == (function.__doc__ or "").partition("\n")[0]
    assert claim.rule.endswith(".")
    assert not claim.rule.startswith("partial(")


def _judges(value: object) -> bool:
    return getattr(value, "__annotations__", {}).get("return") == "Judgement"


def test_every_rule_judges_some_claim() -> None:
    used = {claim.judge.func if isinstance(claim.judge, partial) else claim.judge for claim in CLAIMS}
    public = {
        value
        for module in (rules, ablations)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_") and _judges(value)
    }
    assert used == public


@pytest.mark.parametrize("name", every_part())
def test_a_part_cut_short_after_any_network_is_judged_or_not_measured(name: str) -> None:
    """The page is written after an interruption too: no rule may fail on what is not there."""
    part = every_part()[name]
    for count in range(len(part.networks)):
        networks = part.networks[:count]
        names = [entry["name"] for entry in networks]
        cut = replace(part, networks=networks, rows=[row for row in part.rows if row["model"] in names])
        for claim in CLAIMS:
            assert judged(claim, findings(cut)).verdict in (*VERDICTS, "not measured")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("fig4b", ablations.more_slots),
        ("fig5a", ablations.larger_k),
        ("fig5a", ablations.peaks_at_half),
        ("fig5b", ablations.beats_noise),
    ],
)
def test_a_claim_on_a_whole_sweep_needs_all_of_it(name: str, rule: Callable[[Findings], Judgement]) -> None:
    part = every_part()[name]
    claim = Claim("", "", rule)
    assert judged(claim, findings(part)).verdict != "not measured"
    assert judged(claim, findings(replace(part, networks=part.networks[:-1]))).verdict == "not measured"
