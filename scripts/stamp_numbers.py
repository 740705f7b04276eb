"""Puts the measured numbers where they are quoted: README.md, docs/, configs/, from results/reproduction/.

    python scripts/stamp_numbers.py               # rewrites what stands between markers, and the README's pictures
    python scripts/stamp_numbers.py --sample      # first runs the commands of docs/tour.md on the bundled digits
    python scripts/stamp_numbers.py --terminal DIR   # first runs the picture's command on the MNIST in DIR

Between `<!-- NAME -->` and `<!-- end -->` a page holds what this script writes; nothing else of it is touched. A test
says that nothing changes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text
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
PICTURES = ROOT / "docs" / "pictures"

IN_A_TERMINAL = "robustcli evaluate zoo:mnist-batchout --attack fgsm --attack pgd "
IN_A_TERMINAL += "--attack square:queries=500 --eps 0.3 --limit 1000"
WIDTH, HEIGHT = 92, 50
"""Of the terminal in the README's picture, in characters."""

FROM_WEAK_TO_STRONG = {
    "clean": "no attack",
    "FGSM 0.3": "FGSM",
    "FGSM 0.3 from vanilla": "FGSM images\nof vanilla",
    "PGD-40 0.3": "PGD-40",
    "AutoAttack 0.3": "AutoAttack",
}
LINES = {
    "vanilla": ("#777777", "o", ":", "FGSM 0.3"),
    "FGSM-trained": ("#e69f00", "s", "--", "FGSM 0.3 from vanilla"),
    "BatchOut": ("#d55e00", "D", "-", "FGSM 0.3"),
    "PGD-trained": ("#0072b2", "^", "-.", "AutoAttack 0.3"),
}
"""Of the README's figure: each network's colour (of Okabe and Ito's), marker and dashes, and where its name stands."""


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
    _keep("sample", {"n": 1000, "runs": runs})


def run_terminal(data_dir: Path) -> None:
    """Run the command of the README's picture in a terminal, on MNIST, and keep what it prints."""
    here, there = pty.openpty()
    size = {"COLUMNS": str(WIDTH), "LINES": str(HEIGHT), "TERM": "xterm-256color"}
    words = [sys.executable, "-m", *shlex.split(IN_A_TERMINAL), "--no-store", "--data-dir", str(data_dir.resolve())]
    printed = b""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | size | {"PYTHONPATH": str(ROOT)}
        streams: dict[str, Any] = {"stdout": there, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(words, cwd=folder, env=environment, **streams)
        os.close(there)
        with contextlib.suppress(OSError):  # which the end of a terminal is
            while part := os.read(here, 4096):
                printed += part
        os.close(here)
        if process.wait():
            raise SystemExit(f"{IN_A_TERMINAL}: exit {process.returncode}")
    lines = printed.decode().replace("\r\n", "\n").rstrip("\n").split("\n")
    _keep("terminal", {"n": 1000, "command": IN_A_TERMINAL, "stdout": lines})


def _keep(name: str, found: dict[str, Any]) -> None:
    """Write what a command printed, with where it comes from."""
    origin = provenance(seed=0, device=pick_device("auto"), data_fingerprint=None)
    kept = {key: origin[key] for key in ("commit", "seed", "device", "hardware", "threads", "versions")}
    text = json.dumps({"schema": 1, "part": name, **kept, **found}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


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


def terminal() -> str:
    """The terminal as SVG, with fonts that are there."""
    found = json.loads((FOLDER / "terminal.json").read_text(encoding="utf-8"))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {found['command']}", style="bold"))
    for line in found["stdout"]:
        console.print(Text.from_ansi(line))
    drawn = console.export_svg(title="robustcli", unique_id="robustcli")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def truth() -> str:
    """What each attack leaves of the headline networks at Linf 0.3, as SVG."""
    results = read(FOLDER / "mnist.json")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for label, (colour, marker, dashes, named) in LINES.items():
        found = [(x, results.accuracy(label, column)) for x, column in enumerate(FROM_WEAK_TO_STRONG)]
        there = [(x, accuracy) for x, accuracy in found if accuracy is not None]
        means = [accuracy.mean for _, accuracy in there]
        ends = [[one.mean - one.low for _, one in there], [one.high - one.mean for _, one in there]]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": dashes, "capsize": 3}
        axis.errorbar([x for x, _ in there], means, [[max(0.0, end) for end in side] for side in ends], **style)
        i = list(FROM_WEAK_TO_STRONG).index(named)
        height = next(accuracy.mean for x, accuracy in there if x == i)
        axis.annotate(label, (i, height), (8, 2), textcoords="offset points", color=colour, weight="bold")
    axis.set_xticks(range(len(FROM_WEAK_TO_STRONG)), list(FROM_WEAK_TO_STRONG.values()))
    axis.set_xlim(-0.2, len(FROM_WEAK_TO_STRONG) - 0.3)
    axis.set_ylim(-1, 102)
    axis.set_ylabel("MNIST, Linf 0.3: accuracy %")
    axis.grid(axis="y", color="#e3e6eb")
    axis.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustcli", "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


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


def words() -> list[str]:
    """What the headline numbers say of BatchOut and of FGSM training, a paragraph each."""
    paragraphs = summarize(Evidence({part: read(FOLDER / f"{part}.json") for part in ("mnist", "cifar10")}))
    return [textwrap.fill(paragraph, 120) for paragraph in paragraphs]


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


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"words": lambda: words()[0]},
    "docs/tour.md": {"sample": console},
    "docs/numbers.md": {
        "mnist": lambda: accuracies("mnist"),
        "cifar10": lambda: accuracies("cifar10"),
        "words": lambda: "\n\n".join(words()),
    },
}
"""What stands between markers, by page and name."""


def stamped(page: str, text: str) -> str:
    """A page with its marked blocks written anew."""
    for name, block in BLOCKS[page].items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not start or not end:
            raise SystemExit(f"{page}: has no block <!-- {name} --> with its <!-- end -->")
        text = f"{before}{start}{block()}\n<!-- end -->{after}"
    return text


def stamped_config(path: Path) -> str:
    """A config with its header written anew."""
    lines = path.read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if not line.startswith("#")]
    dataset, _, method = path.stem.partition("-")
    return "\n".join((header(dataset, method), *body)) + "\n"


def main() -> None:
    """Stamp pages, pictures and configs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="run the commands of docs/tour.md first")
    parser.add_argument("--terminal", type=Path, metavar="DIR", help="run the command of the picture first")
    options = parser.parse_args()
    if options.sample:
        run_sample()
    if options.terminal:
        run_terminal(options.terminal)
    for page in BLOCKS:
        path = ROOT / page
        path.write_text(stamped(page, path.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, drawn in (("terminal", terminal()), ("batchout", truth())):
        (PICTURES / f"{name}.svg").write_text(drawn, encoding="utf-8")
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        path.write_text(stamped_config(path), encoding="utf-8")


if __name__ == "__main__":
    main()
