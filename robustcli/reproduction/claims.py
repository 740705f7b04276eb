"""What the paper claims, in its order, and the rule that judges each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustcli.reproduction.rules import (
    Judgement,
    NotMeasuredError,
    Study,
    beats_noise,
    clean_accuracies,
    converges_alike,
    falls,
    half_is_best,
    hidden_layer_alone,
    is_cheap,
    larger_k,
    more_slots,
    needs_stop,
    not_masked,
    small_drop,
    withstands,
)


@dataclass(frozen=True)
class Claim:
    """One claim: where it stands, its words in short, and the rule."""

    source: str
    words: str
    judge: Callable[[Study], Judgement]


def judged(claim: Claim, study: Study) -> Judgement:
    """What the study says of a claim."""
    try:
        return claim.judge(study)
    except NotMeasuredError:
        return Judgement("not measured", "-")


CLAIMS = (
    Claim(
        "6.2", "MNIST: the baseline reaches 99.47 %, FGSM-trained 99.31 %, BatchOut 99.12 %", clean_accuracies("mnist")
    ),
    Claim("6.2", "MNIST: the baseline falls drastically as the adversary grows", falls("mnist")),
    Claim("6.2", "MNIST: the FGSM-trained network is robust to FGSM", withstands("mnist", "FGSM-trained", "FGSM")),
    Claim(
        "6.2",
        "MNIST: the FGSM-trained network does better than the baseline on DeepFool",
        withstands("mnist", "FGSM-trained", "DeepFool"),
    ),
    Claim("6.2", "MNIST: BatchOut is clearly robust to FGSM", withstands("mnist", "BatchOut", "FGSM")),
    Claim("6.2", "MNIST: BatchOut is clearly robust to DeepFool", withstands("mnist", "BatchOut", "DeepFool")),
    Claim("6.2", "the drop in clean accuracy is negligible", small_drop),
    Claim("6.3", "CIFAR-10: 80.22 %, 80.01 % and 80.79 %", clean_accuracies("cifar10")),
    Claim("6.3", "CIFAR-10: the baseline fails to recognise the objects under attack", falls("cifar10")),
    Claim("6.3", "CIFAR-10: the FGSM-trained network is robust to FGSM", withstands("cifar10", "FGSM-trained", "FGSM")),
    Claim("6.3", "CIFAR-10: BatchOut is robust to FGSM", withstands("cifar10", "BatchOut", "FGSM")),
    Claim("6.3", "CIFAR-10: BatchOut is robust to DeepFool", withstands("cifar10", "BatchOut", "DeepFool")),
    Claim("6.4", "convergence is as without BatchOut, with the same hyper-parameters", converges_alike),
    Claim("6.5", "more layers augmented, more robustness; best at all layers", more_slots),
    Claim("6.5", "the fully connected layer alone does better than both convolutions", hidden_layer_alone),
    Claim("6.6", "with larger k clean accuracy falls and adversarial accuracy rises", larger_k),
    Claim("6.6", "k = 0.5 strikes the right balance", half_is_best),
    Claim("6.7", "BatchOut clearly outperforms Gaussian noise of the same magnitude", beats_noise),
    Claim("6.1", "without the stop-gradient the network learns to undo the augmentation", needs_stop),
    Claim("2", "BatchOut does not suffer from obfuscated gradients", not_masked),
    Claim("1", "no gradients are needed to augment, so training stays cheap", is_cheap),
)
