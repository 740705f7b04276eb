"""The checks before a run, P1 to P12: each a pure function of what was seen, and of the attacks to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor

from robustcli.attacks import label
from robustcli.attacks.base import Attack, BudgetAttack, passes_of
from robustcli.attacks.losses import cross_entropy, is_right, margin
from robustcli.attacks.norms import Linf
from robustcli.measure.plan import Planned, budget_warnings
from robustcli.verdict.effort import losses_of, wants_gradients
from robustcli.verdict.findings import Finding
from robustcli.verdict.look import Look

Preflight = Callable[[Look, Sequence[Attack]], Finding]

ROUNDS_TO_ONE = 17.0
"""The margin from which a float32 softmax rounds to 1."""

OTHER_SHARES = 0.001
"""The p value below which the classes' shares are others than the data's: one random sample of a thousand is."""

MOVED = 0.1
"""Of the samples; a smaller share would change an accuracy by little."""

HALF_A_LEVEL = 0.5 / 255
"""Rounded to 8 bits, an image of a smaller Linf ball is the one in its middle."""

VANISHES = 100.0
"""The margin from which the softmax of the other classes underflows, and with it every gradient of the loss."""


def eval_mode(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P1."""
    found = look.in_train_mode
    if not found:
        return Finding("P1", "OK", "the model came in eval mode")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Finding("P1", "WARN", f"{found[0]}{more} came in train mode; measured in eval mode", len(found))


