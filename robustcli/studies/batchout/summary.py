"""What the headline numbers say, in plain words: gradient masking, what BatchOut gains, label leaking."""

from __future__ import annotations

from robustcli.studies.batchout.evidence import LARGE, Evidence, NotMeasuredError, above
from robustcli.studies.batchout.headline_claims import autoattack_text, compare_transfer

SHOWN = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
DEFENDED = ("BatchOut", "FGSM-trained")


def summarize(evidence: Evidence) -> list[str]:
    """Paragraphs on gradient masking, on what BatchOut gains, and on label leaking; each where it was measured."""
    made = [_masking(evidence, label) for label in DEFENDED]
    return [paragraph for paragraph in (*made, _gain(evidence), _leaking(evidence)) if paragraph]


def _masking(evidence: Evidence, label: str) -> str:
    """Whether vanilla's images or AutoAttack break a network that its own gradients do not, on each data set."""
    said, hides = [], False
    for dataset, shown in SHOWN.items():
        try:
            yes, numbers = compare_transfer(evidence, dataset, label)
            clean, pgd = (evidence.get(dataset, label, name) for name in ("clean", f"PGD-40 {LARGE[dataset]}"))
        except NotMeasuredError:
            continue
        strongest = evidence.part(dataset).accuracy(label, f"AutoAttack {LARGE[dataset]}")
        unseen = strongest is not None and above(pgd, strongest)
        hides = hides or yes or unseen
        sign = "there is more to find than its own gradient shows" if yes else "that shows no masking"
        left = f"PGD-40 leaves {pgd.text} of {clean.text}{autoattack_text(evidence, dataset, label)}"
        said.append(f"On {shown}, {numbers}: {sign}. {left}{': it finds what PGD does not' if unseen else ''}.")
    head = "masks its gradients" if hides else "was not seen to mask its gradients"
    return f"**{label} {head}.** {' '.join(said)}" if said else ""


def _gain(evidence: Evidence) -> str:
    """What BatchOut gains over vanilla on MNIST under attacks that it was not shown with."""
    try:
        pairs = {
            column: (evidence.get("mnist", "BatchOut", column), evidence.get("mnist", "vanilla", column))
            for column in ("PGD-40 0.1", "PGD-40 0.3")
        }
        medians = [evidence.distances("mnist", label) for label in ("BatchOut", "vanilla")]
    except NotMeasuredError:
        return ""
    told = [
        f"{column} leaves {own.text} of BatchOut and {other.text} of vanilla"
        f"{', more beyond chance' if above(own, other) else ', which cannot be told apart'}"
        for column, (own, other) in pairs.items()
    ]
    return (
        f"**What is left of BatchOut's gain on MNIST.** {'; '.join(told)}. DeepFool inside the box finds images at a "
        f"median L2 distance of {medians[0]} and {medians[1]} (a number a seed)."
    )


def _leaking(evidence: Evidence) -> str:
    """Whether the FGSM-trained network does better on attacked images than on clean ones (Kurakin et al. 2017)."""
    try:
        clean, small, large, pgd = (
            evidence.get("mnist", "FGSM-trained", column) for column in ("clean", "FGSM 0.1", "FGSM 0.3", "PGD-40 0.3")
        )
        medians = [evidence.distances("mnist", label) for label in ("FGSM-trained", "vanilla")]
    except NotMeasuredError:
        return ""
    leaks = above(large, clean)
    head = "leaks labels" if leaks else "holds off one step, not forty"
    reads = (
        "more than on clean images: it reads the label off the perturbation"
        if leaks
        else "no more than on clean images, so that no label leaking is seen"
    )
    return (
        f"**FGSM training {head}.** The FGSM-trained network has {large.text} under FGSM at 0.3, where it was trained, "
        f"and {small.text} at 0.1; {clean.text} on clean images: {reads}. PGD-40 at 0.3 leaves {pgd.text}; DeepFool "
        f"inside the box finds images at a median L2 distance of {medians[0]}, against vanilla's {medians[1]}."
    )
