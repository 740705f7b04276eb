"""The page on the reproduction: claim by claim, then part by part, every number taken from the parts' JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from robustcli.disk import write_whole
from robustcli.errors import ConfigError
from robustcli.report.table import Table, to_text
from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.claims import CLAIMS, judge_claim
from robustcli.studies.batchout.evidence import Evidence
from robustcli.studies.batchout.paper_tables import make_table
from robustcli.studies.batchout.part_results import PartResults, read
from robustcli.studies.batchout.summary import summarize

PAPER = (
    "Subramanya, Mopuri and Babu, *BatchOut: Batch-level feature augmentation to improve robustness to adversarial "
    "examples*, ICVGIP 2018"
)

HOW_TO_READ = """\
Numbers are accuracies in per cent, with their 95 % Wilson interval or, over several seeds, as mean ± standard
deviation. Each verdict follows from a rule, printed below the table. *Above* means that the 95 % intervals are
disjoint: Wilson's, and over seeds Student's where that is wider. *Beyond seeds* means farther apart than 95 % of the
pairs of networks that differ in their seed alone, judged by those of section 6.1. The *large budget* is Linf 0.3 on
MNIST and 8/255 on CIFAR-10. Where neither a claim nor its contrary is established, it *cannot be told*."""

LEFT_OPEN = """\
## What the paper leaves open, and what we chose

- **Training.** Optimiser, rate, schedule, epochs, batch size and augmentation are not given. One recipe a data set
  serves vanilla, BatchOut, Gaussian and FGSM training alike (see above); `benchmarks/recipes.py` compared a few on a
  tenth of the training images, on CIFAR-10 with vanilla in 6 epochs. How many epochs CIFAR-10 gets, and that FGSM
  training there gets fewer, is our choice: with 12 and with 40, BatchOut still rose on held-out images. Of each run,
  the epoch with the best accuracy on the 5 % of the training images that are set aside is kept; under attack for half
  of the score where a method trains against one.
- **FGSM training's eps** is not given: 0.3 on MNIST, 8/255 on CIFAR-10. Its images are made in eval mode, without
  dropout's noise, and clipped to [0, 1].
- **Budgets.** The paper's text names eps 0.3 and 0.4 on MNIST and none on CIFAR-10; claims on FGSM are judged at 0.3
  and 8/255.
- **DeepFool and the pixel box.** The original leaves [0, 1], so that its images are no images any more. Its form
  (`box: none`) stands beside ours (`box: project`), which takes the smallest step inside the box. Overshoot 0.02.
- **Equation 5** divides by the noise's norm twice; we scale the noise to eta times the activation's norm, as the text
  asks (`scale: printed` is the formula as printed). BatchOut's own step is eta times the distance to its partner.
- **Table 2** prints "BatchOut (0.5, 0.1)" in some rows beside U[0, N]; we draw from U[0, N], anew for each sample.
- **Who is drawn.** Partners are drawn uniformly with replacement; a sample may draw itself or its own class; k m is
  rounded down.
- **Convolutions** are padded to keep their size, and CIFAR-10's network normalises its input by the training images'
  mean and standard deviation; the paper says neither.
