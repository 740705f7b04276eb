"""Makes the zoo: the checkpoints that ship with the package, from what `robustcli reproduce` trained and measured.

    robustcli reproduce mnist --data-dir DIR
    python scripts/make_zoo.py results/reproduction/mnist.json --data-dir DIR

Of each part's JSON it takes the models that are named after their data set, method and `--seed`: `mnist-batchout-seed0`
becomes `zoo:mnist-batchout`; others, such as `mnist-batchout-eta2x-seed0`, are passed over. A shipped file has the
weights bit for bit but no optimiser state; the same input gives the same bytes. Rows are copied only where they were
measured on the very weights that ship. To them comes one that is measured here on the shipped file, FGSM on the first
1 000 test images, which takes a test seconds to find again.

`--half cifar10` rounds that data set's large tensors to float16. The part's rows are then those of other weights, and
are refused: the first run writes the rounded files and stops; measure them, and run it again with the result.

    export ROBUSTCLI_DATA=DIR
    cd results/reproduction
    python ../../scripts/make_zoo.py mnist.json cifar10.json --half cifar10
    robustcli evaluate ../../robustcli/assets/zoo/cifar10-*.pt --attack fgsm --attack pgd:steps=40 --json half.json
    python ../../scripts/make_zoo.py mnist.json cifar10.json --half cifar10 --measured half.json
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from robustcli import checkpoint, zoo
from robustcli.attacks import FGSM, describe
from robustcli.checkpoint import Checkpoint
from robustcli.config import EvalSpec, default_budgets, field_names
from robustcli.datasets import DATASETS
from robustcli.evaluation.evaluate import evaluate, open_session
from robustcli.provenance import provenance
from robustcli.zoo import Entry, Measurement

MAX_BYTES = 6_000_000
LARGE = 1000
"""Tensors of fewer values, such as biases and the input's normalisation, stay float32: they cost nothing."""
CHECKED = 1000
"""Test images of the row that is measured here."""
ORIGIN = ("seed", "commit", "hardware")

Json = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A model of a part: its name in the zoo, its checkpoint's name and SHA-256, and its rows."""

    name: str
    file_name: str
    sha256: str
    rows: tuple[Json, ...]


def sources(part: Path, seed: int) -> Iterator[Source]:
    """The models of a part's JSON that are to ship."""
    content = json.loads(part.read_text(encoding="utf-8"))
    if content["quick"]:
        raise SystemExit(f"{part}: is a quick look, whose models are not for shipping")
    for model in content["models"]:
        name = f"{model['dataset']}-{model['method']['name']}"
        if model["dataset"] in DATASETS and model["name"] == f"{name}-seed{seed}":
            rows = tuple(row for row in content["rows"] if row["model"] == model["name"])
            yield Source(name, model["name"], model["sha256"], rows)
        else:
            print(f"{part}: {model['name']} is passed over")


def evaluated(documents: Sequence[Path]) -> dict[str, tuple[Json, ...]]:
    """The rows of `robustcli evaluate --json`, each with where it was measured, by their checkpoint's SHA-256."""
    found: dict[str, tuple[Json, ...]] = {}
    for path in documents:
        content = json.loads(path.read_text(encoding="utf-8"))
        origin = {key: content["provenance"][key] for key in ORIGIN}
        for row in content["rows"]:
            found[row["checkpoint_sha256"]] = (*found.get(row["checkpoint_sha256"], ()), row | origin)
    return found


def for_shipping(saved: Checkpoint, half: bool) -> Checkpoint:
    """The checkpoint without what only training needs, its weights rounded where `half` says so."""
    weights = {key: rounded(value) for key, value in saved.state_dict.items()} if half else saved.state_dict
    origin = saved.provenance | {"command": portable(saved.provenance["command"])}
    if "resumed" in origin:
        origin["resumed"] = [again | {"command": portable(again["command"])} for again in origin["resumed"]]
    return replace(saved, state_dict=weights, train_ids=saved.train_ids.to(torch.int32), provenance=origin, resume=None)


def rounded(tensor: Tensor) -> Tensor:
    """A large float32 tensor as float16."""
    return tensor.half() if tensor.dtype == torch.float32 and tensor.numel() >= LARGE else tensor


def portable(command: str) -> str:
    """A command line without the folders of the machine that it ran on."""
    words = [word.rpartition("=") for word in shlex.split(command)]
    return shlex.join(
        f"{flag}{equals}{PurePath(value).name if PurePath(value).is_absolute() else value}"
        for flag, equals, value in words
    )


