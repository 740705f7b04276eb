"""What the numbers say of a claim: a rule each, over results; no opinion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from robustcli.reproduction.results import Measure, Results
from robustcli.reproduction.studies import FRACTIONS, MULTIPLES, SLOTS

Verdict = Literal["holds", "holds in part", "does not hold", "not measured"]

PAPER_CLEAN = {
    "mnist": {"vanilla": 99.47, "FGSM-trained": 99.31, "BatchOut": 99.12},
    "cifar10": {"vanilla": 80.22, "FGSM-trained": 80.01, "BatchOut": 80.79},
}
"""In per cent; the only numbers that the paper prints (its sections 6.2 and 6.3)."""

CLOSE = 0.15
"""Points below the paper's clean accuracy that still count as reaching it, on 10 000 images."""

LARGE = {"mnist": "0.3", "cifar10": "8/255"}
SHOWN = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


class NotMeasuredError(Exception):
    """A number that a claim needs is not there."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, the numbers behind it, and the attack that breaks what was claimed."""

    verdict: Verdict
    numbers: str
    breaks: str = "-"


class Study:
    """The parts that there are, by name."""

    def __init__(self, parts: Mapping[str, Results]) -> None:
        self.parts = dict(parts)

    def part(self, name: str) -> Results:
        """A part's results; NotMeasuredError where there are none."""
        if name not in self.parts:
            raise NotMeasuredError(name)
        return self.parts[name]

    def get(self, part: str, label: str, column: str) -> Measure:
        """One number; NotMeasuredError where it is not there."""
        found = self.part(part).measure(label, column)
        if found is None:
            raise NotMeasuredError(f"{part}: {label}, {column}")
        return found


def _graded(full: bool, part: bool) -> Verdict:
    return "holds" if full else "holds in part" if part else "does not hold"


def _above(a: Measure, b: Measure) -> bool:
    """Whether the intervals are disjoint, `a` the higher one."""
    return a.low > b.high


def _named(pairs: Sequence[tuple[str, Measure]]) -> str:
    return ", ".join(f"{name} {measure.text}" for name, measure in pairs)


def clean_accuracies(dataset: str) -> Callable[[Study], Judgement]:
    """Each network reaches the paper's clean accuracy: to 0.15 points on 10 000 images, else within its interval."""

    def judge(study: Study) -> Judgement:
        found = [(label, study.get(dataset, label, "clean"), paper) for label, paper in PAPER_CLEAN[dataset].items()]
        reached = [
            measure.mean >= paper - CLOSE if measure.n >= 10_000 else measure.high >= paper
            for _, measure, paper in found
        ]
        numbers = ", ".join(f"{label} {measure.text} (paper {paper})" for label, measure, paper in found)
        return Judgement(_graded(all(reached), any(reached)), numbers)

    return judge


def falls(dataset: str) -> Callable[[Study], Judgement]:
    """The baseline keeps less than half of its clean accuracy under FGSM at the large budget."""

    def judge(study: Study) -> Judgement:
        clean, attacked = (study.get(dataset, "vanilla", column) for column in ("clean", f"FGSM {LARGE[dataset]}"))
        pgd = study.get(dataset, "vanilla", f"PGD-40 {LARGE[dataset]}")
        return Judgement(
            _graded(attacked.high < clean.mean / 2, attacked.high < clean.low),
            f"FGSM {LARGE[dataset]}: {attacked.text} of {clean.short}",
            f"PGD-40: {pgd.text}",
        )

    return judge


def withstands(dataset: str, label: str, attack: str) -> Callable[[Study], Judgement]:
    """A network withstands an attack: well above vanilla, and at least half of its clean accuracy is left.

    `attack` is `FGSM`, judged at the large budget, or `DeepFool`, judged in the paper's form: above vanilla after some
    iteration, half left after the fifth.
    """
    columns = [f"FGSM {LARGE[dataset]}"] if attack == "FGSM" else [f"DeepFool none {i}" for i in range(1, 6)]

    def judge(study: Study) -> Judgement:
        clean = study.get(dataset, label, "clean")
        own = [study.get(dataset, label, column) for column in columns]
        vanilla = [study.get(dataset, "vanilla", column) for column in columns]
        better = any(_above(a, b) for a, b in zip(own, vanilla, strict=True))
        if attack == "FGSM":
            numbers = f"{columns[0]}: {label} {own[0].text}, vanilla {vanilla[0].text}"
            breaks = f"PGD-40 {LARGE[dataset]}: {study.get(dataset, label, f'PGD-40 {LARGE[dataset]}').text}"
        else:
            each = [" ".join(measure.short for measure in measures) for measures in (own, vanilla)]
            numbers = f"DeepFool without a box, iterations 1 to 5: {label} {each[0]}, vanilla {each[1]}"
            boxed = study.get(dataset, label, "DeepFool project 5")
            found = [distances(study, dataset, name) for name in (label, "vanilla")]
            breaks = f"inside the box after 5: {boxed.text}; median L2 {found[0]}, vanilla {found[1]}"
        return Judgement(_graded(better and own[-1].mean >= clean.mean / 2, better), numbers, breaks)

    return judge


