"""Puts the measured numbers where they are quoted: README.md and the headers in configs/, from results/reproduction/.

    python scripts/stamp_numbers.py            # rewrites what stands between markers; a test says that nothing changes
    python scripts/stamp_numbers.py --sample   # first runs the README's commands on the bundled digits: sample.json

Between `<!-- NAME -->` and `<!-- end -->` the README holds what this script writes; nothing else of it is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tabulate import tabulate

from robustcli.cli.main import run
from robustcli.device import pick_device
from robustcli.provenance import provenance
from robustcli.studies.batchout.evidence import Evidence
from robustcli.studies.batchout.paper_tables import short
from robustcli.studies.batchout.part_results import PartResults, read
from robustcli.studies.batchout.summary import summarize

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "reproduction"
COMMANDS = (
    "robustcli train --method vanilla --dataset mnist",
    "robustcli train --method batchout --dataset mnist",
    "robustcli attack --attack fgsm --eps 0.3 --gallery fgsm.png",
    "robustcli evaluate --attack deepfool --iters 5",
    "robustcli compare",
)
SHOWN = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def run_sample() -> None:
    """Run the README's commands in an empty folder, without data and network, and keep what they print."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), offline(folder):
        for command in COMMANDS:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                code = run(shlex.split(command)[1:])
            lines = [line.rstrip() for line in printed.getvalue().strip("\n").splitlines()]
            if code or "mnist-sample" not in printed.getvalue():
                raise SystemExit(f"{command}: exit {code}, and it should have run on mnist-sample")
            runs.append({"command": command, "stdout": lines})
    origin = provenance(seed=0, device=pick_device("auto"), data_fingerprint=None)
    kept = {key: origin[key] for key in ("commit", "seed", "device", "hardware", "threads", "versions")}
    text = json.dumps({"schema": 1, "part": "sample", "n": 1000, **kept, "runs": runs}, indent=1)
    (FOLDER / "sample.json").write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def offline(folder: str) -> Iterator[None]:
    """No data set is found, and none can be downloaded."""
    with (
        mock.patch.dict(os.environ, ROBUSTCLI_DATA=folder),
        mock.patch("robustcli.data.load.reachable", return_value=False),
    ):
        yield


def console() -> str:
    """The commands and what they print, as a console block."""
    runs = json.loads((FOLDER / "sample.json").read_text(encoding="utf-8"))["runs"]
    blocks = ["\n".join((f"$ {one['command']}", *one["stdout"])) for one in runs]
    return "```console\n" + "\n\n".join(blocks) + "\n```"


def accuracies(dataset: str) -> str:
    """The headline table of a data set, with where it comes from."""
    results = read(FOLDER / f"{dataset}.json")
    columns = _columns(results)
    lines = []
    for label in results.labels:
        found = results.accuracies(label)
        medians = results.median_distance(label)
        shown = " / ".join("inf" if value is None else f"{value:.2f}" for value in medians) or "-"
        seeds = len(found["clean"].counts)
        texts = [found[column].text if column in found else "-" for column in columns]
        lines.append((label, seeds, *texts, shown))
    table = tabulate(
        lines,
        ("network", "seeds", *columns, "median L2"),
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(columns) + 2)),
    )
    return f"{table}\n\n{_origin(results)}"


def words() -> str:
    """What the headline numbers say of BatchOut and of FGSM training, in plain words."""
    paragraphs = summarize(Evidence({part: read(FOLDER / f"{part}.json") for part in ("mnist", "cifar10")}))
    return "\n\n".join(textwrap.fill(paragraph, 120) for paragraph in paragraphs)


def _columns(results: PartResults) -> list[str]:
    """Those of the part that a table for readers has room for."""
    found = dict.fromkeys(column for label in results.labels for column in results.accuracies(label))
    return [column for column in found if not column.startswith("DeepFool") or column.endswith(" 5")]


