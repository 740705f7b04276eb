"""The page on the reproduction: claim by claim, then part by part, every number taken from the parts' JSON files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from robustcli.reporting.files import write_whole
from robustcli.reporting.tables import Sheet, to_text
from robustcli.reproduction import PARTS
from robustcli.reproduction.claims import CLAIMS, judged
from robustcli.reproduction.results import Results, read
from robustcli.reproduction.rules import NotMeasuredError, Study, distances, not_masked
from robustcli.reproduction.tables import sheet

PAPER = (
    "Subramanya, Mopuri and Babu, *BatchOut: Batch-level feature augmentation to improve robustness to adversarial "
    "examples*, ICVGIP 2018"
)

HOW_TO_READ = """\
Numbers are accuracies in per cent, with their 95 % Wilson interval or, over several seeds, as mean ± standard
deviation. Each verdict follows from a rule over them (`robustcli/reproduction/claims.py`): *holds in part* is better
than the baseline, but short of what the words promise. The last column is what an attack that the paper did not run
leaves."""

LEFT_OPEN = """\
## What the paper leaves open, and what we chose

- **Training.** Optimiser, rate, epochs, batch size and augmentation are not given. One recipe a data set serves
  vanilla, BatchOut, Gaussian and FGSM training alike; `benchmarks/recipes.py` chose it on a tenth of the training
  images.
- **FGSM training's eps** is not given: 0.3 on MNIST, 8/255 on CIFAR-10. Its images are made in eval mode: with dropout
  on, the gradient's sign agrees on three quarters of the pixels only.
- **DeepFool and the pixel box.** The original leaves [0, 1], and its images are no images any more: clipped, they are
  classified right again. Its form (`box: none`) stands beside ours (`box: project`), which takes the smallest step
  inside the box.
- **Equation 5** divides by the noise's norm twice; we match BatchOut's magnitude, as the text asks (`scale: printed` is
  the formula as printed).
- **Table 2** prints "BatchOut (0.5, 0.1)" in some rows and U[0, 0.1] beside all of them; we take U[0, N] as its rows
  read.
- **Who is drawn.** Partners are drawn uniformly with replacement; a sample may draw itself or its own class.
- **Figures 2 to 5 carry no numbers**, so their shapes are compared, not their values.
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
    write_whole(path, report(found, link).encode(), "--report")
    return path


def report(found: dict[str, Results], pictures: str) -> str:
    """The page's text; `pictures` is where the pictures lie, seen from it."""
    study = Study(found)
    quick = any(results.quick for results in found.values())
    blocks = [
        "# The BatchOut paper, reproduced",
        f"{PAPER}. Written by `robustcli reproduce`; the numbers come from the JSON files in `{pictures}`.",
        *(["**A quick look: few images and few epochs. These numbers show that the command works, no more.**"] * quick),
        HOW_TO_READ,
        "## Claim by claim",
        _claims(study),
        *(["## Gradient masking and label leaking", *words] if (words := plain_words(study)) else []),
        "## Part by part",
        *(_part(results, pictures) for results in found.values()),
        LEFT_OPEN.rstrip(),
    ]
    return "\n\n".join(blocks) + "\n"


def _claims(study: Study) -> str:
    cells = []
    for claim in CLAIMS:
        judgement = judged(claim, study)
        cells.append((claim.source, claim.words, f"**{judgement.verdict}**", judgement.numbers, judgement.breaks))
    headers = ("section", "the paper says", "verdict", "our number", "and under")
    text = to_text(Sheet("", headers, tuple(cells), left=5), "markdown")
    return text.removeprefix("****\n\n")


def plain_words(study: Study) -> list[str]:
    """Paragraphs on gradient masking and label leaking, with the numbers at hand; none where these are missing."""
    try:
        get = study.get
        bo_fgsm, bo_pgd, bo_small = (get("mnist", "BatchOut", c) for c in ("FGSM 0.3", "PGD-40 0.3", "PGD-40 0.1"))
        va_fgsm, va_small = (get("mnist", "vanilla", column) for column in ("FGSM 0.3", "PGD-40 0.1"))
        ft_small, ft_large, ft_pgd = (get("mnist", "FGSM-trained", c) for c in ("FGSM 0.1", "FGSM 0.3", "PGD-40 0.3"))
        bo_l2, va_l2, ft_l2 = (distances(study, "mnist", name) for name in ("BatchOut", "vanilla", "FGSM-trained"))
    except NotMeasuredError:
        return []
    if not_masked(study).verdict != "does not hold":  # such as a quick look's networks, which nothing holds
        return []
    leaks = ft_large.mean > ft_small.mean
    title = "leaks labels" if leaks else "overfits to one step"
    more = f", *more* than the {ft_small.text} at 0.1: it reads the label off the perturbation" if leaks else ""
    return [
        "**BatchOut masks gradients more than it removes adversarial images.** FGSM at eps 0.3 leaves "
        f"{bo_fgsm.text} of it and {va_fgsm.text} of vanilla; forty steps of PGD at the same budget leave "
        f"{bo_pgd.text}. What remains is a difference at small budgets: PGD-40 at 0.1 leaves {bo_small.text} against "
        f"vanilla's {va_small.text}, and the median L2 distance to an adversarial image is {bo_l2} against {va_l2} "
        "(a number a seed). That BatchOut is gone at test time does not help: one gradient step points in a worse "
        "direction on this network, and many steps do not.",
        f"**FGSM training {title}.** The FGSM-trained network has {ft_large.text} under FGSM at 0.3{more}. "
        f"PGD-40 at 0.3 leaves {ft_pgd.text}, and its median L2 distance, {ft_l2}, shows what DeepFool's accuracy "
        "hides.",
    ]


def _part(results: Results, pictures: str) -> str:
    table = to_text(sheet(results), "markdown")
    table = re.sub(r"\A\*\*.*?\*\*\n\n", "", table)
    image = f"![{results.title}]({pictures}/{results.part}.png)"
    return f"### {results.part}: {results.title}\n\n{results.source} of the paper.\n\n{table}\n\n{image}"
