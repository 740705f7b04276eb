"""Makes the zoo that ships with the package: trained checkpoints without what only training needs, and their numbers.

    python scripts/make_zoo.py --data-dir DIR                      # from results/reproduction/models
    python scripts/make_zoo.py --data-dir DIR mnist-batchout       # one of them; the others stay as they are

Networks of more than 6 MB are kept in half precision, and measured again; the others' numbers are those of the study,
from results/reproduction/DATASET.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from robustcli.config import EvalSpec
from robustcli.device import keep_freed_memory
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import open_session
from robustcli.models import checkpoint, zoo
from robustcli.models.checkpoint import Checkpoint
from robustcli.provenance import provenance
from robustcli.report.formats import PER_SAMPLE
from robustcli.studies.batchout.part_results import read

METHODS = ("vanilla", "fgsm", "pgd", "gaussian", "batchout")
NAMES = tuple(f"{dataset}-{method}" for dataset in ("mnist", "cifar10") for method in METHODS)
LIMIT_BYTES = 6_000_000
ATTACKS = (("fgsm", None), ("pgd:steps=40", 1000), ("deepfool:iters=5,box=none", 1000), ("deepfool:iters=50", 1000))
"""What a network in half precision is measured under, at its data's usual budgets, and on how many test images."""

ORIGIN = ("seed", "commit", "device", "hardware", "threads")
PER_SAMPLE_OR_COST = (*PER_SAMPLE, "checkpoint", "checkpoint_sha256", "seconds", "forwards", "backwards", "cached")


def slim(saved: Checkpoint) -> Checkpoint:
    """The checkpoint without the state to go on from; large weights in half precision."""
    weights = {key: value.clone() for key, value in saved.state_dict.items()}
    if sum(value.numel() * value.element_size() for value in weights.values()) > LIMIT_BYTES:
        weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    return replace(saved, state_dict=weights, train_ids=saved.train_ids.to(torch.int32), resume=None)


def studied(name: str, folder: Path, source: Path) -> tuple[dict[str, Any], ...]:
    """The study's rows of the network in `source`, but for those of images made on another one."""
    results = read(folder / f"{name.partition('-')[0]}.json")
    known = {network["name"]: network["sha256"] for network in results.networks}
    if known.get(f"{name}-seed0") != checkpoint.sha256(source):
        raise SystemExit(f"{folder}: {results.part}.json tells of other weights than {source}")
    rows = [row for row in results.rows if row["model"] == f"{name}-seed0" and "source" not in row["attack"]]
    if not rows:
        raise SystemExit(f"{folder}: has no rows of {name}-seed0; run `robustcli reproduce {results.part}` first")
    return tuple(rows)


def measured(path: Path, data_dir: Path | None) -> Iterator[dict[str, Any]]:
    """A row an attack and budget, counts only."""
    for attack, limit in ATTACKS:
        session = open_session([path], EvalSpec(data_dir=data_dir, attacks=(attack,), limit=limit))
        for result in evaluate(session):
            origin = provenance(seed=session.spec.seed, device=session.device, data_fingerprint=None)
            row = {key: value for key, value in result.record.as_dict().items() if key not in PER_SAMPLE_OR_COST}
            yield row | {key: origin[key] for key in ORIGIN}


def entry(name: str, saved: Checkpoint, rows: tuple[dict[str, Any], ...]) -> zoo.Entry:
    """What the index says of a network whose file is in the zoo."""
    path = zoo.FOLDER / f"{name}.pt"
    return zoo.Entry(
        name=name,
        sha256=checkpoint.sha256(path),
        dataset=saved.spec["dataset"],
        model=saved.model["name"],
        epochs=saved.spec["epochs"],
        seed=saved.spec["seed"],
        method=saved.spec["method"],
        spec=saved.spec,
        rows=rows,
        provenance={key: saved.provenance.get(key) for key in (*ORIGIN, "versions", "resumed")},
    )


def main() -> None:
    """Make the named networks, and write the index after each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that are trained, if left out")
    parser.add_argument("--results", type=Path, default=Path("results/reproduction"))
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    zoo.FOLDER.mkdir(parents=True, exist_ok=True)
    made = zoo.entries() if zoo.INDEX.exists() else {}
    for name in arguments.names or NAMES:
        source = arguments.results / "models" / f"{name}-seed0.pt"
        if not source.exists() or not (saved := checkpoint.load(source)).complete:
            print(f"{name}: not trained to the end", file=sys.stderr)
            continue
        slimmed, path = slim(saved), zoo.FOLDER / f"{name}.pt"
        checkpoint.save(path, slimmed)
        same = all(slimmed.state_dict[key].dtype == value.dtype for key, value in saved.state_dict.items())
        rows = studied(name, arguments.results, source) if same else tuple(measured(path, arguments.data_dir))
        made[name] = entry(name, saved, rows)
        ordered = [asdict(made[one]) for one in NAMES if one in made]
        zoo.INDEX.write_text(json.dumps({"schema": 1, "networks": ordered}, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
