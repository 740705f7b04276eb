"""The checks before a run."""

from __future__ import annotations

from robustcli.verdict.declared import AUTOATTACK, CARLINI, PINTOR, Check

PREFLIGHT_CHECKS = (
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
        bars=True,
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
        bars=True,
    ),
    Check("P10", "few classes", "fewer than 4 classes: not every loss can be had", AUTOATTACK, "INFO", "preflight"),
    Check(
        "P11",
        "clean accuracy",
        "below 2 in K (K > 2), or no more than the largest class's share + 2 standard errors",
        f"{CARLINI}; ours",
        "WARN",
        "preflight",
        bars=True,
    ),
    Check(
        "P12",
        "budget sanity",
        "a budget of 0, or in Linf below half a grey level; an L2 or L1 budget of Linf size; steps x step_size below "
        "eps; a step above 2 eps",
        "ours",
        "WARN",
        "preflight",
        bars=True,
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
        "of the zoo's vanilla network more than 5 % stand under the same budget attacks at the usual large budget",
        f"{CARLINI}; ours",
        "WARN",
        "preflight",
        bars=True,
    ),
    Check(
        "P15",
        "classes in the sample",
        "the samples lack a class of the network or the data, or hold the classes in other shares than the data (chi "
        "squared, p < 0.001, and 10 % of the samples would have to change class) and not in equal ones either",
        "ours",
        "WARN",
        "reuse",
        bars=True,
    ),
)