def _origin(results: PartResults) -> str:
    """Samples, commits and hardware, and the command."""
    sizes = {row["attack"]["name"]: row["n"] for row in results.rows}
    clean = max(row["n"] for row in results.rows)
    said = ", ".join(f"{name} {n}" for name, n in sizes.items())
    commits = sorted({short(str(network["commit"])) for network in results.networks})
    hardware = sorted({f"{network['hardware']} ({network['device']})" for network in results.networks})
    missing = [
        f"Not trained to the end: {entry['label']}, {entry['epochs_done']} of {entry['epochs']} epochs."
        for entry in results.missing
    ]
    made = f"Trained at {', '.join(commits)} on {', '.join(hardware)}"
    command = f"`robustcli reproduce {results.part} --data-dir DIR`"
    return " ".join([f"Test images: clean {clean}, {said}.", f"{made}; {command}.", *missing])


def header(dataset: str, method: str) -> str:
    """The comment at the top of a config: what it gives, where that was measured, and the command."""
    results = read(FOLDER / f"{dataset}.json")
    network = next((one for one in results.networks if one["name"] == f"{dataset}-{method}-seed0"), None)
    if network is None:
        entry = next((one for one in results.missing if one["name"] == f"{dataset}-{method}-seed0"), None)
        if entry is None:
            raise SystemExit(f"configs/{dataset}-{method}.yaml: {dataset}.json has no such network")
        done = f"{entry['epochs_done']} of {entry['epochs']} epochs"
        return f"# {method} on {SHOWN[dataset]}, the paper's network. Not measured: {done} are trained so far."
    rows = [row for row in results.rows if row["model"] == network["name"] and "source" not in row["attack"]]
    clean = max(rows, key=lambda row: int(row["n"]))
    digits = 2 if clean["n"] >= 10_000 else 1
    said = [f"clean {100 * clean['clean_correct'] / clean['n']:.{digits}f} % (n = {clean['n']})"]
    for row in rows:
        name, eps = row["attack"]["name"], row["attack"].get("eps")
        if name in ("fgsm", "pgd"):
            shown = "FGSM" if name == "fgsm" else f"PGD-{row['attack']['steps']}"
            digits = 2 if row["n"] >= 10_000 else 1
            said.append(f"{shown} {eps} {100 * row['accuracy']:.{digits}f} % (n = {row['n']})")
    lines = [
        f"# {method} on {SHOWN[dataset]}, the paper's network. Measured by `robustcli reproduce {dataset}`:",
        *_wrapped(said),
        f"# Trained with seed 0, commit {short(str(network['commit']))}, "
        f"{network['device'].upper()} {network['hardware']}, "
        f"{network['threads']} thread{'s' if network['threads'] != 1 else ''}.",
        f"#   robustcli train --config configs/{dataset}-{method}.yaml --data-dir DIR",
        "#   robustcli evaluate --data-dir DIR --attack fgsm",
        "#   robustcli evaluate --data-dir DIR --attack pgd:steps=40 --limit 1000",
    ]
    return "\n".join(lines)


def _wrapped(parts: list[str]) -> list[str]:
    """The parts after each other, three a line."""
    groups = [parts[i : i + 3] for i in range(0, len(parts), 3)]
    ends = [","] * (len(groups) - 1) + ["."]
    return [f"# {', '.join(group)}{end}" for group, end in zip(groups, ends, strict=True)]


def stamped_readme(text: str) -> str:
    """The README with its marked blocks written anew."""
    blocks: dict[str, Callable[[], str]] = {
        "sample": console,
        "mnist": lambda: accuracies("mnist"),
        "cifar10": lambda: accuracies("cifar10"),
        "words": words,
    }
    for name, block in blocks.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not start or not end:
            raise SystemExit(f"README.md: has no block <!-- {name} --> with its <!-- end -->")
        text = f"{before}{start}{block()}\n<!-- end -->{after}"
    return text


def stamped_config(path: Path) -> str:
    """A config with its header written anew."""
    lines = path.read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if not line.startswith("#")]
    dataset, _, method = path.stem.partition("-")
    return "\n".join((header(dataset, method), *body)) + "\n"


def main() -> None:
    """Stamp README and configs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="run the README's commands first")
    if parser.parse_args().sample:
        run_sample()
    readme = ROOT / "README.md"
    readme.write_text(stamped_readme(readme.read_text(encoding="utf-8")), encoding="utf-8")
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        path.write_text(stamped_config(path), encoding="utf-8")


if __name__ == "__main__":
    main()
