"""What the paper claims, in its order, and the rule that judges each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from robustcli.studies.batchout import ablation_claims as ablations
from robustcli.studies.batchout import headline_claims as headline
from robustcli.studies.batchout.evidence import Evidence, Judgement, NotMeasuredError


@dataclass(frozen=True)
class Claim:
    """One claim: where it stands, what it says in short, and the rule."""

    source: str
    text: str
    judge: Callable[[Evidence], Judgement]

    @property
    def rule(self) -> str:
        """The rule in one line."""
        function = self.judge.func if isinstance(self.judge, partial) else self.judge
        return str(function.__doc__).splitlines()[0]


def judge_claim(claim: Claim, evidence: Evidence) -> Judgement:
    """What the evidence say of a claim."""
    try:
        return claim.judge(evidence)
    except NotMeasuredError as missing:
        return Judgement("not measured", f"lacks {missing}")


CLAIMS = (
    Claim(
        "abstract",
        "BatchOut is not specific to any adversary and handles multiple attacks",
        headline.handles_many_attacks,
    ),
    Claim("1", "the augmentation needs no gradients, unlike adversarial training", headline.is_cheap),
    Claim("2", "BatchOut does not suffer from obfuscated gradients", headline.not_masked),
    Claim(
        "3",
        "Gaussian noise in the features did not improve performance on adversaries",
        headline.noise_does_not_help,
    ),
    Claim("6.1", "without the stop-gradient the network learns to undo the augmentation", ablations.needs_stop),
    Claim(
        "6.2",
        "MNIST: the baseline reaches 99.47 %, FGSM-trained 99.31 %, BatchOut 99.12 %",
        partial(headline.clean_accuracies, dataset="mnist"),
    ),
    Claim(
        "6.2",
        "MNIST: the baseline falls drastically as the adversary grows",
        partial(headline.falls, dataset="mnist"),
    ),
    Claim(
        "6.2",
        "MNIST: the FGSM-trained network is robust to FGSM",
        partial(headline.withstands_fgsm, dataset="mnist", label="FGSM-trained"),
    ),
    Claim(
        "6.2",
        "MNIST: the FGSM-trained network does better than the baseline on DeepFool",
        partial(headline.beats_vanilla_on_deepfool, dataset="mnist", label="FGSM-trained"),
    ),
    Claim(
        "6.2",
        "MNIST: BatchOut is clearly robust to FGSM",
        partial(headline.withstands_fgsm, dataset="mnist", label="BatchOut"),
    ),
    Claim(
        "6.2",
        "MNIST: BatchOut is clearly robust to DeepFool",
        partial(headline.withstands_deepfool, dataset="mnist", label="BatchOut"),
    ),
    Claim("6.2", "MNIST: the drop in clean accuracy is negligible", partial(headline.small_drop, dataset="mnist")),
    Claim(
        "6.3",
        "CIFAR-10: the baseline reaches 80.22 %, FGSM-trained 80.01 %, BatchOut 80.79 %",
        partial(headline.clean_accuracies, dataset="cifar10"),
    ),
    Claim(
        "6.3",
        "CIFAR-10: the baseline is susceptible to both attacks",
        partial(headline.falls, dataset="cifar10"),
    ),
    Claim(
        "6.3",
        "CIFAR-10: the FGSM-trained network is robust to FGSM",
        partial(headline.withstands_fgsm, dataset="cifar10", label="FGSM-trained"),
    ),
    Claim(
        "6.3",
        "CIFAR-10: the FGSM-trained network suffers for DeepFool",
        partial(headline.suffers_from_deepfool, dataset="cifar10", label="FGSM-trained"),
    ),
    Claim(
        "6.3",
        "CIFAR-10: BatchOut is robust to FGSM",
        partial(headline.withstands_fgsm, dataset="cifar10", label="BatchOut"),
    ),
    Claim(
        "6.3",
        "CIFAR-10: BatchOut is robust to DeepFool",
        partial(headline.withstands_deepfool, dataset="cifar10", label="BatchOut"),
    ),
    Claim("6.3", "CIFAR-10: BatchOut loses no clean accuracy", partial(headline.small_drop, dataset="cifar10")),
    Claim("6.4", "convergence is as without BatchOut, with the same hyper-parameters", ablations.converges_alike),
    Claim("6.5", "more layers augmented, more robustness; best at all layers", ablations.more_slots),
    Claim("6.5", "the fully connected layer alone does better than both convolutions", ablations.hidden_layer_alone),
    Claim("6.6", "with larger k clean accuracy gradually falls and adversarial accuracy rises", ablations.larger_k),
    Claim("Figure 5", "accuracy on MNIST peaks at k = 0.5", ablations.peaks_at_half),
    Claim("6.7", "BatchOut clearly outperforms Gaussian noise of similar magnitude", ablations.beats_noise),
)
