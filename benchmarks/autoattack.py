"""Ours against the authors' AutoAttack, whole and member by member: see README.md beside this file.

Each finished run is kept in the JSON file at once, and a run that is there already is not made again.

    git clone https://github.com/fra31/auto-attack DIR
    python benchmarks/autoattack.py --reference DIR --json autoattack.json
    python benchmarks/autoattack.py --json autoattack.json --table      # what the file holds
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bars
import official
import pairs
import torch
from pairs import FAST, HALVED, OURS, QUERIES, REFERENCE, UNSCALED, UNTARGETED, Pair, Result
from torch import nn

from robustcli.attacks.norms import NORMS
from robustcli.config import DataSpec, ModelSpec
from robustcli.data.load import load
from robustcli.device import keep_freed_memory
from robustcli.disk import write_whole
from robustcli.engine.run import Samples
from robustcli.errors import RobustCliError
from robustcli.fields import Eps
from robustcli.models import checkpoint
from robustcli.models.nets import load_model
from robustcli.provenance import provenance
from robustcli.testing.masked import MASKS

NETWORKS = ("zoo:mnist-vanilla", "zoo:mnist-fgsm", "zoo:mnist-batchout", "zoo:cifar10-fgsm")
BALLS = {1: ("linf:0.1", "l2:1.0"), 3: ("linf:8/255", "linf:2/255", "l2:0.5", "l2:1.0")}
"""By the images' channels."""

MASKED = "zoo:mnist-vanilla"
"""What the faults of `robustcli.testing.masked` are put around."""

BATCH_SIZES = (32, 64, 128, 256, 500)
"""Of the reference, which takes its best; 500 is its documentation's."""

Side = Callable[[Pair], Result]

ALTERNATING: dict[str, dict[str, Side]] = {
    "ensemble": {
        OURS: pairs.ensemble_of_ours,
        FAST: partial(pairs.ensemble_of_ours, version="fast"),
        HALVED: partial(pairs.ensemble_of_ours, dtype=torch.bfloat16),
        REFERENCE: pairs.ensemble_of_reference,
    },
    "fab": {OURS: pairs.fab_of_ours, REFERENCE: pairs.fab_of_reference, UNTARGETED: pairs.fab_untargeted},
    **{
        f"square-{queries}": {
            OURS: partial(pairs.square_of_ours, queries=queries),
            REFERENCE: partial(pairs.square_of_reference, queries=queries),
        }
        for queries in QUERIES
    },
}
ALTERNATING[f"square-{QUERIES[-1]}"][UNSCALED] = partial(pairs.square_of_reference, queries=QUERIES[-1], scaled=False)
TOGETHER: dict[str, Callable[[Pair], dict[str, Result]]] = {"apgd-ce": pairs.apgd_ce, "apgd-t": pairs.apgd_t}
MEMBERS = (*TOGETHER, *(part for part in ALTERNATING if part != "ensemble"))


@dataclass(frozen=True)
class Key:
    """Which run: `ball` is norm and radius, or a norm alone where distances are measured; `batch_size` is ours."""

    network: str
    ball: str
    part: str
    side: str
    seed: int
    n: int
    threads: int
    device: str
    batch_size: int


