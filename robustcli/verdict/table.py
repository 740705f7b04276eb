"""Every check, declared once: what it is, when it speaks up, how bad that is, and where it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "INFO", "WARN", "SUSPECT", "INVALID"]

When = Literal["preflight", "reuse", "full", "compare", "later"]
"""Before the run; from its rows; by more attacks (`--checks full`); for two checkpoints; not built yet."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id, title: its name in tables.
        criterion: when it speaks up, with its thresholds.
        source: who asks for it; `ours` where the threshold is our own.
        level: the worst that it says.
        when: where it runs.
    """

    id: str
    title: str
    criterion: str
    source: str
    level: Level
    when: When


CARLINI = "Carlini et al. 2019"
AUTOATTACK = "Croce & Hein 2020"
PINTOR = "Pintor et al. 2022"

_PREFLIGHT = (
    Check("P1", "eval mode", "a module is in train mode: measured in eval mode", "RobustBench", "WARN", "preflight"),
    Check(
        "P2",
        "input range",
        "a pixel lies below -1e-4 or above 1 + 1e-4: normalisation belongs into the model",
        "ours",
        "INVALID",
        "preflight",
    ),
    Check(
        "P3",
        "probabilities given",
        "all outputs in [0, 1] and every row's sum 1, within 1e-5",
        AUTOATTACK,
        "WARN",
        "preflight",
    ),
    Check(
        "P4",
        "saturation",
        "share of the correct points with a cross-entropy of exactly 0 or a margin above 17: INFO above 5 %; "
        "WARN where the median margin is above 100, at which float32 gradients vanish",
        f"{CARLINI}; ours",
        "WARN",
        "preflight",
    ),
    Check(
        "P5",
        "randomised model",
        "over 5 passes the number of correct points differs, or normalised logits differ by more than 1e-4 in L2",
        AUTOATTACK,
        "WARN",
        "preflight",
    ),
    Check(
        "P6",
        "batch dependence",
        "logits of an image alone and in a batch differ by more than 1e-3 max(1, abs(logit)); where P5 passed",
        "ours",
        "INVALID",
        "preflight",
    ),
    Check(
        "P7",
        "broken graph",
        "the loss has no gradient with respect to the image, or asking for it fails, and an attack needs it",
        PINTOR,
        "INVALID",
        "preflight",
    ),
    Check(
        "P8",
        "zero gradients",
        "a correct point's gradient is 0 or not finite: WARN from one point on; SUSPECT where under every loss that "
        "the gradient attacks use more than half of the points have none",
        f"{AUTOATTACK}; {PINTOR}; ours",
        "SUSPECT",
        "preflight",
    ),
    Check(
        "P9",
        "gradient inside forward",
        "autograd is called while the model predicts",
        AUTOATTACK,
        "WARN",
        "preflight",
    ),
    Check("P10", "few classes", "fewer than 4 classes: not every loss can be had", AUTOATTACK, "INFO", "preflight"),
    Check(
        "P11",
        "clean accuracy",
        "below 2 in K (K > 2), or no more than the largest class's share + 2 standard errors",
        f"{CARLINI}; ours",
        "WARN",
        "preflight",
    ),
    Check(
        "P12",
        "budget sanity",
        "an L2 or L1 budget of Linf size; steps x step_size below eps; a step above 2 eps",
        "ours",
        "WARN",
        "preflight",
    ),
    Check(
        "P13",
        "attack self-test",
        "on an affine model, DeepFool ends more than 1 % x (1 + overshoot) beyond the boundary, PGD's loss is off the "
        "closed form by more than 1e-4, or eps = 0 changes a pixel",
        CARLINI,
        "INVALID",
        "preflight",
    ),
    Check(
        "P14",
        "undefended control",
        "of zoo:mnist-vanilla more than 5 % stand under the same budget attacks at the usual large budget",
        f"{CARLINI}; ours",
        "WARN",
        "preflight",
    ),
)

_RUNS = (
    Check("R1", "threat model kept", "an image leaves the ball or [0, 1], or is not finite", "ours", "INVALID", "full"),
    Check(
        "R2",
        "re-evaluation",
        "asked again alone and in other batches, more than 0.1 % of the adversarials change sides",
        "ours",
        "WARN",
        "full",
    ),
    Check(
        "R3",
        "silent success",
        "an image that the attack asked about inside the ball was misclassified, and it returned another that is not",
        PINTOR,
        "WARN",
        "full",
    ),
    Check("R4", "8-bit", "rounding to k/255 inside the ball saves more than 1 point", "ours", "INFO", "full"),
    Check(
        "R5", "per-sample worst case", "always told: what stands under all attacks at once", CARLINI, "INFO", "reuse"
    ),
    Check(
        "R6",
        "many steps beat one",
        "at one budget more stand under an iterative attack than under FGSM (exact one-sided test, p < 0.05): SUSPECT; "
        "FGSM alone breaks more than 1 %, or leaves 30 points more: WARN",
        f"{CARLINI}; ours",
        "SUSPECT",
        "reuse",
    ),
    Check(
        "R7",
        "monotone in eps",
        "accuracy rises with eps: the 95 % interval of the paired difference lies above 0",
        f"{CARLINI}; ours",
        "SUSPECT",
        "reuse",
    ),
    Check(
        "R8",
        "huge eps",
        "under PGD-100 at Linf 0.5, where every image can be made grey, accuracy is above 1/K + 2 standard errors",
        f"{CARLINI}; ART",
        "SUSPECT",
        "full",
    ),
    Check(
        "R9",
        "unbounded attack",
        "DeepFool of 50 iterations or more, without a budget, fails on more than 1 % of the correct points: WARN, "
        "10 %: SUSPECT",
        f"{CARLINI}; ours",
        "SUSPECT",
        "full",
    ),
    Check(
        "R10",
        "converged",
        "twice the steps lower accuracy by more than 0.5 points: WARN, 5 points: SUSPECT; the loss of more than 10 % "
        "of the survivors still moves by 0.05 of its range in the last half of the steps: WARN",
        f"{CARLINI}; {PINTOR}; ours",
        "SUSPECT",
        "full",
    ),
    Check("R11", "restarts", "5 restarts lower accuracy by more than 1 point", f"{CARLINI}; ours", "WARN", "full"),
    Check(
        "R12",
        "black-box not better",
        "a black-box attack breaks survivors of all white-box attacks: WARN above 0.2 points, SUSPECT above 10",
        f"{AUTOATTACK}; ours",
        "SUSPECT",
        "reuse",
    ),
    Check(
        "R13",
        "random search",
        "uniform noise in the ball breaks a survivor: WARN, more than 1 %: SUSPECT; 200 draws on at most 100",
        f"{CARLINI}; ours",
        "SUSPECT",
        "full",
    ),
    Check(
        "R14",
        "transfer not better",
        "up to the usual large budget, FGSM images of zoo:mnist-vanilla leave 5 points less than a gradient attack "
        "does, and the 95 % interval of the paired difference lies above 0",
        f"{CARLINI}; ours",
        "SUSPECT",
        "reuse",
    ),
    Check(
        "R15",
        "loss diversity",
        "attacks on the cross-entropy and on the margin differ by more than 5 points",
        f"{AUTOATTACK}; ours",
        "WARN",
        "reuse",
    ),
    Check(
        "R16",
        "noisy landscape",
        "100 random steps within 4/255 change the loss by more than 10 % in the mean",
        f"{PINTOR}; ours",
        "WARN",
        "full",
    ),
    Check(
        "R17",
        "binarisation test",
        "on a head with an adversarial by construction the attack finds fewer than 95 %, or noise finds half",
        "Zimmermann et al. 2022",
        "SUSPECT",
        "later",
    ),
    Check("R18", "sample size", "always told: the half width of the 95 % interval", "Wilson 1927", "INFO", "reuse"),
    Check("R19", "comparison", "p > 0.05 in McNemar's exact test: never ranked", "McNemar 1947", "INFO", "compare"),
    Check("R20", "equal effort", "passes a sample differ by more than 10 %", "ours", "INFO", "compare"),
    Check("R21", "same threat model", "data, samples, norm, eps or attack differ", CARLINI, "INVALID", "compare"),
    Check(
        "R22",
        "the defence knows the attack",
        "all attacks are of the family that it was trained against: WARN; FGSM training, and FGSM leaves 30 points "
        "more than an iterative attack within its budget: SUSPECT",
        f"{CARLINI}; Wong et al. 2020; ours",
        "SUSPECT",
        "reuse",
    ),
    Check("R23", "weak attacks only", "FGSM, DeepFool or noise are all that ran", CARLINI, "WARN", "reuse"),
)

CHECKS: dict[str, Check] = {check.id: check for check in _PREFLIGHT + _RUNS}
