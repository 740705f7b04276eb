"""What a run is held against: models with a known answer, an undefended network, other checkpoints, the whole data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from robustcli.attacks import FGSM, PGD, DeepFool, label
from robustcli.attacks.base import Attack, BudgetAttack, at_budget
from robustcli.attacks.losses import cross_entropy
from robustcli.attacks.norms import Norm
from robustcli.config import default_budgets
from robustcli.data.images import Images
from robustcli.engine.guard import frozen
from robustcli.engine.run import run_attack
from robustcli.measure.record import Record
from robustcli.measure.session import ImageSamples
from robustcli.measure.stats import Table, paired_interval
from robustcli.measure.transfer import transfer
from robustcli.models.sources import open_target
from robustcli.noise import Noise
from robustcli.testing.tiny import boundary_distance, largest_eps, linear_model, linear_samples
from robustcli.verdict.check import CARLINI, Finding, When, check, scientific
from robustcli.verdict.model import FEW, MORE, spread_over
from robustcli.verdict.probes import Measurement
from robustcli.verdict.rows import attack_of

UNDEFENDED = {
    "mnist": Path("zoo:mnist-vanilla"),
    "mnist-sample": Path("zoo:mnist-vanilla"),
    "cifar10": Path("zoo:cifar10-vanilla"),
}
"""By data set."""

BEYOND = 0.01
LOSS_OFF = 1e-4
STANDS = 0.05

OTHER_SHARES = 0.001
"""The p value below which the classes' shares are others than the data's: one random sample of a thousand is."""

MOVED = 0.1
"""Of the samples; a smaller share would change an accuracy by little."""

TRANSFERS = 0.05
"""Own FGSM images against those of the undefended net, at 0.3: 44 and 26 % of BatchOut, 98 and 58 % of the FGSM-trained
net, 95.2 and 95.0 % of the PGD-trained one."""


@dataclass(frozen=True)
class Setup:
    """What is to run, whatever the model: each attack has its budget, and `seed` keys its draws."""

    when: ClassVar[When] = "preflight"

    images: Images
    attacks: Sequence[Attack]
    seed: int = 0
    device: str = "cpu"


@check(
    "P13",
    "attack self-test",
    f"on an affine model, DeepFool ends more than {100 * BEYOND:g} % x (1 + overshoot) beyond the boundary, PGD's loss "
    f"is off the closed form by more than {scientific(LOSS_OFF)}, or eps = 0 changes a pixel",
    level="INVALID",
    source=CARLINI,
)
def self_test(setup: Setup) -> list[Finding]:
    """In each norm."""
    return [_self_test(norm) for norm in dict.fromkeys(attack.norm for attack in setup.attacks)]


def _self_test(norm: Norm) -> Finding:
    model, eps = linear_model(norm), largest_eps(norm) / 3
    samples = linear_samples(model, norm, [factor * eps for factor in (0.3, 0.6, 0.9, 1.1, 1.4)])
    exact = boundary_distance(model, norm, samples)
    deepfool = DeepFool(norm=norm)
    excess = float((run_attack(model, deepfool, samples)[0].distance / exact).max()) / (1 + deepfool.overshoot) - 1
    pgd, noise = PGD(eps, norm=norm, random_start=False, early_stop=False), Noise(0, samples.ids)
    with frozen(model):
        x_adv = pgd.perturb(model, samples.x, samples.y, noise)
        loss = cross_entropy(model(x_adv), samples.y)
        unmoved = at_budget(pgd, 0.0).perturb(model, samples.x, samples.y, noise)
    off = float((loss - F.softplus(eps - exact)).abs().max())
    problems = []
    if excess > BEYOND:
        problems.append(f"DeepFool ends {100 * excess:.1f} % beyond a linear boundary")
    if off > LOSS_OFF:
        problems.append(f"PGD's loss is {off:.2g} off the closed form")
    if not torch.equal(unmoved, samples.x):
        problems.append("PGD with eps = 0 changes the image")
    if problems:
        return Finding("INVALID", f"{norm.label}: {'; '.join(problems)}: this installation is broken", off)
    return Finding("OK", f"{norm.label}: attacks agree with the closed form of an affine model", off)


@cache
def undefended(dataset: str) -> tuple[nn.Module, str]:
    """The data set's undefended network, in eval mode, and the hash of its file."""
    target = open_target(UNDEFENDED[dataset])
    return target.module, target.key


@check(
    "P14",
    "undefended control",
    f"of the zoo's vanilla network more than {100 * STANDS:g} % stand under the same budget attacks at the usual large "
    "budget",
    level="WARN",
    source=f"{CARLINI}; ours",
    bars=True,
)
def undefended_control(setup: Setup) -> Finding | None:
    """Of budget attacks at the usual large budget or above; weak ones are known to leave more."""
    images = setup.images
    usual = default_budgets(images.shape)[1]
    strong = [
        one
        for one in setup.attacks
        if isinstance(one, BudgetAttack) and one.norm.name == "linf" and one.eps >= usual - 1e-9
        if one.needs == "gradients" and not one.weak
    ]
    if not strong or not len(images) or images.name not in UNDEFENDED:
        return None
    samples = ImageSamples(images.sample(spread_over(len(images), FEW)), setup.device)[slice(None)]
    model, left = undefended(images.name)[0].to(setup.device), samples
    for attack in strong:
        if len(left):
            outcome = run_attack(model, attack, left, seed=setup.seed)[-1]
            left = left[outcome.robust.nonzero()[:, 0].to(left.x.device)]
    share = len(left) / len(samples)
    names = ", ".join(label(one) for one in strong)
    message = f"of an undefended net {100 * share:.0f} % stand under {names} at {usual}"
    if share > STANDS:
        return Finding("WARN", f"{message}: steps, step size or budget are set wrong", share)
    return Finding("OK", message, share)


