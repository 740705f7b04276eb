"""How the claims on the headline networks are judged: a rule each, over numbers; no opinion.

The first line of each docstring is printed on the page.
"""

from __future__ import annotations

from contextlib import suppress

from robustcli.studies.batchout.evidence import (
    LARGE,
    Evidence,
    Judgement,
    NotMeasuredError,
    Verdict,
    above,
    contrast,
    grade,
)

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


def clean_accuracies(evidence: Evidence, dataset: str) -> Judgement:
    """Clean accuracies are within 0.15 points of the paper's or above; if n < 10 000, their intervals; in part: one."""
    found = [(label, evidence.get(dataset, label, "clean"), paper) for label, paper in PAPER_CLEAN[dataset].items()]
    reached = [
        accuracy.mean >= paper - CLOSE if accuracy.n >= 10_000 else accuracy.high >= paper
        for _, accuracy, paper in found
    ]
    numbers = ", ".join(f"{label} {accuracy.text} (paper {paper})" for label, accuracy, paper in found)
    return Judgement(grade(all(reached), any(reached)), numbers)


def falls(evidence: Evidence, dataset: str) -> Judgement:
    """Vanilla keeps less than half of its accuracy under FGSM at the large budget and under DeepFool; in part: one."""
    clean, *attacked = (evidence.get(dataset, "vanilla", name) for name in ("clean", _fgsm(dataset), ITERATIONS[-1]))
    broken = [accuracy.high < clean.mean / 2 for accuracy in attacked]
    return Judgement(
        grade(all(broken), any(broken)),
        f"clean {clean.text}, {_fgsm(dataset)} {attacked[0].text}, DeepFool without a box {attacked[1].text}",
    )


def withstands_fgsm(evidence: Evidence, dataset: str, label: str) -> Judgement:
    """Above vanilla under FGSM at the large budget, and at least half of the clean accuracy is left; in part: above."""
    clean, own = (evidence.get(dataset, label, column) for column in ("clean", _fgsm(dataset)))
    vanilla = evidence.get(dataset, "vanilla", _fgsm(dataset))
    better = above(own, vanilla)
    return Judgement(
        grade(better and own.mean >= clean.mean / 2, better),
        f"{_fgsm(dataset)}: {label} {own.text}, vanilla {vanilla.text}",
        _under_pgd(evidence, dataset, label),
    )


def withstands_deepfool(evidence: Evidence, dataset: str, label: str) -> Judgement:
    """Better than vanilla under DeepFool, half of the clean accuracy left after 5 iterations; in part: better."""
    clean, last = (evidence.get(dataset, label, column) for column in ("clean", ITERATIONS[-1]))
    judged = beats_vanilla_on_deepfool(evidence, dataset, label)
    better = judged.verdict == "holds"
    return Judgement(grade(better and last.mean >= clean.mean / 2, better), judged.numbers, judged.breaks)


def beats_vanilla_on_deepfool(evidence: Evidence, dataset: str, label: str) -> Judgement:
    """Above vanilla after some iteration of DeepFool in the paper's form, and below it after none."""
    own = [evidence.get(dataset, label, column) for column in ITERATIONS]
    vanilla = [evidence.get(dataset, "vanilla", column) for column in ITERATIONS]
    pairs = list(zip(own, vanilla, strict=True))
    better = any(above(a, b) for a, b in pairs) and not any(above(b, a) for a, b in pairs)
    each = [" ".join(accuracy.short for accuracy in accuracies) for accuracies in (own, vanilla)]
    boxed = evidence.get(dataset, label, "DeepFool project 5")
    medians = [evidence.distances(dataset, name) for name in (label, "vanilla")]
    side = _side(evidence.medians(dataset, label), evidence.medians(dataset, "vanilla"))
    return Judgement(
        grade(better, False),
        f"DeepFool without a box, iterations 1 to 5: {label} {each[0]}; vanilla {each[1]}",
        f"inside the box after 5: {boxed.text}; median L2 {medians[0]}, {side} vanilla's {medians[1]}",
    )


def _side(own: list[float], vanilla: list[float]) -> str:
    """`beyond`, `short of` or `among`: where the medians of some seeds lie, seen from another's."""
    return "beyond" if min(own) > max(vanilla) else "short of" if max(own) < min(vanilla) else "among"


def handles_many_attacks(evidence: Evidence) -> Judgement:
    """Above vanilla, half of its accuracy left, under FGSM 0.3, PGD-40 0.1 and 0.3, and in median L2; in part: one."""
    columns = ("FGSM 0.3", "PGD-40 0.1", "PGD-40 0.3")
    clean = evidence.get("mnist", "BatchOut", "clean")
    pairs = {c: (evidence.get("mnist", "BatchOut", c), evidence.get("mnist", "vanilla", c)) for c in columns}
    beats = {column: above(*pair) and pair[0].mean >= clean.mean / 2 for column, pair in pairs.items()}
    medians = [evidence.medians("mnist", label) for label in ("BatchOut", "vanilla")]
    farther = _side(*medians) == "beyond"
    shown = [evidence.distances("mnist", label) for label in ("BatchOut", "vanilla")]
    broken = [f"{column}: {own.text}" for column, (own, _) in pairs.items() if own.high < clean.mean / 2]
    return Judgement(
        grade(all(beats.values()) and farther, any(beats.values()) or farther),
        "; ".join(f"{column}: {own.text}, vanilla {vanilla.text}" for column, (own, vanilla) in pairs.items())
        + f"; median L2 {shown[0]}, vanilla {shown[1]}",
        f"breaks under {', '.join(broken)}" if broken else "nothing tried breaks it",
    )


