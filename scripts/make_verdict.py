"""Measures the calibration set and writes docs/verdict.md.

    python scripts/robust_networks.py --data-dir DIR         # trains the robust networks
    python scripts/make_verdict.py --data-dir DIR            # measures what results/calibration lacks; an hour or two
    python scripts/make_verdict.py --data-dir DIR runs mnist-0.3-wide    # one part, of some networks
    python scripts/make_verdict.py --page                    # writes the page again

The parts are `networks` (good, masked), `runs` (of robust networks: false alarms) and `ensembles` (AutoAttack beside
them). Several processes may measure at once. A test says that the page is what the code and the results give.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from robust_networks import NETWORKS, load
from tabulate import tabulate
from torch import Tensor

from robustcli.attacks import AutoAttack
from robustcli.config import EvalSpec
from robustcli.disk import write_whole
from robustcli.engine.run import Samples, run_attack
from robustcli.fields import Eps
from robustcli.measure.evaluate import evaluate
from robustcli.measure.plan import make_plan
from robustcli.measure.record import Record
from robustcli.measure.session import Item, Session, open_session
from robustcli.provenance import provenance
from robustcli.testing.masked import MASKS, Wrapped
from robustcli.verdict.check import CHECKS, LEVELS, Finding
from robustcli.verdict.judge import WORDS, Verdict, before, verdicts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "verdict.md"
RESULTS = ROOT / "results" / "calibration"
ORIGIN = {key: provenance(seed=0, device="cpu", data_fingerprint=None)[key] for key in ("commit", "hardware")}
"""Of what this process measures."""

PARTS = ("networks", "runs", "ensembles")
N, LIMIT = 100, 20

GOOD = ("mnist-vanilla", "mnist-gaussian", "mnist-pgd")
AS_THEY_ARE = ("mnist-fgsm", "mnist-batchout")
WRAPPED = "mnist-vanilla"

INTRO = """\
# The verdict

<!-- Written by `python scripts/make_verdict.py` from the code and results/calibration; a test says that it is up to
date. -->

Under each table of `evaluate`, `attack` and `compare` stands a verdict on each checkpoint's numbers:

| word | when |
|---|---|
| RELIABLE | none of the below: an ensemble of AutoAttack's grade takes at most about a point more |
| PRELIMINARY | what RELIABLE takes did not run, or a check that bars it warns |
| SUSPECT | a finding at SUSPECT: the number is likely too high, or says nothing |
| INVALID | a finding at INVALID: no number; the run does not start without `--force`, and the exit code is 5 |

RELIABLE takes that such an ensemble ran at each budget, on all samples or on the survivors (R24), that R12 and R13 ran
(for R13, Square with 1 000 queries counts too), and that no check warns that *bars* the word (in the table below).
`quick` has all that with `--preset standard` alone, and with `--preset fast`, whose Square and FAB-T meet a sample of
the survivors unless they break one of it: the number is judged as it stands, and R24 says beside it what the sample
leaves open (of the survivors not met, at most the upper end of the sample's 95 % Wilson interval). Where R24 warns, the
verdict says which number to quote.

Whatever the word: **every number is an upper bound; an adaptive attack may lower it.** Under the table stand the
findings at WARN or above, and how many checks were not run; the JSON holds all, and names what was not run.
`--checks quick` (default) runs the *preflight* and *reuses* the rows; `full` adds attacks on at most 100 survivors of
each budget (200 where n > 1 000), minutes on a CPU; `off` asks nothing and says nothing.

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
- **R9** tolerates 10 % and what chance adds: of PGD-trained nets' points DeepFool-50 leaves 3 to 12 % (3 of 25 on
  mnist-0.3-seed1), and FMN-100 in Linf 27 %, so FMN does not count as converged.
  Behind `x.clamp(0, 1)` zoo:mnist-pgd keeps 60 of 64, since torch gives pixels at 0 and 1 no gradient there; of images
  moved inside by 0.05 it keeps 1. No mask is let off by that.
- **R12** suspects from 10 points on: on the PGD-trained net Square breaks 3 % of what PGD-20 left, more than
  AutoAttack's 0.2 points, which warn.
- **R13** warns of a single point, and suspects from a second on and above 1 %.
- **R14** is judged up to the usual large budget: beyond the budget that it was trained for, the PGD-trained net has
  masked gradients too (at 0.4 its own FGSM images leave 90 %, those of the vanilla net 56 %).
