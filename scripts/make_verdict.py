"""Measures the calibration set and writes docs/verdict.md.

    python scripts/make_verdict.py --data-dir DIR    # measures; about five minutes on one core
    python scripts/make_verdict.py --go-on --data-dir DIR    # measures what results/verdict.json lacks
    python scripts/make_verdict.py --page            # writes the page again from results/verdict.json

A test says that the page is what the code and results/verdict.json give.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from robustcli.attacks import label
from robustcli.config import EvalSpec
from robustcli.evaluation.evaluate import Item, Session, evaluate, open_session
from robustcli.evaluation.results import Row
from robustcli.provenance import provenance
from robustcli.testing.masked import MASKS
from robustcli.verdict.findings import LEVELS, Finding, Verdict
from robustcli.verdict.session import Judged, before, verdicts
from robustcli.verdict.table import CHECKS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "verdict.md"
RESULTS = ROOT / "results" / "verdict.json"
N, LIMIT = 80, 20

GOOD = ("mnist-vanilla", "mnist-gaussian", "mnist-pgd")
AS_THEY_ARE = ("mnist-fgsm", "mnist-batchout")
WRAPPED = "mnist-vanilla"

INTRO = """\
# The verdict

<!-- Written by `python scripts/make_verdict.py` from the code and results/verdict.json; a test says that it is up to
date. -->

Under each table of `evaluate`, `attack` and `compare` stands a verdict on each checkpoint's numbers:

| word | when |
|---|---|
| RELIABLE | none of the below, and R23, R12 and R13 passed (for R13, Square with 1 000 queries counts too) |
| PRELIMINARY | only weak attacks ran, or R12 or R13 did not, as with `quick` but for `--preset standard` |
| SUSPECT | a finding at SUSPECT: the number is likely too high, or says nothing |
| INVALID | a finding at INVALID: no number; the run does not start without `--force`, and the exit code is 5 |

Whatever the word: **every number is an upper bound; an adaptive attack may lower it.** What was not run is listed.
`--checks quick` (default) runs the *preflight* and *reuses* the rows; `full` adds attacks on at most 100 survivors of
each budget, minutes on a CPU; `off` asks nothing and says nothing. The JSON holds all findings, with criterion and
value.

Training is watched too (T1): where a method trains against an attack, FGSM and PGD-10 meet the first 256 validation
images after each epoch, and `train` warns of catastrophic overfitting (Wong et al. 2020) once FGSM leaves 20 points
more than PGD-10, or PGD-10's accuracy halves within an epoch. The epoch that is kept is still the best under the attack
that was trained against: its number is told as what it is (R22), and the warning names the epoch with the best PGD-10.

## The checks"""

KNOWN = """\
## What is known of the thresholds

Numbers here are those that the thresholds were set by: zoo networks, the first 150 MNIST test images (R6: 300; R14 in
`robustcli reproduce mnist`: 10 000), PGD-20, at most 100 survivors.

- **P4** is no fault by itself: good networks have up to 70 % of their points above a margin of 17. It warns only where
  the median margin is above 100, where a float32 cross-entropy has no gradient left.
- **P6** is told only of a model that P5 passed. P5 cannot tell dropout left on from BatchOut left on, nor P8 a rounding
  layer from one that stops gradients: messages name the most likely cause and no more.
- **R6**'s gap between FGSM and PGD is a warning, not a suspicion: just below its distance to the boundary every good
  network has one (vanilla at 0.15: 67 and 17 %; the PGD-trained net at 0.4: 87 and 2 %).
- **R7** is judged on accuracy with its paired interval: single points of good networks recover as eps grows.
- **R9** tolerates 10 %: of the PGD-trained net's hardest points DeepFool-50 leaves 3 %, and FMN-100 in Linf 27 %, so
  FMN does not count as converged.
- **R12** suspects from 10 points on: on the PGD-trained net Square breaks 3 % of what PGD-20 left, more than
  AutoAttack's 0.2 points, which warn.
- **R13** warns of a single point, and suspects from a second on and above 1 %.
- **R14** is judged up to the usual large budget: beyond the budget that it was trained for, the PGD-trained net has
  masked gradients too (at 0.4 its own FGSM images leave 90 %, those of the vanilla net 56 %).
- **R16** is taken of the margin: the cross-entropy of a confident point is so small that any change is a large share.
- **R17** (binarisation test): its thresholds, a closeness of 0.5 and 95 % of the planted adversarials, were chosen on
  this project's networks and are not calibrated independently. At 32 points of Linf 0.3 PGD-20 finds all on the
  vanilla, Gaussian, FGSM-trained and BatchOut networks and 31 on the PGD-trained one (two misses are SUSPECT); noise
  finds 2 to 10. A model whose logits do not come from a linear layer is not put to it; R17 is then not run."""