def input_range(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P2."""
    excess = max(-look.low, look.high - 1)
    if excess <= 1e-4:
        return Finding("P2", "OK", f"pixels from {look.low:g} to {look.high:g}")
    return Finding(
        "P2", "INVALID", f"pixels from {look.low:g} to {look.high:g}: put the normalisation inside the model", excess
    )


def probabilities(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P3."""
    logits = look.logits
    off = float((logits.sum(1) - 1).abs().max())
    if logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and off < 1e-5:
        told = "the model returns probabilities: attacks on the cross-entropy are weakened; return logits"
        return Finding("P3", "WARN", told, off)
    return Finding("P3", "OK", "the outputs are no probabilities")


def saturation(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P4: vanilla nets have 0 to 70 % of their points above 17, so that alone is no fault."""
    logits, y = look.logits[look.right], look.y[look.right]
    if not len(y):
        return Finding("P4", "OK", "no point is right")
    margins = margin(logits, y)
    share = float(((cross_entropy(logits.float(), y) == 0) | (margins > ROUNDS_TO_ONE)).double().mean())
    middle = float(margins.median())
    if middle > VANISHES:
        told = f"the median margin is {middle:.3g}: logits are scaled so high that the cross-entropy has no gradient"
        return Finding("P4", "WARN", f"{told}; attack with apgd:loss=dlr", middle)
    level = "INFO" if share > 0.05 else "OK"
    return Finding("P4", level, f"{100 * share:.0f} % of the correct points are saturated", share)  # type: ignore[arg-type]


def randomised(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P5."""
    counts = {int(is_right(logits, look.near).sum()) for logits in look.passes}
    unit = [F.normalize(logits, dim=1) for logits in look.passes]
    gap = max(float((other - unit[0]).norm(dim=1).max()) for other in unit[1:])
    if len(counts) == 1 and gap <= 1e-4:
        return Finding("P5", "OK", "the same image gets the same logits", gap)
    averaged = [passes_of(attack) for attack in attacks if wants_gradients(attack)]
    if not averaged:
        return Finding("P5", "INFO", "the model answers at random; no attack takes a gradient of it", gap)
    if min(averaged) >= 20:
        return Finding("P5", "INFO", "the model answers at random; gradients are averaged over 20 passes or more", gap)
    told = "the model answers the same image differently: dropout or an augmentation such as BatchOut was left on, or"
    return Finding("P5", "WARN", f"{told} it is randomised by design; attack it with --eot 20 or more", gap)


def batch_dependence(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P6; of a randomised model it cannot be told."""
    told = "logits depend on the other images of the batch: a batch norm or an augmentation ignores eval mode"
    if look.alone is None:
        return Finding("P6", "INVALID", f"an image alone is refused: {told}")
    batch = look.passes[0]
    over = float(((look.alone - batch).abs() / (1e-3 * batch.abs().clamp_min(1))).max())
    if over <= 1:
        return Finding("P6", "OK", "an image alone gets the logits that it gets in a batch", over * 1e-3)
    return Finding("P6", "INVALID", f"{told} (they move by {over * 1e-3:.2g})", over * 1e-3)


def broken_graph(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P7."""
    if not look.broken:
        return Finding("P7", "OK", "the loss has a gradient with respect to the image")
    needing = [attack.name for attack in attacks if wants_gradients(attack)]
    told = f"the model passes no gradient to its images ({look.broken})"
    if not needing:
        return Finding("P7", "INFO", f"{told}; no attack needs one")
    return Finding("P7", "INVALID", f"{told}: {', '.join(dict.fromkeys(needing))} cannot attack it; try square")


def zero_gradients(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P8."""
    right = is_right(look.passes[0], look.near)
    shares = {name: _without(gradient, right) for name, gradient in look.gradients.items() if gradient is not None}
    used = set().union(*(losses_of(attack) for attack in attacks)) & shares.keys()
    told = ", ".join(f"{100 * share:.0f} % under the {name}" for name, share in shares.items())
    worst, least = max(shares.values(), default=0.0), min((shares[name] for name in used), default=0.0)
    if worst == 0:
        return Finding("P8", "OK", "every correct point has a gradient", 0.0)
    said = f"correct points without a usable gradient: {told}"
    if least <= 0.5:
        return Finding("P8", "WARN", f"{said}; some attacks are blind there", worst)
    cause = (
        "logits scaled too high: attack with apgd:loss=dlr"
        if shares.get("margin", 1.0) <= 0.5
        else "a rounding, quantisation or gradient-stopping layer: use square, or differentiate through it (BPDA)"
    )
    return Finding("P8", "SUSPECT", f"{said}; {cause}", least)


def _without(gradient: Tensor, right: Tensor) -> float:
    """The share of the correct points whose gradient is 0 or not finite."""
    flat = gradient.flatten(1)[right]
    return float(((flat.abs().sum(1) == 0) | ~flat.isfinite().all(1)).double().mean()) if len(flat) else 0.0


def gradient_inside(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P9."""
    if not look.asks_autograd:
        return Finding("P9", "OK", "a forward pass takes no gradient")
    told = "the model takes gradients while it predicts (test-time optimisation): only an adaptive attack can judge it"
    return Finding("P9", "WARN", told, look.asks_autograd)


def few_classes(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P10."""
    if look.classes > 3:
        return Finding("P10", "OK", f"{look.classes} classes", look.classes)
    lost = "the margin takes the place of DLR" if look.classes < 3 else "the margin takes the place of targeted DLR"
    return Finding("P10", "INFO", f"{look.classes} classes: {lost}", look.classes)


def clean_accuracy(look: Look, attacks: Sequence[Attack]) -> Finding:
    """P11."""
    n, classes = len(look.y), look.classes
    accuracy = float(look.right.double().mean())
    share = float(torch.bincount(look.y, minlength=classes).max()) / n
    chance = share + 2 * math.sqrt(share * (1 - share) / n)
    told = f"clean accuracy {100 * accuracy:.1f} % on {n} sample{'s' * (n != 1)}"
    if share == 1:
        return Finding("P11", "WARN", f"{told} of one class: a network that always says this class has 100 %", accuracy)
    if accuracy <= chance or (classes > 2 and accuracy < 2 / classes):
        return Finding("P11", "WARN", f"{told} is near chance: wrong weights, labels or preprocessing?", accuracy)
    return Finding("P11", "OK", told, accuracy)


def classes_in_sample(classes: int, labels: Tensor, population: Sequence[int] = ()) -> Finding:
    """P15.

    Args:
        classes: the network's.
        labels: (n,) of all samples that were measured.
        population: how many images of each class the data set has; empty where that is not known.
    """
    n = len(labels)
    more = "; raise --limit" if sum(population) > n or not population else ""
    counts = torch.bincount(labels.clamp(0, classes - 1), minlength=classes).double()
    present = int((counts > 0).sum())
    if present < classes:
        told = f"the {n} samples hold {present} of the network's {classes} classes"
        why = "images sorted by class, or too few" if more else "the data set has no more"
        return Finding("P15", "WARN", f"{told}: {why}{more}", present)
    told = f"the {n} samples hold all {classes} classes"
    if len(population) == classes:
        known = torch.tensor(population, dtype=torch.float64)
        moved = float((counts / n - known / known.sum()).abs().sum() / 2)
        if moved > MOVED and _differ(counts, known) and _differ(counts, torch.ones(classes)):
            told = f"{told}, but in other shares than the data set ({100 * moved:.0f} % would have to change class)"
            return Finding("P15", "WARN", f"{told}: images sorted by class?{more}", moved)
    return Finding("P15", "OK", told, present)


def _differ(counts: Tensor, shares: Tensor) -> bool:
    """Whether counts are of other shares, beyond chance."""
    expected = shares.double() / shares.sum() * counts.sum()
    return float(chisquare(counts.numpy(), expected.numpy()).pvalue) < OTHER_SHARES


def budget_sanity(look: Look, attacks: Sequence[Attack], shape: tuple[int, ...] = ()) -> Finding:
    """P12."""
    planned = [Planned(one, (one.eps,) if isinstance(one, BudgetAttack) else ()) for one in attacks]
    problems = budget_warnings(planned, shape) if shape else []
    problems += [told for attack in attacks if (told := _step(attack) or _size(attack))]
    if problems:
        return Finding("P12", "WARN", "; ".join(dict.fromkeys(problems)), len(problems))
    return Finding("P12", "OK", "budgets and steps fit each other")


def _step(attack: Attack) -> str:
    eps, step, steps = (getattr(attack, name, None) for name in ("eps", "step_size", "steps"))
    if not eps or step is None or steps is None or not isinstance(attack, BudgetAttack):
        return ""
    if steps * step < eps:
        return f"{label(attack)}: {steps} steps of {step} cannot reach eps {eps}"
    return f"{label(attack)}: a step of {step} is more than twice eps {eps}" if step > 2 * eps else ""


def _size(attack: Attack) -> str:
    if not isinstance(attack, BudgetAttack):
        return ""
    if attack.eps == 0:
        return f"{label(attack)}: a budget of 0 changes nothing"
    if isinstance(attack.norm, Linf) and attack.eps < HALF_A_LEVEL:
        return f"{label(attack)}: eps {attack.eps} is below half a grey level; was it divided by 255 twice?"
    return ""


PREFLIGHT: tuple[Preflight, ...] = (
    eval_mode,
    input_range,
    probabilities,
    saturation,
    randomised,
    batch_dependence,
    broken_graph,
    zero_gradients,
    gradient_inside,
    few_classes,
    clean_accuracy,
)
"""P1 to P11; P12 needs the images' shape beside."""


def preflight(look: Look, attacks: Sequence[Attack], shape: tuple[int, ...]) -> list[Finding]:
    """P1 to P12: of a randomised model without P6, of one without gradients without P8.

    Args:
        look: what was seen.
        attacks: each with its budget.
        shape: (c, h, w) of an image.
    """
    chaotic = randomised(look, attacks).level != "OK"
    left_out: dict[Preflight, bool] = {batch_dependence: chaotic, zero_gradients: bool(look.broken)}
    found = [check(look, attacks) for check in PREFLIGHT if not left_out.get(check)]
    return [*found, budget_sanity(look, attacks, shape)]