- **R16** is taken of the margin: the cross-entropy of a confident point is so small that any change is a large share.
- **R17** (binarisation test): its thresholds, a closeness of 0.5 and 95 % of the planted adversarials, were chosen on
  this project's networks. At 32 points of Linf 0.3 PGD-20 finds all on the vanilla, Gaussian, FGSM-trained and BatchOut
  networks, and 27 to 32 on the PGD-trained one by seed and samples, where APGD of five starts and Square each find the
  others; so it suspects only below 24 (p < 0.0001). Noise finds 2 to 10. A model whose logits do not come from a linear
  layer is not put to it; R17 is then not run.
- **R18**: 93 samples are the fewest whose interval reaches no further than 10 points at an accuracy of 50 %.
- **R24** is AutoAttack with fewer queries of Square and without FAB-T, which takes a third of its time and breaks next
  to nothing that APGD-T left.
  Of few survivors it is noisy: of 20 it broke so many that zoo:mnist-vanilla and zoo:mnist-gaussian were SUSPECT at
  0.1, which they are not of all; so the good networks above are measured without that limit, the masked ones with it
  (*softmax outputs*: 3 of 20)."""


@dataclass(frozen=True)
class Case:
    """A network at a budget, on some images: what is measured.

    Attributes:
        network: its name.
        eps: the Linf budget, as it is written.
        attack: a SPEC without a budget.
        first, n: which of the test images.
        seed: of the run.
    """

    network: str
    eps: str
    attack: str = "autoattack"
    first: int = 0
    n: int = N
    seed: int = 0


def straight_through(x: Tensor) -> Tensor:
    """Images in 16 levels, whose gradient is passed on as if they were not (Bengio et al. 2013)."""
    return x + ((x * 15).round() / 15 - x).detach()


IN_FRONT = {"straight-through mnist-0.3-seed0": straight_through}
"""A robust network with something harmless before it."""

ROBUST = {
    "zoo:mnist-pgd": "0.3",
    **{name: network.eps for name, network in NETWORKS.items()},
    "straight-through mnist-0.3-seed0": "0.3",
}
"""Networks that are robust at a budget, where no check may be at SUSPECT."""

PLAIN = (
    *((f"zoo:mnist-{name}", "0.05") for name in ("vanilla", "gaussian", "batchout")),
    *(("zoo:mnist-pgd", "0.1"), ("mnist-0.3-seed0", "0.1"), ("mnist-0.1-seed0", "0.05")),
)
"""Networks that resist a small budget only, and robust ones at less than theirs."""

SHORT, LONG = "pgd:steps=20", ("pgd:steps=40", "apgd")
COLOUR = "cifar10-2"
"""Its runs take eight times as long as the others'."""

RUNS = [
    *(
        Case(name, eps, attack, first, seed=seed)
        for name, eps in ROBUST.items()
        if name != COLOUR
        for first, seed in ((0, 0), (100, 1))
        for attack in (SHORT, *LONG)
    ),
    *(Case("zoo:mnist-pgd", "0.3", "pgd:steps=40", seed=seed) for seed in (1, 2)),
    *(Case("zoo:mnist-pgd", "0.3", "pgd:steps=40", n=200, seed=seed) for seed in (0, 1, 2)),
    *(Case(name, ROBUST[name], attack, 200, seed=2) for name in NETWORKS if name != COLOUR for attack in LONG[:1]),
    *(Case(COLOUR, ROBUST[COLOUR], attack, first) for attack, first in ((SHORT, 0), ("apgd", 100))),
    *(Case(name, eps, attack) for name, eps in PLAIN for attack in LONG),
]
ENSEMBLES = [
    *(Case(name, eps) for name, eps in (*ROBUST.items(), *PLAIN)),
    *(Case(name, "0.3", first=100) for name in ("mnist-0.3-wide", "straight-through mnist-0.3-seed0")),
]


@cache
def base(dataset: str, method: str, data_dir: Path | None) -> Item:
    """All test images of a data set with the zoo's network of a method; nothing planned."""
    spec = EvalSpec(dataset=dataset, data_dir=data_dir, attacks=("fgsm",), allow_sample=False)
    return open_session([Path(f"zoo:{dataset}-{method}")], spec).items[0]


