"""How the claims on the headline networks are judged: a rule each, over numbers; no opinion.

The first line of each docstring is printed on the page.
"""

from __future__ import annotations

from robustcli.reproduction.findings import LARGE, Findings, Judgement, NotMeasuredError, above, graded

PAPER_CLEAN = {
    "mnist": {"vanilla": 99.47, "FGSM-trained": 99.31, "BatchOut": 99.12},
    "cifar10": {"vanilla": 80.22, "FGSM-trained": 80.01, "BatchOut": 80.79},
}
"""In per cent, from its sections 6.2 and 6.3."""

CLOSE = 0.15
"""Points below the paper's clean accuracy that still count as reaching it, on 10 000 images."""

SMALL = 0.5
"""Points of clean accuracy that count as a negligible drop."""

ITERATIONS = tuple(f"DeepFool none {i}" for i in range(1, 6))


def clean_accuracies(findings: Findings, dataset: str) -> Judgement:
    """Clean accuracies are within 0.15 points of the paper's or above; if n < 10 000, their intervals; in part: one."""
    found = [(label, findings.get(dataset, label, "clean"), paper) for label, paper in PAPER_CLEAN[dataset].items()]
    reached = [
        measure.mean >= paper - CLOSE if measure.n >= 10_000 else measure.high >= paper for _, measure, paper in found
    ]
    numbers = ", ".join(f"{label} {measure.text} (paper {paper})" for label, measure, paper in found)
    return Judgement(graded(all(reached), any(reached)), numbers)


def falls(findings: Findings, dataset: str) -> Judgement:
    """Vanilla keeps less than half of its accuracy under FGSM at the large budget and under DeepFool; in part: one."""
    clean, *attacked = (findings.get(dataset, "vanilla", name) for name in ("clean", _fgsm(dataset), ITERATIONS[-1]))
    broken = [measure.high < clean.mean / 2 for measure in attacked]
    return Judgement(
        graded(all(broken), any(broken)),
        f"clean {clean.text}, {_fgsm(dataset)} {attacked[0].text}, DeepFool without a box {attacked[1].text}",
        _under_pgd(findings, dataset, "vanilla"),
    )


def withstands_fgsm(findings: Findings, dataset: str, label: str) -> Judgement:
    """Above vanilla under FGSM at the large budget, and at least half of the clean accuracy is left; in part: above."""
    clean, own = (findings.get(dataset, label, column) for column in ("clean", _fgsm(dataset)))
    vanilla = findings.get(dataset, "vanilla", _fgsm(dataset))
    better = above(own, vanilla)
    return Judgement(
        graded(better and own.mean >= clean.mean / 2, better),
        f"{_fgsm(dataset)}: {label} {own.text}, vanilla {vanilla.text}",
        _under_pgd(findings, dataset, label),
    )


def withstands_deepfool(findings: Findings, dataset: str, label: str) -> Judgement:
    """Better than vanilla under DeepFool, half of the clean accuracy left after 5 iterations; in part: better."""
    clean, last = (findings.get(dataset, label, column) for column in ("clean", ITERATIONS[-1]))
    judged = beats_vanilla_on_deepfool(findings, dataset, label)
    better = judged.verdict == "holds"
    return Judgement(graded(better and last.mean >= clean.mean / 2, better), judged.numbers, judged.breaks)


def beats_vanilla_on_deepfool(findings: Findings, dataset: str, label: str) -> Judgement:
    """Above vanilla after some iteration of DeepFool in the paper's form, and below it after none."""
    own = [findings.get(dataset, label, column) for column in ITERATIONS]
    vanilla = [findings.get(dataset, "vanilla", column) for column in ITERATIONS]
    pairs = list(zip(own, vanilla, strict=True))
    better = any(above(a, b) for a, b in pairs) and not any(above(b, a) for a, b in pairs)
    each = [" ".join(measure.short for measure in measures) for measures in (own, vanilla)]
    boxed = findings.get(dataset, label, "DeepFool project 5")
    medians = [findings.distances(dataset, name) for name in (label, "vanilla")]
    return Judgement(
        graded(better, False),
        f"DeepFool without a box, iterations 1 to 5: {label} {each[0]}; vanilla {each[1]}",
        f"inside the box after 5: {boxed.text}; median L2 {medians[0]}, vanilla {medians[1]}",
    )


def suffers_from_deepfool(findings: Findings, dataset: str, label: str) -> Judgement:
    """Less than half of the clean accuracy is left after 5 iterations of DeepFool in the paper's form."""
    clean, last = (findings.get(dataset, label, column) for column in ("clean", ITERATIONS[-1]))
    return Judgement(graded(last.high < clean.mean / 2, False), f"clean {clean.text}, after 5 iterations {last.text}")


def small_drop(findings: Findings, dataset: str) -> Judgement:
    """BatchOut's clean accuracy is at most half a point below vanilla's; in part: the intervals overlap."""
    vanilla, own = (findings.get(dataset, label, "clean") for label in ("vanilla", "BatchOut"))
    drop = vanilla.mean - own.mean
    verdict = graded(drop <= SMALL, not above(vanilla, own))
    return Judgement(verdict, f"vanilla {vanilla.text}, BatchOut {own.text}: a drop of {drop:.2f} points")


def not_masked(findings: Findings) -> Judgement:
    """FGSM's images of vanilla break BatchOut no more often than its own: else its gradients hide what is there."""
    own = findings.get("mnist", "BatchOut", "FGSM 0.3")
    others = findings.get("mnist", "BatchOut", "FGSM 0.3 from vanilla")
    numbers = f"BatchOut at eps 0.3: its own FGSM images leave {own.text}, vanilla's leave {others.text}"
    return Judgement(graded(not above(own, others), False), numbers, _under_pgd(findings, "mnist", "BatchOut"))


def noise_does_not_help(findings: Findings) -> Judgement:
    """Gaussian noise in the features leaves no more accuracy under FGSM 0.3 than vanilla has."""
    noise, vanilla = (findings.get("mnist", label, "FGSM 0.3") for label in ("Gaussian", "vanilla"))
    return Judgement(
        graded(not above(noise, vanilla), False),
        f"FGSM 0.3: Gaussian {noise.text}, vanilla {vanilla.text}",
        _under_pgd(findings, "mnist", "Gaussian"),
    )


def is_cheap(findings: Findings) -> Judgement:
    """An epoch with BatchOut takes at most 1.2 x vanilla's and less than FGSM training's, timed in turns on MNIST."""
    if not findings.speed:
        raise NotMeasuredError("training-speed.json")
    own, fgsm = (float(findings.speed["ratios"][method]) for method in ("batchout", "fgsm"))
    numbers = f"seconds an epoch, as a multiple of vanilla's: BatchOut {own:.2f}, FGSM-trained {fgsm:.2f}"
    return Judgement(graded(own <= 1.2 and own < fgsm, own < fgsm), numbers)


def _fgsm(dataset: str) -> str:
    return f"FGSM {LARGE[dataset]}"


def _under_pgd(findings: Findings, dataset: str, label: str) -> str:
    column = f"PGD-40 {LARGE[dataset]}"
    return f"{column}: {findings.get(dataset, label, column).text}"