def same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state_dicts hold the same numbers, whatever the type they are stored in."""
    return a.keys() == b.keys() and all(torch.equal(a[key].double(), b[key].double()) for key in a)


def ship(source: Source, folder: Path, output: Path, half: bool, measured: Mapping[str, tuple[Json, ...]]) -> Json:
    """Write one checkpoint and give its entry, whose rows are empty where none was measured on these weights."""
    path, target = folder / f"{source.file_name}.pt", output / f"{source.name}.pt"
    saved, found = checkpoint.load(path), checkpoint.sha256(path)
    if found != source.sha256:
        raise SystemExit(f"{path}: has sha256 {found}; its part was measured on {source.sha256}")
    if not saved.complete:
        raise SystemExit(f"{path}: its training was interrupted")
    shipped = for_shipping(saved, half)
    checkpoint.save(target, shipped)
    size = target.stat().st_size
    if size >= MAX_BYTES:
        target.unlink()
        raise SystemExit(f"{target}: would have {size} bytes, not under {MAX_BYTES}; try --half")
    sha256 = checkpoint.sha256(target)
    rows = source.rows if same_weights(saved.state_dict, shipped.state_dict) else measured.get(sha256, ())
    return {
        "name": source.name,
        "spec": saved.spec,
        "n_train": saved.data["n_train"],
        "commit": saved.provenance["commit"],
        "hardware": saved.provenance["hardware"],
        "weights": "float16" if half else "float32",
        "sha256": sha256,
        "rows": list(rows),
    }


def check(entry: Json, output: Path, data_dir: Path | None) -> Json:
    """The entry with FGSM at the large budget on the first images among its rows; measured if it is not."""
    large = default_budgets(DATASETS[entry["spec"]["dataset"]].shape)[1]
    spec = EvalSpec(data_dir=data_dir, limit=CHECKED, attacks=("fgsm",), eps=(large,), device="cpu")
    session = open_session([output / f"{entry['name']}.pt"], spec)
    if any(row["attack"] == describe(FGSM(eps=large)) and row["n"] == CHECKED for row in entry["rows"]):
        return entry
    (result,) = evaluate(session)
    origin = provenance(seed=spec.seed, device=session.device, data_fingerprint=None)
    row = result.row.as_dict() | {key: origin[key] for key in ORIGIN}
    return entry | {"rows": [*entry["rows"], row]}


def write(entries: Sequence[Json], output: Path) -> None:
    """Write `zoo.json` and remove the files of an earlier zoo that it does not name."""
    keys = field_names(Measurement)
    rows = [[{key: row[key] for key in keys if key in row} for row in entry["rows"]] for entry in entries]
    models = [Entry(**(entry | {"rows": own})).as_dict() for entry, own in zip(entries, rows, strict=True)]
    text = json.dumps({"schema": zoo.SCHEMA, "models": models}, indent=1, allow_nan=False)
    (output / "zoo.json").write_text(text + "\n", encoding="utf-8")
    for path in output.glob("*.pt"):
        if path.stem not in {entry["name"] for entry in entries}:
            path.unlink()
            print(f"{path}: is removed")


def main() -> None:
    """Writes the zoo's files and prints each one's size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, nargs="+", help="a part's JSON, as `robustcli reproduce` writes it")
    parser.add_argument("--models", type=Path, help="the folder of their checkpoints; models/ beside the first part")
    parser.add_argument("--half", nargs="+", default=[], metavar="DATASET", help="data sets to ship in float16")
    parser.add_argument(
        "--measured", type=Path, nargs="+", default=[], help="JSON of `robustcli evaluate` on such files"
    )
    parser.add_argument("--data-dir", type=Path, help="where data sets lie; else as robustcli looks for them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=zoo.FOLDER)
    options = parser.parse_args()

    measured = evaluated(options.measured)
    folder = options.models or options.parts[0].parent / "models"
    chosen = [source for part in options.parts for source in sources(part, options.seed)]
    if not chosen:
        raise SystemExit(f"no model of seed {options.seed} in {' '.join(map(str, options.parts))}")
    if len({source.name for source in chosen}) < len(chosen):
        raise SystemExit("two of the parts have the same model; name one part a data set")
    entries = []
    for source in chosen:
        half = source.name.rpartition("-")[0] in options.half
        entries.append(ship(source, folder, options.output, half, measured))
        print(f"{options.output / source.name}.pt: {(options.output / f'{source.name}.pt').stat().st_size} bytes")
    unmeasured = [str(options.output / f"{entry['name']}.pt") for entry in entries if not entry["rows"]]
    if unmeasured:
        raise SystemExit(
            "zoo.json is not written: no row was measured on the weights in these files; measure them, and name the "
            f"JSON in --measured: robustcli evaluate {shlex.join(unmeasured)} --attack fgsm --attack pgd:steps=40 "
            "--json FILE"
        )
    write([check(entry, options.output, options.data_dir) for entry in entries], options.output)


if __name__ == "__main__":
    main()
