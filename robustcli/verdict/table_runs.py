"""The checks after a run: of its rows, by more attacks, and of two checkpoints."""

from __future__ import annotations

from robustcli.verdict.declared import AUTOATTACK, CARLINI, PINTOR, Check

RUN_CHECKS = (
    Check("R1", "threat model kept", "an image leaves the ball or [0, 1], or is not finite", "ours", "INVALID", "full"),
    Check(
        "R2",
        "re-evaluation",
        "asked again alone and in other batches, more than 0.1 % of the adversarials change sides",
        "ours",
        "WARN",
        "full",
        bars=True,
    ),
    Check(
        "R3",
        "silent success",
        "an image that the attack asked about inside the ball was misclassified, and it returned another that is not",
        PINTOR,
        "WARN",
        "full",
    ),
    Check(
        "R4",
        "8-bit",
        "rounding to k/255 inside the ball saves more than 1 point; of the rows too under --eight-bit",
        "ours",
        "INFO",
        "full",
    ),
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
        "DeepFool of 50 iterations or more, without a budget, fails on more than 1 % of the correct points: WARN; on "
        "more than 10 % beyond chance (p < 0.001): SUSPECT",
        f"{CARLINI}; ours",
        "SUSPECT",
        "full",
    ),
    Check(
        "R10",
        "converged",
        "twice the steps lower accuracy by more than 0.5 points: WARN, 5 points: SUSPECT; the loss of more than 10 % "
        "of the survivors still moves by 0.05 of its range in the last half of the steps: WARN, INFO where R24 passed; "
        "beside an ensemble of AutoAttack's grade no more than INFO, but for SUSPECT",
        f"{CARLINI}; {PINTOR}; ours",
        "SUSPECT",
        "full",
        bars=True,
    ),
    Check(
        "R11",
        "restarts",
        "new starts, those of R24's APGD or else 5 of PGD, lower accuracy by more than 1 point; not run beside an "
        "ensemble of AutoAttack's grade",
        f"{CARLINI}; ours",
        "WARN",
        "full",
        bars=True,
    ),
    Check(
        "R12",
        "black-box not better",
        "a black-box attack breaks survivors of all white-box attacks, one of many steps among them: WARN above 0.2 "
        "points, SUSPECT above 10",
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
        "up to the usual large budget, FGSM images of the zoo's vanilla network, or under compare --transfer the same "
        "attack's images of another checkpoint, leave 5 points less than a gradient attack does, and the 95 % interval "
        "of the paired difference lies above 0",
        f"{CARLINI}; ours",
        "SUSPECT",
        "reuse",
    ),
    Check(
        "R15",
        "loss diversity",
        "attacks on the cross-entropy and on the margin differ by more than 5 points; INFO between the members of an "
        "ensemble of AutoAttack's grade, and beside it",
        f"{AUTOATTACK}; ours",
        "WARN",
        "reuse",
        bars=True,
    ),
    Check(
        "R16",
        "noisy landscape",
        "100 random steps within 4/255 change the margin by more than 10 % in the mean",
        f"{PINTOR}; ours",
        "WARN",
        "full",
    ),
    Check(
        "R17",
        "binarisation test",
        "of adversarials by construction at 32 points the attack finds under 95 %, or noise finds half: WARN; SUSPECT "
        "where it is under 95 % beyond chance (p < 0.0001) and a stronger attack finds half of those it missed",
        "Zimmermann et al. 2022; ours",
        "SUSPECT",
        "full",
    ),
    Check(
        "R18",
        "sample size",
        "always told: the half width of the 95 % interval; WARN where at an accuracy of 50 % it is above 10 points",
        "Wilson 1927; ours",
        "WARN",
        "reuse",
        bars=True,
    ),
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
    Check(
        "R23",
        "weak attacks only",
        "FGSM, DeepFool, noise or attacks of a single step are all that ran",
        CARLINI,
        "WARN",
        "reuse",
        bars=True,
    ),
    Check(
        "R24",
        "stronger ensemble",
        "APGD, APGD-T and Square with 1 000 queries, on at most 100 survivors of a budget (200 where n > 1 000), lower "
        "accuracy by more than 1 point: WARN, 10 points: SUSPECT; not asked where an ensemble of that grade ran",
        f"{AUTOATTACK}; ours",
        "SUSPECT",
        "full",
        bars=True,
    ),
)
