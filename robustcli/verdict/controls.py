"""What a run is held against: affine models with a known answer (P13), and an undefended network (P14, R14)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustcli.attacks import FGSM, PGD, DeepFool, label
from robustcli.attacks.base import Attack, BudgetAttack, at_budget
from robustcli.attacks.losses import cross_entropy
from robustcli.attacks.norms import Norm
from robustcli.config import default_budgets
from robustcli.data.images import Images
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Samples, run_attack
from robustcli.measure.evaluate import open_checkpoint
from robustcli.measure.record import Row
from robustcli.measure.stats import paired_interval
from robustcli.noise import Noise
from robustcli.testing.tiny import boundary_distance, largest_eps, linear_model, linear_samples
from robustcli.verdict.effort import is_weak, wants_gradients
from robustcli.verdict.findings import Finding
from robustcli.verdict.runs import budgets, table

UNDEFENDED = {
    "mnist": Path("zoo:mnist-vanilla"),
    "mnist-sample": Path("zoo:mnist-vanilla"),
    "cifar10": Path("zoo:cifar10-vanilla"),
}
"""By data set."""
STANDS = 0.05
TRANSFERS = 0.05
"""Own FGSM images against those of the undefended net, at 0.3: 44 and 26 % of BatchOut, 98 and 58 % of the FGSM-trained
net, 95.2 and 95.0 % of the PGD-trained one."""

LOSS_OFF = 1e-4


def self_test(norms: Sequence[Norm]) -> list[Finding]:
    """P13, in each norm."""
    return [_self_test(norm, *_affine(norm)) for norm in dict.fromkeys(norms)]


def _affine(norm: Norm) -> tuple[nn.Module, Samples, float]:
    model = linear_model(norm)
    eps = largest_eps(norm) / 3
    return model, linear_samples(model, norm, [factor * eps for factor in (0.3, 0.6, 0.9, 1.1, 1.4)]), eps


def _self_test(norm: Norm, model: nn.Module, samples: Samples, eps: float) -> Finding:
    exact = boundary_distance(model, norm, samples)
    deepfool = DeepFool(norm=norm)
    excess = float((run_attack(model, deepfool, samples)[0].distance / exact).max()) / (1 + deepfool.overshoot) - 1
    pgd, noise = PGD(eps, norm=norm, random_start=False, early_stop=False), Noise(0, samples.ids)
    with frozen(model):
        x_adv = pgd.perturb(model, samples.x, samples.y, noise)
        loss = cross_entropy(model(x_adv), samples.y)
        still = at_budget(pgd, 0.0).perturb(model, samples.x, samples.y, noise)
    off = float((loss - F.softplus(eps - exact)).abs().max())
    problems = [
        told
        for wrong, told in (
            (excess > 0.01, f"DeepFool ends {100 * excess:.1f} % beyond a linear boundary"),
            (off > LOSS_OFF, f"PGD's loss is {off:.2g} off the closed form"),
            (not torch.equal(still, samples.x), "PGD with eps = 0 changes the image"),
        )
        if wrong
    ]
    if problems:
        return Finding("P13", "INVALID", f"{norm.label}: {'; '.join(problems)}: this installation is broken", off)
    return Finding("P13", "OK", f"{norm.label}: attacks agree with the closed form of an affine model", off)


@cache
def undefended(dataset: str) -> tuple[nn.Module, str]:
    """The data set's undefended network, in eval mode, and the hash of its file."""
    candidate = open_checkpoint(UNDEFENDED[dataset])
    return candidate.model, candidate.subject.sha256


def controlled(images: Images) -> bool:
    """Whether there is an undefended network for the images."""
    return images.name in UNDEFENDED