class Ledger:
    """The runs that are finished, in a file unless `path` is None."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        kept = json.loads(path.read_text()) if path is not None and path.exists() else {"runs": []}
        self.runs: list[Result] = [{"batch_size": 128} | run for run in kept["runs"]]

    def find(self, key: Key) -> Result | None:
        """The run of this key."""
        wanted = asdict(key)
        return next((run for run in self.runs if all(run[name] == value for name, value in wanted.items())), None)

    def add(self, key: Key, result: Result, origin: dict[str, Any]) -> None:
        """Keep a finished run, and write the file."""
        self.runs.append(asdict(key) | result | origin)
        if self.path is not None:
            write_whole(self.path, (json.dumps({"schema": 1, "runs": self.runs}) + "\n").encode(), "--json")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of fra31/auto-attack")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="checkpoints or zoo:NAME")
    parser.add_argument("--balls", nargs="+", help="such as linf:8/255; without, 0.1 and L2 1.0 on grey images")
    parser.add_argument("--n", type=int, default=200, help="the first n test images")
    parser.add_argument("--seeds", type=int, default=3, help="of the ensemble, of both sides")
    parser.add_argument("--member-seeds", type=int, default=1, help="of its members")
    parser.add_argument("--ensemble", action="store_true", help="only the ensemble, or beside --members")
    parser.add_argument(
        "--preset",
        choices=("standard", "fast"),
        default="standard",
        help="fast: the ensemble alone, as ours is with --preset fast, and fast on masked networks",
    )
    parser.add_argument("--bfloat16", action="store_true", help="the ensemble also as ours is with --dtype bfloat16")
    parser.add_argument("--members", nargs="*", choices=MEMBERS, help="only these, or all of them if none is named")
    parser.add_argument("--ahead", action="store_true", help="only the reference's flags, untimed: the machine is busy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both sides")
    parser.add_argument("--device", default="cpu", help="of both sides: cpu, or cuda")
    parser.add_argument("--batch-size", type=int, default=128, help="of ours; the reference takes its best")
    parser.add_argument("--json", type=Path, help="where finished runs are kept, and read")
    parser.add_argument("--table", action="store_true", help="run nothing; only print what --json holds")
    options = parser.parse_args()
    if options.table and (options.json is None or not options.json.exists()):
        parser.error("--table prints what --json FILE holds: there is no such file")
    if options.reference is None and not options.table:
        parser.error("--reference FOLDER is missing: a checkout of https://github.com/fra31/auto-attack")
    return options


def parts_of(options: argparse.Namespace) -> list[str]:
    """What to run, members first: they are quick and say what to look at."""
    if options.preset == "fast":
        return ["ensemble"]
    everything = options.members is None and not options.ensemble
    members = MEMBERS if everything or options.members == [] else options.members or ()
    return [*members, *(["ensemble"] if everything or options.ensemble else [])]


def open_network(name: str, options: argparse.Namespace) -> tuple[nn.Module, Samples, dict[str, Any]]:
    """The network, frozen, the first n test images of its data set, and where both are from."""
    saved = checkpoint.load(Path(name))
    model = load_model(ModelSpec(**saved.model), saved.state_dict, name).requires_grad_(False).to(options.device)
    images = load(DataSpec(dataset=saved.data["name"], data_dir=options.data_dir, allow_sample=False))
    first = slice(options.n)
    if options.n > len(images):
        raise SystemExit(f"--n {options.n}: {images.name} has {len(images)} test images here")
    origin = {"checkpoint_sha256": checkpoint.sha256(Path(name)), "data_fingerprint": images.fingerprint}
    inputs = (part.to(options.device) for part in (images.batch(first), images.y[first], images.ids[first]))
    return model, Samples(*inputs), origin


def best_batch(model: nn.Module, samples: Samples, name: str, ledger: Ledger, options: argparse.Namespace) -> int:
    """The size at which the reference is quickest, of a few moves of APGD and queries of Square."""
    key = Key(name, "", "batch size", REFERENCE, 0, options.n, options.threads, options.device, options.batch_size)
    if (kept := ledger.find(key)) is None:
        sizes = sorted({min(size, len(samples)) for size in BATCH_SIZES})
        seconds = {size: official.probe(model, samples.x, samples.y, size) for size in (sizes[0], *sizes)}
        kept = {"seconds_by_size": seconds, "best": min(seconds, key=lambda size: seconds[size])}
        ledger.add(key, kept, {})
    return int(kept["best"])


def each_pair(options: argparse.Namespace, ledger: Ledger) -> Iterator[tuple[str, str, Pair, dict[str, Any]]]:
    """Each part, ball and seed of each network: the part, the ball's name, the pair, and where it is from."""
    for name in options.networks:
        model, samples, origin = open_network(name, options)
        best = best_batch(model, samples, name, ledger, options)
        balls = options.balls or BALLS[samples.x.shape[1]]
        for part in parts_of(options):
            radiusless = list(dict.fromkeys(ball.partition(":")[0] for ball in balls))
            for ball in radiusless if part == "fab" else balls:
                norm, _, eps = ball.partition(":")
                seeds = options.seeds if part == "ensemble" else 1 if part == "fab" else options.member_seeds
                for seed in range(seeds):
                    yield (
                        part,
                        ball,
                        Pair(model, samples, NORMS[norm], Eps(eps) if eps else None, seed, options.batch_size, best),
                        (origin | {"network": name}),
                    )


