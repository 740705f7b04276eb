"""All claims together: each is judged on everything, on nothing, and on whatever an interruption left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from robustcli.studies.batchout import ablation_claims, headline_claims
from robustcli.studies.batchout.claims import CLAIMS, Claim, judge_claim
from robustcli.studies.batchout.evidence import Evidence, Judgement

from .conftest import every_part, evidence

VERDICTS = ("holds", "holds in part", "does not hold", "cannot be told")


def test_every_claim_is_judged_where_everything_was_measured() -> None:
    whole = evidence(*every_part().values())
    found = {(claim.source, claim.text): judge_claim(claim, whole) for claim in CLAIMS}
    assert len(found) == len(CLAIMS)
    assert {judgement.verdict for judgement in found.values()} <= set(VERDICTS)
    assert all(judgement.numbers.strip("-") for judgement in found.values())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_no_claim_is_judged_on_nothing(claim: Claim) -> None:
    found = judge_claim(claim, evidence(speed={}))
    assert (found.verdict, found.breaks) == ("not measured", "-")
    assert found.numbers.startswith("lacks ")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
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
        for module in (headline_claims, ablation_claims)
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
            assert judge_claim(claim, evidence(cut)).verdict in (*VERDICTS, "not measured")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("fig4b", ablation_claims.more_slots),
        ("fig5a", ablation_claims.larger_k),
        ("fig5a", ablation_claims.peaks_at_half),
        ("fig5b", ablation_claims.beats_noise),
    ],
)
def test_a_claim_on_a_whole_sweep_needs_all_of_it(name: str, rule: Callable[[Evidence], Judgement]) -> None:
    part = every_part()[name]
    claim = Claim("", "", rule)
    assert judge_claim(claim, evidence(part)).verdict != "not measured"
    assert judge_claim(claim, evidence(replace(part, networks=part.networks[:-1]))).verdict == "not measured"