def control(dataset: str, samples: Samples, attacks: Sequence[Attack], seed: int) -> list[Finding]:
    """P14, of budget attacks at the usual large budget or above; weak ones are known to leave more.

    Args:
        dataset: whose undefended network is attacked.
        samples: what it is attacked on.
        attacks: with their budgets.
        seed: of the attacks' draws.
    """
    usual = default_budgets(tuple(samples.x.shape[1:]))[1]
    tried = [
        one for one in attacks if isinstance(one, BudgetAttack) and one.norm.name == "linf" and one.eps >= usual - 1e-9
    ]
    tried = [one for one in tried if wants_gradients(one) and not is_weak(one)]
    if not tried:
        return []
    model = undefended(dataset)[0].to(samples.x.device)
    left = samples
    for attack in tried:
        outcome = run_attack(model, attack, left, seed=seed)[-1]
        left = left[outcome.robust.nonzero()[:, 0].to(left.x.device)]
        if not len(left):
            break
    share = len(left) / max(1, len(samples))
    told = f"of an undefended net {100 * share:.0f} % stand under {', '.join(label(one) for one in tried)} at {usual}"
    if share > STANDS:
        return [Finding("P14", "WARN", f"{told}: steps, step size or budget are set wrong", share)]
    return [Finding("P14", "OK", told, share)]


def transferred(
    dataset: str, model: nn.Module, tried: Samples, index: Tensor, rows: Sequence[Row], seed: int
) -> list[Finding]:
    """R14: FGSM images of the undefended network, asked of the model, against its own gradient attacks.

    Args:
        dataset: whose undefended network makes the images.
        model: what was measured.
        tried: m of the n samples.
        index: (m,) their places among the n.
        rows: of the model, each with flags of all n.
        seed: of the draws.
    """
    source, sha256 = undefended(dataset)
    if not rows or rows[0].subject.sha256 == sha256 or not len(tried):
        return []
    found = []
    for name, group in budgets(rows):
        attacked = [row for row in group if transfer_is_judged(row, tuple(tried.x.shape[1:]))]
        if attacked:
            eps, norm = float(group[0].eps or 0), group[0].attack.norm
            flags = _after(source.to(tried.x.device), model, FGSM(eps, norm=norm), tried, seed)
            found += [transfer_finding(name, row, index.tolist(), flags) for row in attacked]
    return found


def transfer_is_judged(row: Row, shape: tuple[int, ...]) -> bool:
    """Whether R14 is asked of a row: a gradient attack's, up to the usual large budget of images (c, h, w) in Linf."""
    usual = default_budgets(shape)[1]
    return wants_gradients(row.attack) and row.attack.norm.name == "linf" and 0 < float(row.eps or 0) <= usual + 1e-9


def _after(source: nn.Module, model: nn.Module, attack: Attack, samples: Samples, seed: int) -> list[int]:
    """(m,) flags: right before, and on what an attack on `source` made of it."""
    outcome = run_attack(source, attack, samples, seed=seed, keep_images=True)[-1]
    assert outcome.x_adv is not None
    with frozen(model), torch.no_grad():
        right = Meter(model)(samples.x).argmax(1) == samples.y
        after = Meter(model)(outcome.x_adv.to(samples.x)).argmax(1) == samples.y
    flags: list[int] = (right & after).int().tolist()
    return flags


def transfer_finding(
    name: str,
    row: Row,
    index: Sequence[int],
    flags: Sequence[int],
    images: str = "FGSM images of an undefended net",
) -> Finding:
    """R14 of one row.

    Args:
        name: of the budget.
        row: a gradient attack's.
        index: (m,) the places of the samples that were tried.
        flags: (m,) 1 where the transferred image leaves the sample right.
        images: what they are.
    """
    counts = table([row.robust[i] for i in index], flags)
    told = (
        f"{label(row.attack)} at {name} leaves {counts.both + counts.only_a} of {counts.n}; "
        f"{images} leave {counts.both + counts.only_b}"
    )
    if counts.difference > TRANSFERS and paired_interval(counts)[0] > 0:
        cause = "its own gradient hides what there is to find (gradient masking)"
        return Finding("R14", "SUSPECT", f"{told}: {cause}", counts.difference)
    return Finding("R14", "OK", told, counts.difference)