def run_both(
    part: str, ball: str, pair: Pair, origin: dict[str, Any], ledger: Ledger, options: argparse.Namespace
) -> None:
    """Run the sides that are not in the ledger yet; which is first changes from seed to seed."""
    where = partial(Key, n=options.n, threads=options.threads, device=options.device, batch_size=options.batch_size)
    named = partial(where, origin["network"], ball, part, seed=pair.seed)
    if part in TOGETHER:
        if not options.ahead and any(ledger.find(named(side)) is None for side in (OURS, REFERENCE)):
            for side, result in TOGETHER[part](pair).items():
                ledger.add(named(side), result, stamp(origin, options))
        return
    left_out = {OURS} if options.preset == "fast" else {FAST}
    left_out |= set() if options.bfloat16 else {HALVED}
    sides = [side for side in ALTERNATING[part].items() if side[0] not in left_out]
    for side, run in sides if pair.seed % 2 else reversed(sides):
        if ledger.find(named(side)) is None and (side == REFERENCE or not options.ahead):
            result = run(pair)
            untimed = {name: None for name in official.COSTS if options.ahead and name in result}
            ledger.add(named(side), result | untimed, stamp(origin, options))


def run_masked(ledger: Ledger, options: argparse.Namespace) -> None:
    """Our `fast` on the networks that only look robust."""
    model, samples, origin = open_network(MASKED, options)
    for ball in options.balls or BALLS[1][:1]:
        norm, _, eps = ball.partition(":")
        for mask in MASKS:
            where = (options.n, options.threads, options.device, options.batch_size)
            key = Key(f"{MASKED}, {mask.name}", ball, "masked", FAST, 0, *where)
            if ledger.find(key) is None:
                batches = options.batch_size, options.batch_size
                pair = Pair(mask.build(model).requires_grad_(False), samples, NORMS[norm], Eps(eps), 0, *batches)
                ledger.add(key, pairs.ensemble_of_ours(pair, version="fast"), stamp(origin, options))


def stamp(origin: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Where a run comes from."""
    facts = provenance(seed=None, device=options.device, data_fingerprint=origin["data_fingerprint"])
    names = ("commit", "hardware", "platform", "command", "versions", "time", "data_fingerprint")
    sources = {"checkpoint_sha256": origin["checkpoint_sha256"], "reference_commit": options.reference_commit}
    return {name: facts[name] for name in names} | sources


def main() -> None:
    """Run what is missing, and print the table of all."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `robustcli` does; it is good for both
    ledger = Ledger(options.json)
    if not options.table:
        options.reference_commit = official.find(options.reference)
        for part, ball, pair, origin in each_pair(options, ledger):
            started = time.perf_counter()
            run_both(part, ball, pair, origin, ledger, options)
            seconds = f"{time.perf_counter() - started:.0f} s"
            print(origin["network"], ball, part, f"seed {pair.seed}", seconds, file=sys.stderr, flush=True)
        if options.preset == "fast":
            run_masked(ledger, options)
    print(bars.table(ledger.runs))


if __name__ == "__main__":
    try:
        main()
    except RobustCliError as error:
        raise SystemExit(f"{error}") from None