def suffers_from_deepfool(evidence: Evidence, dataset: str, label: str) -> Judgement:
    """Less than half of the clean accuracy is left after 5 iterations of DeepFool in the paper's form."""
    clean, last = (evidence.get(dataset, label, column) for column in ("clean", ITERATIONS[-1]))
    return Judgement(grade(last.high < clean.mean / 2, False), f"clean {clean.text}, after 5 iterations {last.text}")


def small_drop(evidence: Evidence, dataset: str) -> Judgement:
    """BatchOut's clean accuracy is at most half a point below vanilla's (none if n < 10 000); not: below, disjoint."""
    vanilla, own = (evidence.get(dataset, label, "clean") for label in ("vanilla", "BatchOut"))
    drop = vanilla.mean - own.mean
    small = drop <= (SMALL if own.n >= 10_000 else 0)
    return Judgement(
        contrast(small, above(vanilla, own)),
        f"vanilla {vanilla.text}, BatchOut {own.text}: a drop of {drop:.2f} points",
    )


def not_masked(evidence: Evidence) -> Judgement:
    """Does not hold where images that BatchOut's gradients do not find break it: FGSM's of vanilla, or AutoAttack's."""
    found = [compare_transfer(evidence, "mnist", "BatchOut")]
    if "cifar10" in evidence.parts:
        with suppress(NotMeasuredError):
            found.append(compare_transfer(evidence, "cifar10", "BatchOut"))
    with suppress(NotMeasuredError):
        found += [compare_autoattack(evidence, dataset, "BatchOut") for dataset in evidence.parts if dataset in LARGE]
    verdict: Verdict = "does not hold" if any(yes for yes, _ in found) else "cannot be told"
    return Judgement(verdict, "; ".join(numbers for _, numbers in found), _under_pgd(evidence, "mnist", "BatchOut"))


def compare_autoattack(evidence: Evidence, dataset: str, label: str) -> tuple[bool, str]:
    """Whether AutoAttack leaves less than PGD does, and the numbers."""
    pgd, all_of_it = (evidence.get(dataset, label, f"{name} {LARGE[dataset]}") for name in ("PGD-40", "AutoAttack"))
    return above(pgd, all_of_it), f"PGD-40 {LARGE[dataset]} leaves {pgd.text}, AutoAttack {all_of_it.text}"


def compare_transfer(evidence: Evidence, dataset: str, label: str) -> tuple[bool, str]:
    """Whether a network's gradients hide images that break it, as FGSM's images of vanilla show, and the numbers."""
    own = evidence.get(dataset, label, _fgsm(dataset))
    others = evidence.get(dataset, label, f"{_fgsm(dataset)} from vanilla")
    return above(own, others), (
        f"{label} at eps {LARGE[dataset]}: its own FGSM images leave {own.text}, vanilla's leave {others.text}"
    )


def noise_does_not_help(evidence: Evidence) -> Judgement:
    """Gaussian noise leaves no more accuracy than vanilla under FGSM 0.3 and DeepFool; not: more, beyond seeds."""
    columns = ("FGSM 0.3", ITERATIONS[-1])
    pairs = [(c, evidence.get("mnist", "Gaussian", c), evidence.get("mnist", "vanilla", c)) for c in columns]
    beyond = any(evidence.beyond_seeds(noise, vanilla, "FGSM 0.3") for _, noise, vanilla in pairs)
    none = not any(above(noise, vanilla) for _, noise, vanilla in pairs)
    return Judgement(
        contrast(none, beyond),
        "; ".join(f"{column}: Gaussian {noise.text}, vanilla {vanilla.text}" for column, noise, vanilla in pairs),
        _under_pgd(evidence, "mnist", "Gaussian"),
    )


def is_cheap(evidence: Evidence) -> Judgement:
    """True by construction; an epoch takes at most 1.2 x vanilla's and less than FGSM training's, timed in turns."""
    if not evidence.speed:
        raise NotMeasuredError("training-speed.json")
    own, fgsm = (float(evidence.speed["ratios"][method]) for method in ("batchout", "fgsm"))
    numbers = f"seconds an epoch, as a multiple of vanilla's: BatchOut {own:.2f}, FGSM-trained {fgsm:.2f}"
    return Judgement(grade(own <= 1.2 and own < fgsm, own < fgsm), numbers)


def _fgsm(dataset: str) -> str:
    return f"FGSM {LARGE[dataset]}"


def _under_pgd(evidence: Evidence, dataset: str, label: str) -> str:
    """What PGD at the large budget leaves, and whether that breaks the network: less than half of its accuracy."""
    column = f"PGD-40 {LARGE[dataset]}"
    clean, left = (evidence.get(dataset, label, name) for name in ("clean", column))
    strongest = autoattack_text(evidence, dataset, label)
    return f"{'breaks under ' if left.high < clean.mean / 2 else ''}{column}: {left.text}{strongest}"


def autoattack_text(evidence: Evidence, dataset: str, label: str) -> str:
    """`; AutoAttack 0.3: 0.0 [0.0, 1.9]`, or nothing where it was not measured."""
    column = f"AutoAttack {LARGE[dataset]}"
    left = evidence.part(dataset).accuracy(label, column)
    return "" if left is None else f"; {column}: {left.text}"
