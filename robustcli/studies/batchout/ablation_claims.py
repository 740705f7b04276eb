"""How the claims on the paper's ablations are judged: convergence, slots, k, noise and the stop-gradient.

These networks have one seed each but those of section 6.1; "beyond seeds" is `Evidence.beyond_seeds`.
"""

from __future__ import annotations

from itertools import pairwise

from robustcli.studies.batchout.evidence import (
    Evidence,
    Judgement,
    NotMeasuredError,
    above,
    contrast,
    grade,
    list_accuracies,
)
from robustcli.studies.batchout.experiments import FRACTIONS, MULTIPLES, SLOTS

STOP, FREE = "with the stop-gradient", "without it"


def converges_alike(evidence: Evidence) -> Judgement:
    """BatchOut is within a point of the lower last validation accuracy of both in at most 1.2 x vanilla's epochs."""
    found = {network["label"]: network for network in evidence.part("fig4a").networks}
    if not {"vanilla", "BatchOut"} <= found.keys():
        raise NotMeasuredError("fig4a")
    curves = [found[label].get("val_accuracies", ()) for label in ("vanilla", "BatchOut")]
    if not all(curves):  # trained without held-out images
        raise NotMeasuredError("fig4a: accuracy on held-out images")
    goal = min(curve[-1] for curve in curves) - 0.01
    epochs = [next(i + 1 for i, value in enumerate(curve) if value >= goal) for curve in curves]
    losses = [found[label]["losses"][-1] for label in ("vanilla", "BatchOut")]
    return Judgement(
        grade(epochs[1] <= 1.2 * epochs[0], epochs[1] <= 1.5 * epochs[0]),
        f"epochs to {100 * goal:.1f} % on held-out images: vanilla {epochs[0]}, BatchOut {epochs[1]}; "
        f"last training loss {losses[0]:.3f} and {losses[1]:.3f} (of augmented batches)",
    )


def more_slots(evidence: Evidence) -> Judgement:
    """All slots beat none and each one beyond seeds (FGSM 0.3), no pair exceeds all or lags a member; in part: none."""
    names = [slots.replace(",", "+") for slots in SLOTS]
    value = {name: evidence.get("fig4b", name, "FGSM 0.3") for name in (*names, "all")}
    singles, pairs = [name for name in names if "+" not in name], [name for name in names if "+" in name]
    none = evidence.get("fig4b", "none", "FGSM 0.3")
    rivals = [none, *(value[name] for name in singles)]
    best = all(evidence.beyond_seeds(value["all"], rival, "FGSM 0.3") for rival in rivals)
    above_members = all(value[pair].mean >= value[one].mean for pair in pairs for one in pair.split("+"))
    most = all(value["all"].mean >= value[pair].mean for pair in pairs)
    beaten = any(evidence.beyond_seeds(rival, value["all"], "FGSM 0.3") for rival in (none, *value.values()))
    some, whole = evidence.beyond_seeds(value["all"], none, "FGSM 0.3"), best and most and above_members
    pgd = [(name, evidence.get("fig4b", name, "PGD-40 0.1")) for name in ("none", "all")]
    return Judgement(
        "holds in part" if some and not whole and not beaten else contrast(whole, beaten),
        f"FGSM 0.3: {list_accuracies([('none', none), *value.items()])}",
        f"PGD-40 0.1: {list_accuracies(pgd)}",
    )


def hidden_layer_alone(evidence: Evidence) -> Judgement:
    """f1 alone is above c1+c2 under FGSM 0.3, beyond seeds; does not hold: below, beyond seeds."""
    f1, both = evidence.get("fig4b", "f1", "FGSM 0.3"), evidence.get("fig4b", "c1+c2", "FGSM 0.3")
    verdict = contrast(evidence.beyond_seeds(f1, both, "FGSM 0.3"), evidence.beyond_seeds(both, f1, "FGSM 0.3"))
    return Judgement(verdict, f"FGSM 0.3: {list_accuracies([('f1', f1), ('c1+c2', both)])}")