def distances(study: Study, part: str, label: str) -> str:
    """The median L2 distances of a label's seeds, as text."""
    found = study.part(part).median_distance(label)
    if not found:
        raise NotMeasuredError(f"{part}: {label}, median L2")
    return " / ".join("inf" if value is None else f"{value:.2f}" for value in found)


def small_drop(study: Study) -> Judgement:
    """BatchOut's clean accuracy on MNIST is at most half a point below vanilla's."""
    vanilla, own = study.get("mnist", "vanilla", "clean"), study.get("mnist", "BatchOut", "clean")
    drop = vanilla.mean - own.mean
    return Judgement(_graded(drop <= 0.5, drop <= 1.0), f"{drop:.2f} points ({vanilla.text} and {own.text})")


def converges_alike(study: Study) -> Judgement:
    """With the same hyper-parameters, BatchOut's last training loss is at most 1.2 x vanilla's."""
    losses = {network["label"]: network["losses"] for network in study.part("fig4a").networks}
    if not {"vanilla", "BatchOut"} <= losses.keys():
        raise NotMeasuredError("fig4a")
    vanilla, own = losses["vanilla"][-1], losses["BatchOut"][-1]
    return Judgement(
        _graded(own <= 1.2 * vanilla, own <= 1.5 * vanilla),
        f"loss, epoch {len(losses['vanilla'])}: vanilla {vanilla:.3f}, BatchOut {own:.3f} ({own / vanilla:.2f} x)",
    )


def more_slots(study: Study) -> Judgement:
    """Under FGSM 0.3, all slots beat every other filling, and every pair beats both of its members."""
    filled = [slots.replace(",", "+") for slots in SLOTS]
    value = {label: study.get("fig4b", label, "FGSM 0.3") for label in ("none", *filled, "all")}
    singles, pairs = [name for name in value if name in ("c1", "c2", "f1")], [name for name in value if "+" in name]
    best = max(value, key=lambda name: value[name].mean)
    pair_wins = [value[pair].mean >= max(value[one].mean for one in pair.split("+")) for pair in pairs]
    numbers = _named([(name, value[name]) for name in (*singles, *pairs, "all")])
    pgd = study.get("fig4b", "all", "PGD-40 0.1")
    none = study.get("fig4b", "none", "PGD-40 0.1")
    return Judgement(
        _graded(best == "all" and all(pair_wins), best == "all" or all(pair_wins)),
        f"FGSM 0.3: {numbers}",
        f"PGD-40 0.1: all {pgd.text}, none {none.text}",
    )


def hidden_layer_alone(study: Study) -> Judgement:
    """f1 alone beats c1+c2 under FGSM 0.3."""
    f1, both = study.get("fig4b", "f1", "FGSM 0.3"), study.get("fig4b", "c1+c2", "FGSM 0.3")
    return Judgement(_graded(_above(f1, both), f1.mean > both.mean), _named([("f1", f1), ("c1+c2", both)]))


def larger_k(study: Study) -> Judgement:
    """From k = 0 to 1, accuracy under FGSM 0.4 rises beyond doubt and clean accuracy falls."""
    ends = ("k = 0", "k = 1")
    attacked = [study.get("fig5a", label, "FGSM 0.4") for label in ends]
    clean = [study.get("fig5a", label, "clean") for label in ends]
    pgd = [study.get("fig5a", label, "PGD-40 0.1") for label in ends]
    rises, lowers = _above(attacked[1], attacked[0]), clean[1].mean < clean[0].mean
    return Judgement(
        _graded(rises and lowers, rises or lowers),
        f"k = 0 to 1: FGSM 0.4 {attacked[0].text} to {attacked[1].text}, clean {clean[0].text} to {clean[1].text}",
        f"PGD-40 0.1: {pgd[0].text} to {pgd[1].text}",
    )