def measured(item: Item, spec: EvalSpec, name: str, model: nn.Module) -> tuple[Verdict, list[Row]]:
    """The full verdict on a network in the place of an item's own."""
    own = item.candidate.subject
    subject = replace(own, checkpoint=name, sha256=own.sha256 if name == own.checkpoint else name)
    session = Session((replace(item, candidate=replace(item.candidate, subject=subject, model=model)),), spec, "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = before(session)
        rows = [result.row for result in evaluate(session)]
        (verdict,) = verdicts(session, rows, first, Judged(full=True, limit=LIMIT))
    return verdict, rows


def calibrate(spec: EvalSpec, entries: list[dict[str, Any]]) -> None:
    """Measure all networks of the set but those in `entries`; each is kept in results/verdict.json once it is done."""
    names = [*GOOD, *AS_THEY_ARE]
    session = open_session([Path(f"zoo:{name}") for name in names], spec)
    items = dict(zip(names, session.items, strict=True))
    networks: list[tuple[str, str, Item, nn.Module]] = [
        *(("good", f"zoo:{name}", items[name], items[name].candidate.model) for name in GOOD),
        *(("as it is", f"zoo:{name}", items[name], items[name].candidate.model) for name in AS_THEY_ARE),
        *(("masked", mask.name, items[WRAPPED], mask.build(items[WRAPPED].candidate.model)) for mask in MASKS),
    ]
    images = items[WRAPPED].images
    for kind, name, item, model in networks:
        if name in {entry["name"] for entry in entries}:
            continue
        verdict, rows = measured(item, spec, name, model)
        entries.append(told(kind, verdict, rows))
        origin = provenance(seed=spec.seed, device="cpu", data_fingerprint=images.fingerprint)
        found = {"n": N, "probed": LIMIT, "dataset": images.name, "networks": entries, "provenance": origin}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {verdict.word}: {entries[-1]['fired']}", flush=True)


def told(kind: str, verdict: Verdict, rows: Sequence[Row]) -> dict[str, Any]:
    """One network: its accuracies, its word, and each check that fired with its worst level and what it said."""
    accuracies = {f"{label(row.attack)} {row.eps or ''}".strip(): row.correct for row in rows}
    fired: dict[str, Finding] = {}
    for finding in sorted(verdict.findings, key=lambda one: one.rank):
        if finding.level not in ("OK", "INFO"):
            fired[finding.id] = finding
    return {
        "kind": kind,
        "name": verdict.checkpoint,
        "word": verdict.word,
        "clean": rows[0].clean_correct,
        "correct": accuracies,
        "fired": {name: fired[name].level for name in CHECKS if name in fired},
        "messages": {name: fired[name].message for name in CHECKS if name in fired},
        "not_run": list(verdict.not_run),
    }


def checks_table() -> str:
    """Every check."""
    lines = [(one.id, one.title, one.criterion, one.level, one.when, one.source) for one in CHECKS.values()]
    headers = ("id", "check", "speaks up where", "worst level", "runs", "source")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def calibration_table(found: dict[str, Any]) -> str:
    """Every network of the set with all that fired."""
    masks = {mask.name: f"{mask.check} {mask.level}" for mask in MASKS}
    lines = []
    for network in found["networks"]:
        by_level = {
            level: [name for name, said in network["fired"].items() if said == level] for level in reversed(LEVELS)
        }
        fired = "; ".join(f"{level} {', '.join(names)}" for level, names in by_level.items() if names)
        pgd = network["correct"].get("pgd:steps=20 0.3", "-")
        lines.append(
            (
                network["kind"],
                network["name"],
                network["clean"],
                network["correct"].get("fgsm 0.3", "-"),
                pgd,
                masks.get(network["name"], "-"),
                fired or "nothing",
                network["word"],
            )
        )
    headers = ("kind", "network", "clean", "FGSM 0.3", "PGD-20 0.3", "must fire", "fired", "verdict")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def page(found: dict[str, Any]) -> str:
    """docs/verdict.md."""
    origin, n = found["provenance"], found["n"]
    how = (
        f"Each network under FGSM, PGD-20 and DeepFool-5 at Linf 0.1 and 0.3 on {n} images of {found['dataset']}, "
        f"`--checks full` with at most {found['probed']} survivors a budget; counts are out of {n}. The masked "
        f"networks are zoo:{WRAPPED} with one fault each (`robustcli.testing.masked`). INFO is left out. Commit "
        f"{origin['commit']}, seed {origin['seed']}, {origin['hardware']}; "
        "`python scripts/make_verdict.py --data-dir DIR`."
    )
    said = [
        f"- **{network['name']}**, {network['word']}. {message}."
        for network in found["networks"]
        if network["kind"] == "as it is"
        for message in [". ".join(network["messages"].values())]
    ]
    parts = (
        INTRO,
        checks_table(),
        "## The calibration set",
        how,
        calibration_table(found),
        "## FGSM training and BatchOut, told as what they are",
        "\n".join(said),
        KNOWN,
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, unless `--page`, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies")
    parser.add_argument("--go-on", action="store_true", help="keep what was measured")
    parser.add_argument("--page", action="store_true", help="do not measure")
    options = parser.parse_args()
    if not options.page:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"] if options.go_on else []
        calibrate(EvalSpec(dataset="mnist", data_dir=options.data_dir, limit=N, allow_sample=False), kept)
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