def network(name: str, data_dir: Path | None) -> Item:
    """An item with a network of its name in the place of the zoo's."""
    before, _, inner = name.rpartition(" ")
    dataset = "cifar10" if inner.startswith("cifar10") else "mnist"
    if inner.startswith("zoo:"):
        item = base(dataset, inner.partition("-")[2], data_dir)
        model = item.target.module
    else:
        item = base(dataset, "fgsm", data_dir)
        model = load(inner)
    if before:
        model = Wrapped(model, before=IN_FRONT[name])
    own = item.target
    method = own.method if inner.startswith("zoo:") else "pgd"
    target = replace(own, name=name, key=own.key if name == own.name else name, method=method, module=model)
    return replace(item, target=target)


def judged(item: Item, spec: EvalSpec, limit: int | None = None) -> tuple[Verdict, list[Record]]:
    """The full verdict on an item, and its rows."""
    session = Session((item,), spec, "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = before(session)
        rows = [result.record for result in evaluate(session)]
        (verdict,) = verdicts(session, rows, first, full=True, limit=limit)
    return verdict, rows


def measure_networks(names: Sequence[str], data_dir: Path | None) -> None:
    """The good networks, those that are told as what they are, and the masked ones, under three attacks."""
    spec = EvalSpec(dataset="mnist", data_dir=data_dir, limit=N, allow_sample=False)
    masks = {mask.name: mask for mask in MASKS}
    kinds = {
        **{f"zoo:{name}": "good" for name in GOOD},
        **{f"zoo:{name}": "as it is" for name in AS_THEY_ARE},
        **dict.fromkeys(masks, "masked"),
    }
    for name, kind in kinds.items():
        if (names and name not in names) or _known("networks", name=name):
            continue
        item = network(f"zoo:{WRAPPED}" if kind == "masked" else name, data_dir)
        if kind == "masked":
            model = masks[name].build(item.target.module)
            item = replace(item, target=replace(item.target, name=name, key=name, module=model))
        images = item.images.take(slice(N))
        verdict, rows = judged(
            replace(item, images=images, plan=make_plan(spec, images.shape)), spec, None if kind == "good" else LIMIT
        )
        keep("networks", network_entry(kind, verdict, rows))


def measure_runs(names: Sequence[str], data_dir: Path | None) -> None:
    """`--checks full` on each robust network, by attack, samples and seed."""
    for case in RUNS:
        if (names and case.network not in names) or _known("runs", **vars(case)):
            continue
        item, spec = prepared(case, data_dir)
        verdict, (row, *_) = judged(item, spec)
        levels = {one.id: one.level for one in sorted(verdict.findings, key=lambda one: one.rank)}
        found = {"clean": row.clean_correct, "correct": row.correct, "word": verdict.word, "reason": verdict.reason}
        keep("runs", vars(case) | found | {"levels": {name: levels[name] for name in CHECKS if name in levels}})


def measure_ensembles(names: Sequence[str], data_dir: Path | None) -> None:
    """AutoAttack on each network at its budget."""
    for case in ENSEMBLES:
        if (names and case.network not in names) or _known("ensembles", **vars(case)):
            continue
        item, _ = prepared(case, data_dir)
        images = item.images
        samples = Samples(images.batch(slice(None)), images.y, images.ids)
        attack, model = AutoAttack(Eps(case.eps)), item.target.module
        outcome = run_attack(model, attack, samples, seed=case.seed, dtype=torch.bfloat16)[-1]
        keep("ensembles", vars(case) | {"clean": int(outcome.clean.sum()), "correct": int(outcome.robust.sum())})


def prepared(case: Case, data_dir: Path | None) -> tuple[Item, EvalSpec]:
    """The network of a case, its images and its one attack."""
    item = network(case.network, data_dir)
    images = item.images.take(slice(case.first, case.first + case.n))
    spec = EvalSpec(data_dir=data_dir, attacks=(case.attack,), eps=(Eps(case.eps),), seed=case.seed)
    return replace(item, images=images, plan=make_plan(spec, images.shape)), spec


def read(part: str) -> list[dict[str, Any]]:
    """What was measured of a part."""
    path = RESULTS / f"{part}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else []
    return found


def _known(part: str, **key: Any) -> dict[str, Any]:
    """The entry of a key, or an empty one."""
    return next((entry for entry in read(part) if key.items() <= entry.items()), {})


def keep(part: str, entry: dict[str, Any]) -> None:
    """Add an entry to a part's file, with where it comes from; another process may do so at the same time."""
    path = RESULTS / f"{part}.json"
    with FileLock(RESULTS / f".{part}.lock"):
        text = json.dumps({"found": [*read(part), entry | ORIGIN]}, indent=1) + "\n"
        write_whole(path, text.encode(), "results/calibration")
    print(f"{part}: {json.dumps({key: entry[key] for key in entry if key != 'messages'})}", flush=True)


def network_entry(kind: str, verdict: Verdict, rows: Sequence[Record]) -> dict[str, Any]:
    """One network: its accuracies, its word, and each check that fired with its worst level and what it said."""
    accuracies = {f"{row.label} {row.budget or ''}".strip(): row.correct for row in rows}
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
    lines = [
        (one.id, one.title, one.criterion, one.level + ", bars" * one.bars, one.when, one.source)
        for one in CHECKS.values()
    ]
    headers = ("id", "check", "speaks up where", "worst level", "runs", "source")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def calibration_table(networks: Iterable[dict[str, Any]]) -> str:
    """Every network of the set with all that fired."""
    masks = {mask.name: f"{mask.check} {mask.level}" for mask in MASKS}
    lines = []
    for network in networks:
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


def robust_runs(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs on networks that are robust at their budget, as `RUNS` has them."""
    wanted = [vars(case) for case in RUNS if ROBUST.get(case.network) == case.eps]
    return [run for run in runs if any(case.items() <= run.items() for case in wanted)]


def robust_table(runs: Sequence[dict[str, Any]], ensembles: Sequence[dict[str, Any]]) -> str:
    """Each robust network with what AutoAttack leaves of it and the words of its runs."""
    left = {(one["network"], one["eps"]): one for one in ensembles if not one["first"]}
    lines = []
    for name, eps in ROBUST.items():
        own, whole = [run for run in runs if run["network"] == name], left.get((name, eps))
        if not own or whole is None:
            continue
        words = Counter(run["word"] for run in own)
        warned = Counter(check for run in own for check, level in run["levels"].items() if level == "WARN")
        lines.append(
            (
                name,
                eps,
                f"{whole['clean']} of {whole['n']}",
                f"{whole['correct']} of {whole['n']}",
                len(own),
                ", ".join(f"{words[word]} {word}" for word in WORDS if words[word]),
                ", ".join(f"{check} {warned[check]}" for check in CHECKS if warned[check]) or "nothing",
            )
        )
    headers = ("network", "Linf", "clean", "AutoAttack", "runs", "words", "checks at WARN, runs")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def alarms_table(runs: Sequence[dict[str, Any]], networks: Sequence[dict[str, Any]]) -> str:
    """Each check that can be at SUSPECT or must name a mask: false alarms, and masked networks that it names."""
    bad = ("SUSPECT", "INVALID")
    masked = [network for network in networks if network["kind"] == "masked"]
    fired = {network["name"]: network["fired"] for network in masked}
    lines = []
    for check in CHECKS.values():
        named = [mask for mask in MASKS if mask.check == check.id]
        if check.level not in bad and not named:
            continue
        checked = [run for run in runs if check.id in run["levels"]]
        false = sum(run["levels"][check.id] in bad for run in checked)
        warned = sum(run["levels"][check.id] == "WARN" for run in checked)
        missed = sum(LEVELS.index(fired[mask.name].get(check.id, "OK")) < LEVELS.index(mask.level) for mask in named)
        found = sum(network["fired"].get(check.id) in bad for network in masked)
        lines.append(
            (
                f"{check.id} {check.title}",
                f"{false} of {len(checked)}",
                f"{warned} of {len(checked)}",
                f"{found} of {len(masked)}",
                f"{missed} of {len(named)}" if named else "-",
            )
        )
    headers = (
        "check",
        "false alarms (robust runs)",
        "at WARN there",
        "masked networks at SUSPECT or INVALID",
        "misses",
    )
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def reliable(runs: Iterable[dict[str, Any]], ensembles: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    """Each run that ended RELIABLE on samples that AutoAttack met too, and by how many points its number is higher."""
    where = ("network", "eps", "first", "n")
    left = {tuple(one[key] for key in where): one for one in ensembles}
    found = []
    for run in runs:
        whole = left.get(tuple(run[key] for key in where))
        if run["word"] == "RELIABLE" and whole:
            found.append((run, 100 * (run["correct"] - whole["correct"]) / run["n"]))
    return found


def reliable_table(found: Sequence[tuple[dict[str, Any], float]]) -> str:
    """How far RELIABLE numbers are from AutoAttack's."""
    lines = [
        (
            run["network"],
            run["eps"],
            run["attack"],
            run["seed"],
            run["correct"],
            f"{run['correct'] - gap * run['n'] / 100:.0f}",
            f"{gap:.1f}",
        )
        for run, gap in found
    ]
    headers = ("network", "Linf", "attack that ran", "seed", f"right of {N}", "under AutoAttack", "points")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def reliable_section(runs: Sequence[dict[str, Any]], ensembles: Sequence[dict[str, Any]], where: str) -> str:
    """What RELIABLE meant, measured."""
    near = reliable(runs, ensembles)
    gaps = [gap for _, gap in near]
    budgets = {(run["network"], run["eps"]) for run, _ in near}
    mean, most, above = sum(gaps) / max(1, len(gaps)), max(gaps, default=0.0), sum(gap > 2 for gap in gaps)
    return f"""\
PGD-20, PGD-40 or APGD under `--checks full` at one budget, and AutoAttack (`standard`, 5 000 queries, seed 0, its
images made in bfloat16 and judged in float32) on the same {N} test images. {len(near)} of these runs ended RELIABLE, on
{len(budgets)} networks and budgets: {mean:.2f} points above AutoAttack's in the mean and {most:.1f} at most, {above} of
them more than 2. So few samples are probed all; of more than {N} survivors the verdict's interval says what the others
leave open. {where}.

{reliable_table(near)}"""


def alarms_section(runs: Sequence[dict[str, Any]], ensembles: Sequence[dict[str, Any]]) -> str:
    """The robust networks and what the runs on them said."""
    suspect = sum(run["word"] in ("SUSPECT", "INVALID") for run in runs)
    wanted = [case for case in RUNS if ROBUST.get(case.network) == case.eps]
    return f"""\
Robust networks: PGD-7 training (`scripts/robust_networks.py`, each under 15 minutes on 2 cores), of which AutoAttack
leaves at least half of what is right without an attack. Each is evaluated at the budget of its training under PGD-20,
PGD-40 and APGD with `--checks full`, on two or three sets of {N} test images with a seed each, the colour network
twice, and zoo:mnist-pgd under PGD-40 on 100 and 200 images with three seeds too. *straight-through* has an input in 16
levels before it whose gradient is passed on. {len(wanted)} runs are planned; of the {len(runs)} that are measured
{suspect} ended SUSPECT or INVALID.

{robust_table(runs, ensembles)}

By check: how often it was at SUSPECT or INVALID in these runs (false alarms) or at WARN, how many of the masked
networks below it put at SUSPECT or INVALID, and how many of those that it must name it missed."""


def page() -> str:
    """docs/verdict.md."""
    networks, runs, ensembles = map(read, PARTS)
    commits, hardware = ({one[key] for one in (*networks, *runs, *ensembles)} for key in ("commit", "hardware"))
    where = f"Commits {', '.join(sorted(commit[:7] for commit in commits))}, {', '.join(sorted(hardware))}; "
    where += "`python scripts/make_verdict.py --data-dir DIR`"
    how = f"""\
Each network under FGSM, PGD-20 and DeepFool-5 at Linf 0.1 and 0.3 on {N} images of mnist, `--checks full`, with at
most {LIMIT} survivors a budget but for the good ones; counts are out of {N}. The masked networks are zoo:{WRAPPED} with
one fault each (`robustcli.testing.masked`). INFO is left out. Seed 0. {where}."""
    said = [
        f"- **{network['name']}**, {network['word']}. {message}."
        for network in networks
        if network["kind"] == "as it is"
        for message in [". ".join(network["messages"].values())]
    ]
    at_budget = robust_runs(runs)
    parts = (
        INTRO,
        checks_table(),
        "## How far RELIABLE numbers are from AutoAttack's",
        reliable_section(runs, ensembles, where),
        "## False alarms and misses",
        alarms_section(at_budget, ensembles),
        alarms_table(at_budget, networks),
        "## The calibration set",
        how,
        calibration_table(networks),
        "## FGSM training and BatchOut, told as what they are",
        "\n".join(said),
        KNOWN,
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, unless `--page`, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS, help="all if left out")
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="all if left out")
    parser.add_argument("--data-dir", type=Path, help="where MNIST and CIFAR-10 lie")
    parser.add_argument("--page", action="store_true", help="do not measure")
    options = parser.parse_args()
    measures = {"networks": measure_networks, "runs": measure_runs, "ensembles": measure_ensembles}
    if not options.page:
        for part in [options.part] if options.part else PARTS:
            measures[part](options.names, options.data_dir)
    if options.page or not options.part:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