def larger_k(evidence: Evidence) -> Judgement:
    """From k = 0 to 1 FGSM 0.4 accuracy rises beyond seeds, steadily, and clean accuracy falls; in part: one of it."""
    labels = [f"k = {fraction:g}" for fraction in FRACTIONS]
    attacked = [evidence.get("fig5a", label, "FGSM 0.4") for label in labels]
    clean = [evidence.get("fig5a", label, "clean") for label in labels]
    pgd = [evidence.get("fig5a", label, "PGD-40 0.1") for label in labels]
    steady = not any(above(a, b) for a, b in pairwise(attacked))
    rises = evidence.beyond_seeds(attacked[-1], attacked[0], "FGSM 0.4") and steady
    lowers = above(clean[0], clean[-1])
    contrary = above(clean[-1], clean[0]) or evidence.beyond_seeds(attacked[0], attacked[-1], "FGSM 0.4")
    return Judgement(
        "holds in part" if rises != lowers and not contrary else contrast(rises and lowers, contrary),
        f"k = {', '.join(f'{fraction:g}' for fraction in FRACTIONS)}: FGSM 0.4 "
        f"{' '.join(accuracy.short for accuracy in attacked)}; clean {' '.join(accuracy.short for accuracy in clean)}",
        f"PGD-40 0.1: {' '.join(accuracy.short for accuracy in pgd)}",
    )


def peaks_at_half(evidence: Evidence) -> Judgement:
    """Clean accuracy at k = 0.5 is above that of any other k; does not hold: below that of another."""
    labels = [f"k = {fraction:g}" for fraction in FRACTIONS]
    half = evidence.get("fig5a", "k = 0.5", "clean")
    others = [evidence.get("fig5a", label, "clean") for label in labels if label != "k = 0.5"]
    verdict = contrast(all(above(half, other) for other in others), any(above(other, half) for other in others))
    clean, attacked = (_highest(evidence, labels, column) for column in ("clean", "FGSM 0.4"))
    return Judgement(verdict, f"highest clean accuracy at {clean}, under FGSM 0.4 at {attacked}; k = 0.5 {half.text}")


def _highest(evidence: Evidence, labels: list[str], column: str) -> str:
    return max(labels, key=lambda label: evidence.get("fig5a", label, column).mean)


def beats_noise(evidence: Evidence) -> Judgement:
    """With the paper's eta, BatchOut is above Gaussian noise under FGSM 0.3, beyond seeds; does not hold: below."""
    shown, strong, first = [], [], None
    for multiple in MULTIPLES:
        labels = [f"{name}, eta x {multiple}" for name in ("BatchOut", "Gaussian")]
        own, noise = (evidence.get("fig5b", label, "FGSM 0.3") for label in labels)
        pgd = [evidence.get("fig5b", label, "PGD-40 0.1") for label in labels]
        first = first or (own, noise)
        shown.append(f"eta x {multiple}: {own.text} and {noise.text}")
        strong.append(f"x {multiple}: {pgd[0].short} and {pgd[1].short}")
    assert first is not None
    verdict = contrast(evidence.beyond_seeds(*first, "FGSM 0.3"), evidence.beyond_seeds(first[1], first[0], "FGSM 0.3"))
    return Judgement(verdict, f"FGSM 0.3: {'; '.join(shown)}", f"PGD-40 0.1: {'; '.join(strong)}")


def needs_stop(evidence: Evidence) -> Judgement:
    """Under FGSM 0.3 each of 3 or more seeds with it is above each without it; does not hold: each is below."""
    stop, free = (evidence.get("stopgrad", label, "FGSM 0.3") for label in (STOP, FREE))
    if len(stop.counts) != len(free.counts):
        raise NotMeasuredError("stopgrad")
    enough = len(stop.counts) >= 3
    every, none = min(stop.percents) > max(free.percents), max(stop.percents) < min(free.percents)
    pgd = [(name, evidence.get("stopgrad", label, "PGD-40 0.1")) for name, label in (("with", STOP), ("without", FREE))]
    return Judgement(
        contrast(enough and every, enough and none),
        f"FGSM 0.3, seeds {len(stop.counts)}: {list_accuracies([('with', stop), ('without', free)])}",
        f"PGD-40 0.1: {list_accuracies(pgd)}",
    )