@check(
    "P15",
    "classes in the sample",
    "the samples lack a class of the network or the data, or hold the classes in other shares than the data (chi "
    f"squared, p < {OTHER_SHARES:g}, and {100 * MOVED:g} % of the samples would have to change class) and not in equal "
    "ones either",
    level="WARN",
    when="reuse",
    source="ours",
    bars=True,
)
def classes_in_sample(measured: Measurement) -> Finding:
    """Whether the samples stand for the data set, as far as its population is known."""
    images, classes = measured.images, measured.classes
    n, population = len(images), images.population
    more = "; raise --limit" if sum(population) > n or not population else ""
    counts = torch.bincount(images.y.clamp(0, classes - 1), minlength=classes).double()
    present = int((counts > 0).sum())
    if present < classes:
        message = f"the {n} samples hold {present} of the network's {classes} classes"
        why = "images sorted by class, or too few" if more else "the data set has no more"
        return Finding("WARN", f"{message}: {why}{more}", present)
    message = f"the {n} samples hold all {classes} classes"
    if len(population) == classes:
        known = torch.tensor(population, dtype=torch.float64)
        moved = float((counts / n - known / known.sum()).abs().sum() / 2)
        if moved > MOVED and _differ(counts, known) and _differ(counts, torch.ones(classes)):
            message = (
                f"{message}, but in other shares than the data set ({100 * moved:.0f} % would have to change class)"
            )
            return Finding("WARN", f"{message}: images sorted by class?{more}", moved)
    return Finding("OK", message, present)


def _differ(counts: Tensor, shares: Tensor) -> bool:
    """Whether counts are of other shares, beyond chance."""
    expected = shares.double() / shares.sum() * counts.sum()
    return float(chisquare(counts.numpy(), expected.numpy()).pvalue) < OTHER_SHARES


@check(
    "R14",
    "transfer not better",
    "up to the usual large budget, FGSM images of the zoo's vanilla network, or under compare --transfer the same "
    f"attack's images of another checkpoint, leave {100 * TRANSFERS:g} points less than a gradient attack does, and "
    "the 95 % interval of the paired difference lies above 0",
    level="SUSPECT",
    when="reuse",
    source=f"{CARLINI}; ours",
)
def transfer_not_better(measured: Measurement) -> Iterator[Finding]:
    """Images made on other networks, against the model's own gradient attacks."""
    usual = default_budgets(measured.images.shape)[1]
    judged = {
        row.setting: row
        for row in measured.rows
        if attack_of(row).norm.name == "linf" and 0 < float(row.eps or 0) <= usual + 1e-9
        if attack_of(row).needs == "gradients"
    }
    yield from _of_undefended(measured, [row for row in judged.values() if row.ensemble is None])
    for cell in measured.transfers:
        row = judged.get(cell.record.setting)
        if row is not None and cell.source != cell.target == row.subject:
            flags = dict(zip(cell.record.ids, cell.robust, strict=True))
            images = f"its images of {cell.source.checkpoint}"
            yield transfer_finding(row, range(row.n), [flags[sample] for sample in row.ids], images)


def _of_undefended(measured: Measurement, rows: Sequence[Record]) -> Iterator[Finding]:
    images = measured.images
    if images.name not in UNDEFENDED or not rows:
        return
    source, sha256 = undefended(images.name)
    if rows[0].subject.sha256 == sha256:
        return
    index = spread_over(len(images), MORE)
    samples = measured.samples[index]
    source = source.to(samples.x.device)
    for norm, eps in dict.fromkeys((attack_of(row).norm, float(row.eps or 0)) for row in rows):
        attack, size = FGSM(eps, norm=norm), measured.chunk
        _, after = transfer(source, measured.model, attack, samples, seed=measured.seed, batch_size=size)
        for row in rows:
            if attack_of(row).norm == norm and row.eps == eps:
                yield transfer_finding(row, index.tolist(), after.int().tolist())


def transfer_finding(
    row: Record, index: Sequence[int], flags: Sequence[int], images: str = "FGSM images of an undefended net"
) -> Finding:
    """R14 of a gradient attack's row: `flags` (m,) are 1 where transferred `images` leave the samples `index` right."""
    counts = Table.of([row.robust[i] for i in index], flags)
    message = (
        f"{row.label} at {row.ball} leaves {counts.both + counts.only_a} of {counts.n}; "
        f"{images} leave {counts.both + counts.only_b}"
    )
    if counts.difference > TRANSFERS and paired_interval(counts)[0] > 0:
        cause = "its own gradient hides what there is to find (gradient masking)"
        return Finding("SUSPECT", f"{message}: {cause}", counts.difference)
    return Finding("OK", message, counts.difference)