- **The figures' values** are not in the paper's text: their shapes are compared.
- **CIFAR-10's test set** here is the part that is at hand; the tables state n.
"""


def write_report(folder: Path, path: Path | None = None) -> Path | None:
    """Write the page on the parts in `folder`, to `path` or `folder/report.md`; None where there are no parts.

    Raises:
        ConfigError: a part's JSON is not one, or the page cannot be written.
    """
    found = {name: read(folder / f"{name}.json") for name in PARTS if (folder / f"{name}.json").exists()}
    if not found:
        return None
    path = path or folder / "report.md"
    link = quote(Path(os.path.relpath(folder.resolve(), path.resolve().parent)).as_posix())
    write_whole(path, report(found, link, read_speed(folder)).encode(), "--report")
    return path


def read_speed(folder: Path) -> Mapping[str, Any] | None:
    """What `benchmarks/training.py --json` wrote there, if it did.

    Raises:
        ConfigError: the file is not that.
    """
    path = folder / "training-speed.json"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all(float(content["ratios"][method]) > 0 for method in ("batchout", "fgsm")):
            raise ValueError("a ratio is not above 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--out {path}: is not what benchmarks/training.py --json writes: {error}") from None
    return content


def report(found: dict[str, PartResults], pictures: str, speed: Mapping[str, Any] | None = None) -> str:
    """The page's text.

    Args:
        found: the parts, by name.
        pictures: where the pictures lie, seen from the page.
        speed: what `benchmarks/training.py --json` wrote, if it did.
    """
    evidence = Evidence(found, speed or {})
    quick = any(results.quick for results in found.values())
    paragraphs = [] if quick else summarize(evidence)
    blocks = [
        "# The BatchOut paper, reproduced",
        f"{PAPER}. Written by `robustcli reproduce`; the numbers come from the JSON files in `{pictures}`.",
        *(["**A quick look: few images and few epochs. These numbers show that the command works, no more.**"] * quick),
        HOW_TO_READ,
        "## Claim by claim",
        _claims(evidence, quick),
        "How each is judged, by section:",
        _rules(),
        *(["## Gradient masking, label leaking, and what is left", *paragraphs] if paragraphs else []),
        *(["## The recipes", *recipes] if (recipes := _recipes(found)) else []),
        "## Part by part",
        *(_part(results, pictures) for results in found.values()),
        LEFT_OPEN.rstrip(),
    ]
    return "\n\n".join(blocks) + "\n"


def _claims(evidence: Evidence, quick: bool) -> str:
    cells = []
    for claim in CLAIMS:
        judgement = judge_claim(claim, evidence)
        verdict = "quick look" if quick and judgement.verdict != "not measured" else judgement.verdict
        cells.append((claim.source, claim.text, f"**{verdict}**", judgement.numbers, judgement.breaks))
    headers = ("section", "the paper says", "verdict", "our number", "what breaks it, or does not")
    return to_text(Table("", headers, tuple(cells), left=5), "markdown")


def _rules() -> str:
    """Each rule once, after the sections whose claims it judges."""
    found: dict[str, list[str]] = {}
    for claim in CLAIMS:
        found.setdefault(claim.rule, []).append(claim.source)
    return "\n".join(f"- {', '.join(dict.fromkeys(sources))}: {rule}" for rule, sources in found.items())


def _recipes(found: dict[str, PartResults]) -> list[str]:
    """What the headline networks of each data set were trained with, from their specs."""
    texts = []
    for name in ("mnist", "cifar10"):
        if name not in found or not found[name].networks:
            continue
        spec = found[name].networks[0]["spec"]
        kept = ("model", "optimizer", "lr", "schedule", "epochs", "batch_size", "augment", "weight_decay", "dtype")
        also = dict.fromkeys(filter(None, (_own(entry, spec) for entry in found[name].networks)))
        shown = ", ".join(f"{key} {spec[key]}" for key in kept)
        texts.append(f"**{name}**: {shown}." + (f" But {'; '.join(also)}." if also else ""))
    return texts


def _own(network: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What of a network's training is not the recipe's: `PGD-trained: 8 epochs, 7 steps an image`."""
    epochs, steps = network["epochs"], network["method"].get("steps")
    own = [f"{epochs} epochs"] * (epochs != spec["epochs"]) + [f"{steps} steps an image"] * (steps is not None)
    return f"{network['label']}: {', '.join(own)}" if own else ""


def _part(results: PartResults, pictures: str) -> str:
    table = to_text(replace(make_table(results), title=""), "markdown")
    image = f"![{results.title}]({pictures}/{results.part}.png)"
    return f"### {results.part}: {results.title}\n\n{results.source} of the paper.\n\n{table}\n\n{image}"