def half_is_best(study: Study) -> Judgement:
    """No other k has both higher clean accuracy and higher accuracy under FGSM 0.4 than k = 0.5."""
    labels = [f"k = {fraction:g}" for fraction in FRACTIONS]
    found = {
        label: (study.get("fig5a", label, "clean").mean, study.get("fig5a", label, "FGSM 0.4").mean) for label in labels
    }
    half = found["k = 0.5"]
    beaten = [label for label, pair in found.items() if pair[0] > half[0] and pair[1] > half[1]]
    numbers = ", ".join(f"{label}: {clean:.2f} / {fgsm:.2f}" for label, (clean, fgsm) in found.items())
    return Judgement(_graded(not beaten, False), f"clean / FGSM 0.4: {numbers}")


def beats_noise(study: Study) -> Judgement:
    """At every multiple of eta, BatchOut's accuracy under FGSM 0.3 is above that of Gaussian noise beyond doubt."""
    won, told, strong = [], [], []
    for multiple in MULTIPLES:
        own, noise = (study.get("fig5b", f"{name}, eta x {multiple}", "FGSM 0.3") for name in ("BatchOut", "Gaussian"))
        pgd, pgd_noise = (
            study.get("fig5b", f"{name}, eta x {multiple}", "PGD-40 0.1") for name in ("BatchOut", "Gaussian")
        )
        won.append(_above(own, noise))
        told.append(f"eta x {multiple}: {own.text} and {noise.text}")
        strong.append(f"x {multiple}: {pgd.short} and {pgd_noise.short}")
    return Judgement(_graded(all(won), any(won)), f"FGSM 0.3: {'; '.join(told)}", f"PGD-40 0.1: {'; '.join(strong)}")


def needs_stop(study: Study) -> Judgement:
    """Without the stop-gradient, accuracy under FGSM 0.3 is lower for every seed."""
    stop, free = (study.get("stopgrad", label, "FGSM 0.3") for label in ("with the stop-gradient", "without it"))
    if len(stop.counts) != len(free.counts):
        raise NotMeasuredError("stopgrad: a seed is missing")
    every, mean = min(stop.percents) > max(free.percents), stop.mean > free.mean
    pgd = [study.get("stopgrad", label, "PGD-40 0.1") for label in ("with the stop-gradient", "without it")]
    return Judgement(
        _graded(every, mean),
        f"FGSM 0.3, seeds {len(stop.counts)}: with {stop.text}, without {free.text}",
        f"PGD-40 0.1: with {pgd[0].text}, without {pgd[1].text}",
    )


def not_masked(study: Study) -> Judgement:
    """PGD-40 takes at most 10 points more from BatchOut than FGSM at the same budget; FGSM must leave more than 10."""
    fgsm, pgd = study.get("mnist", "BatchOut", "FGSM 0.3"), study.get("mnist", "BatchOut", "PGD-40 0.3")
    numbers = f"MNIST at 0.3: FGSM {fgsm.text}, PGD-40 {pgd.text}"
    if fgsm.mean <= 10:
        return Judgement("not measured", f"{numbers}: FGSM leaves too little to tell")
    return Judgement(_graded(fgsm.mean - pgd.mean <= 10, False), numbers, "PGD-40 at the same budget")


def is_cheap(study: Study) -> Judgement:
    """An epoch with BatchOut takes at most 1.2 x vanilla's, and less than FGSM-adversarial training's."""
    seconds = {
        label: [network["seconds_an_epoch"] for network in study.part("mnist").networks if network["label"] == label]
        for label in ("vanilla", "BatchOut", "FGSM-trained")
    }
    if not all(seconds.values()):
        raise NotMeasuredError("mnist")
    vanilla, own, fgsm = (min(values) for values in seconds.values())
    return Judgement(
        _graded(own <= 1.2 * vanilla and own < fgsm, own < fgsm),
        f"seconds an epoch: vanilla {vanilla:.1f}, BatchOut {own:.1f}, FGSM-trained {fgsm:.1f} (fastest seed)",
    )
