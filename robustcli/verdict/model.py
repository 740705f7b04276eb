"""The checks of a model before the run (P1 to P12): a few passes forward and back, made once for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustcli.attacks import label
from robustcli.attacks.base import Attack, BudgetAttack, passes_of
from robustcli.attacks.losses import Loss, cross_entropy, input_gradient, is_right, margin
from robustcli.attacks.norms import Linf
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Samples
from robustcli.errors import AttackError
from robustcli.measure.plan import Planned, budget_warnings
from robustcli.verdict.check import AUTOATTACK, CARLINI, PINTOR, Finding, When, check, scientific

PASSES = 5
FEW = 64
"""How many samples are inspected closely."""

MORE = 256
"""How many are classified."""

EXCESS = 1e-4
"""By how much pixels may miss [0, 1]: rounding."""

NO_PROBABILITY = 1e-5

ROUNDS_TO_ONE = 17.0
"""The margin from which a float32 softmax rounds to 1."""

SATURATED = 0.05

VANISHES = 100.0
"""The margin from which the softmax of the other classes underflows, and with it every gradient of the loss."""

SAME_LOGITS = 1e-4
BATCH_MOVES = 1e-3
BLIND = 0.5

FEW_AT_BOUNDS = 0.01
"""Of the pixels: so few may have no gradient by chance."""

HALF_A_LEVEL = 0.5 / 255
"""Rounded to 8 bits, an image of a smaller Linf ball is the one in its middle."""

LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": lambda logits, y: -margin(logits, y)}


@dataclass(frozen=True)
class Inspection:
    """What a few passes say of a model, and the attacks that are to run on it.

    Attributes:
        in_train_mode: modules that came in train mode.
        samples, logits: n samples, and (n, classes) of one pass.
        few: the m samples that were inspected closely.
        passes: PASSES times (m, classes), of these.
        alone: (m, classes), each of them in a batch of its own; None where that fails.
        gradients: by loss, (m, c, h, w); None where there is none, and `broken` says why.
        autograd_calls: how often autograd was called inside a forward pass.
        attacks: each with its budget.
    """

    when: ClassVar[When] = "preflight"

    in_train_mode: tuple[str, ...]
    samples: Samples
    logits: Tensor
    few: Samples
    passes: tuple[Tensor, ...]
    alone: Tensor | None
    gradients: dict[str, Tensor | None]
    broken: str
    autograd_calls: int
    attacks: tuple[Attack, ...]

    @property
    def classes(self) -> int:
        """How many logits a sample has."""
        return self.logits.shape[1]

    @property
    def right(self) -> Tensor:
        """(n,) bool, whether a sample is classified right."""
        return is_right(self.logits, self.samples.y)

    @property
    def spread(self) -> float:
        """How far the passes are apart, in L2 of normalised logits."""
        unit = [F.normalize(logits, dim=1) for logits in self.passes]
        return max(float((other - unit[0]).norm(dim=1).max()) for other in unit[1:])

    @property
    def randomised(self) -> bool:
        """Whether the same image gets other logits from pass to pass."""
        counts = {int(is_right(logits, self.few.y).sum()) for logits in self.passes}
        return len(counts) > 1 or self.spread > SAME_LOGITS


def inspect_model(model: nn.Module, samples: Samples, attacks: Sequence[Attack] = ()) -> Inspection:
    """Inspect a model by at most MORE of its samples, in eval mode; it is handed back as it was.

    Raises:
        AttackError: the model returned no usable logits.
    """
    in_train_mode = tuple(name or "the model" for name, module in model.named_modules() if module.training)
    more = samples[spread_over(len(samples), MORE)]
    few = more[spread_over(len(more), FEW)]
    with frozen(model), torch.random.fork_rng(devices=[]):  # a randomised model draws; the run must not notice
        meter = Meter(model, largest=int(samples.y.max()) if len(samples) else -1)
        with _counted_autograd() as calls:
            first = meter.exact(few.x).detach()
        with torch.no_grad():
            passes = (first, *(meter.exact(few.x) for _ in range(PASSES - 1)))
            logits = torch.cat([meter.exact(chunk) for chunk in torch.split(more.x, FEW)])
            alone = _alone(meter, few.x)
        gradients, broken = _gradients(meter, few)
    return Inspection(
        in_train_mode=in_train_mode,
        samples=more,
        logits=logits,
        few=few,
        passes=passes,
        alone=alone,
        gradients=gradients,
        broken=broken,
        autograd_calls=len(calls),
        attacks=tuple(attacks),
    )


def spread_over(n: int, count: int) -> Tensor:
    """At most `count` of n indices, evenly spread: stored images may be sorted by class."""
    return torch.linspace(0, max(0, n - 1), min(n, count)).round().long()


def _alone(meter: Meter, x: Tensor) -> Tensor | None:
    try:
        return torch.cat([meter.exact(image[None]) for image in x])
    except (RuntimeError, ValueError):  # such as a batch norm in train mode, which refuses a batch of one
        return None


def _gradients(meter: Meter, samples: Samples) -> tuple[dict[str, Tensor | None], str]:
    found: dict[str, Tensor | None] = {}
    broken = ""
    for name, loss in LOSSES.items():
        try:
            found[name] = input_gradient(meter.exact, loss, samples.x, samples.y)[0]
        except AttackError as error:
            found[name], broken = None, str(error.__cause__ or error).splitlines()[0]
    return found, broken


@contextmanager
def _counted_autograd() -> Iterator[list[str]]:
    """A list that each call of autograd is written to, as AutoAttack's `check_dynamic` counts them."""
    calls: list[str] = []
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counting(name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return originals[name](*arguments, **options)

        return called

    try:
        for name in originals:
            setattr(torch.autograd, name, counting(name))
        yield calls
    finally:
        for name, original in originals.items():
            setattr(torch.autograd, name, original)


@check(
    "P1",
    "eval mode",
    "a module is in train mode: measured in eval mode",
    level="WARN",
    source="RobustBench",
)
def eval_mode(inspection: Inspection) -> Finding:
    """Whether the model came in eval mode."""
    found = inspection.in_train_mode
    if not found:
        return Finding("OK", "the model came in eval mode")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Finding("WARN", f"{found[0]}{more} came in train mode; measured in eval mode", len(found))


@check(
    "P2",
    "input range",
    f"a pixel lies below -{scientific(EXCESS)} or above 1 + {scientific(EXCESS)}: normalisation belongs into the model",
    level="INVALID",
    source="ours",
)
def input_range(inspection: Inspection) -> Finding:
    """Whether pixels lie in [0, 1]."""
    low, high = float(inspection.samples.x.min()), float(inspection.samples.x.max())
    excess = max(-low, high - 1)
    message = f"pixels from {low:g} to {high:g}"
    if excess <= EXCESS:
        return Finding("OK", message)
    return Finding("INVALID", f"{message}: put the normalisation inside the model", excess)


@check(
    "P3",
    "probabilities given",
    f"all outputs in [0, 1] and every row's sum 1, within {scientific(NO_PROBABILITY)}",
    level="WARN",
    source=AUTOATTACK,
)
def probabilities(inspection: Inspection) -> Finding:
    """Whether the model returns probabilities."""
    logits = inspection.logits
    off = float((logits.sum(1) - 1).abs().max())
    if logits.max() < 1 + NO_PROBABILITY and logits.min() > -NO_PROBABILITY and off < NO_PROBABILITY:
        message = "the model returns probabilities: attacks on the cross-entropy are weakened; return logits"
        return Finding("WARN", message, off)
    return Finding("OK", "the outputs are no probabilities")


@check(
    "P4",
    "saturation",
    f"share of the correct points with a cross-entropy of exactly 0 or a margin above {ROUNDS_TO_ONE:g}: INFO above "
    f"{100 * SATURATED:g} %; WARN where the median margin is above {VANISHES:g}, at which float32 gradients vanish",
    level="WARN",
    source=f"{CARLINI}; ours",
)
def saturation(inspection: Inspection) -> Finding:
    """Whether the loss is flat: vanilla nets have 0 to 70 % of their points above 17, so that alone is no fault."""
    logits, y = inspection.logits[inspection.right], inspection.samples.y[inspection.right]
    if not len(y):
        return Finding("OK", "no point is right")
    margins = margin(logits, y)
    share = float(((cross_entropy(logits.float(), y) == 0) | (margins > ROUNDS_TO_ONE)).double().mean())
    middle = float(margins.median())
    if middle > VANISHES:
        message = f"the median margin is {middle:.3g}: logits are scaled so high that the cross-entropy has no gradient"
        return Finding("WARN", f"{message}; attack with apgd:loss=dlr", middle)
    message = f"{100 * share:.0f} % of the correct points are saturated"
    return Finding("INFO" if share > SATURATED else "OK", message, share)


@check(
    "P5",
    "randomised model",
    f"over {PASSES} passes the number of correct points differs, or normalised logits differ by more than "
    f"{scientific(SAME_LOGITS)} in L2",
    level="WARN",
    source=AUTOATTACK,
    bars=True,
)
def randomised(inspection: Inspection) -> Finding:
    """Whether the same image gets the same logits."""
    if not inspection.randomised:
        return Finding("OK", "the same image gets the same logits", inspection.spread)
    averaged = [passes_of(attack) for attack in inspection.attacks if attack.needs == "gradients"]
    if not averaged:
        return Finding("INFO", "the model answers at random; no attack takes a gradient of it", inspection.spread)
    if min(averaged) >= 20:
        message = "the model answers at random; gradients are averaged over 20 passes or more"
        return Finding("INFO", message, inspection.spread)
    message = (
        "the model answers the same image differently: dropout or an augmentation such as BatchOut was left on, or it "
        "is randomised by design; attack it with --eot 20 or more"
    )
    return Finding("WARN", message, inspection.spread)


@check(
    "P6",
    "batch dependence",
    f"logits of an image alone and in a batch differ by more than {scientific(BATCH_MOVES)} max(1, abs(logit)); where "
    "P5 passed",
    level="INVALID",
    source="ours",
)
def batch_dependence(inspection: Inspection) -> Finding | None:
    """Whether an image's logits depend on the others of its batch; of a randomised model that cannot be seen."""
    if inspection.randomised:
        return None
    message = "logits depend on the other images of the batch: a batch norm or an augmentation ignores eval mode"
    if inspection.alone is None:
        return Finding("INVALID", f"an image alone is refused: {message}")
    batch = inspection.passes[0]
    over = float(((inspection.alone - batch).abs() / (BATCH_MOVES * batch.abs().clamp_min(1))).max())
    if over <= 1:
        return Finding("OK", "an image alone gets the logits that it gets in a batch", over * BATCH_MOVES)
    return Finding("INVALID", f"{message} (they move by {over * BATCH_MOVES:.2g})", over * BATCH_MOVES)


@check(
    "P7",
    "broken graph",
    "the loss has no gradient with respect to the image, or asking for it fails, and an attack needs it",
    level="INVALID",
    source=PINTOR,
)
def broken_graph(inspection: Inspection) -> Finding:
    """Whether there is a gradient, where an attack needs one."""
    if not inspection.broken:
        return Finding("OK", "the loss has a gradient with respect to the image")
    needing = [attack.name for attack in inspection.attacks if attack.needs == "gradients"]
    message = f"the model passes no gradient to its images ({inspection.broken})"
    if not needing:
        return Finding("INFO", f"{message}; no attack needs one")
    return Finding("INVALID", f"{message}: {', '.join(dict.fromkeys(needing))} cannot attack it; try square")


@check(
    "P8",
    "zero gradients",
    "a correct point's gradient is 0 or not finite, or none reaches the pixels at 0 and 1: WARN from one on; SUSPECT "
    "where under every loss that the gradient attacks use more than half of the points have none",
    level="SUSPECT",
    source=f"{AUTOATTACK}; {PINTOR}; ours",
)
def zero_gradients(inspection: Inspection) -> Finding | None:
    """Whether correct points have a gradient that an attack can use."""
    if inspection.broken:
        return None
    right = is_right(inspection.passes[0], inspection.few.y)
    gradients = {name: gradient for name, gradient in inspection.gradients.items() if gradient is not None}
    shares = {name: _without(gradient, right) for name, gradient in gradients.items()}
    used = {loss for attack in inspection.attacks for loss in attack.losses} & shares.keys()
    each = ", ".join(f"{100 * share:.0f} % under the {name}" for name, share in shares.items())
    worst, least = max(shares.values(), default=0.0), min((shares[name] for name in used), default=0.0)
    at_bounds = (inspection.few.x == 0) | (inspection.few.x == 1)
    share = float(at_bounds.double().mean())
    blocked = share > FEW_AT_BOUNDS and not any(gradient[at_bounds].any() for gradient in gradients.values())
    if blocked and worst < 1 and least <= BLIND:
        message = f"no pixel at 0 or 1, {100 * share:.0f} % of all, has a gradient: is there a clamp? take it out"
        return Finding("WARN", message, share)
    if worst == 0:
        return Finding("OK", "every correct point has a gradient", 0.0)
    message = f"correct points without a usable gradient: {each}"
    if least <= BLIND:
        return Finding("WARN", f"{message}; some attacks are blind there", worst)
    cause = (
        "logits scaled too high: attack with apgd:loss=dlr"
        if shares.get("margin", 1.0) <= BLIND
        else "a rounding, quantisation or gradient-stopping layer: use square, or differentiate through it (BPDA)"
    )
    return Finding("SUSPECT", f"{message}; {cause}", least)


def _without(gradient: Tensor, right: Tensor) -> float:
    """The share of the correct points whose gradient is 0 or not finite."""
    flat = gradient.flatten(1)[right]
    return float(((flat.abs().sum(1) == 0) | ~flat.isfinite().all(1)).double().mean()) if len(flat) else 0.0


@check(
    "P9",
    "gradient inside forward",
    "autograd is called while the model predicts",
    level="WARN",
    source=AUTOATTACK,
    bars=True,
)
def gradient_inside(inspection: Inspection) -> Finding:
    """Whether the model takes gradients while it predicts."""
    if not inspection.autograd_calls:
        return Finding("OK", "a forward pass takes no gradient")
    message = (
        "the model takes gradients while it predicts (test-time optimisation): only an adaptive attack can judge it"
    )
    return Finding("WARN", message, inspection.autograd_calls)


@check(
    "P10",
    "few classes",
    "fewer than 4 classes: not every loss can be had",
    level="INFO",
    source=AUTOATTACK,
)
def few_classes(inspection: Inspection) -> Finding:
    """Whether there are classes enough for each loss."""
    classes = inspection.classes
    if classes > 3:
        return Finding("OK", f"{classes} classes", classes)
    lost = "DLR" if classes < 3 else "targeted DLR"
    return Finding("INFO", f"{classes} classes: the margin takes the place of {lost}", classes)


@check(
    "P11",
    "clean accuracy",
    "below 2 in K (K > 2), or no more than the largest class's share + 2 standard errors",
    level="WARN",
    source=f"{CARLINI}; ours",
    bars=True,
)
def clean_accuracy(inspection: Inspection) -> Finding:
    """Whether the model is better than chance."""
    y, n, classes = inspection.samples.y, len(inspection.samples), inspection.classes
    accuracy = float(inspection.right.double().mean())
    share = float(torch.bincount(y, minlength=classes).max()) / n
    chance = share + 2 * math.sqrt(share * (1 - share) / n)
    message = f"clean accuracy {100 * accuracy:.1f} % on {n} sample{'s' * (n != 1)}"
    if share == 1:
        return Finding("WARN", f"{message} of one class: a network that always says this class has 100 %", accuracy)
    if accuracy <= chance or (classes > 2 and accuracy < 2 / classes):
        return Finding("WARN", f"{message} is near chance: wrong weights, labels or preprocessing?", accuracy)
    return Finding("OK", message, accuracy)


@check(
    "P12",
    "budget sanity",
    "a budget of 0, or in Linf below half a grey level; an L2 or L1 budget of Linf size; steps x step_size below eps; "
    "a step above 2 eps",
    level="WARN",
    source="ours",
    bars=True,
)
def budget_sanity(inspection: Inspection) -> Finding:
    """Whether budgets and steps fit each other and the images."""
    planned = [Planned(one, (one.eps,) if isinstance(one, BudgetAttack) else ()) for one in inspection.attacks]
    problems = budget_warnings(planned, tuple(inspection.samples.x.shape[1:]))
    problems += [problem for attack in inspection.attacks if (problem := _problem(attack))]
    if problems:
        return Finding("WARN", "; ".join(dict.fromkeys(problems)), len(problems))
    return Finding("OK", "budgets and steps fit each other")


def _problem(attack: Attack) -> str:
    if not isinstance(attack, BudgetAttack):
        return ""
    name, eps = label(attack), attack.eps
    if eps == 0:
        return f"{name}: a budget of 0 changes nothing"
    step, steps = getattr(attack, "step_size", None), getattr(attack, "steps", None)
    if step is not None and steps is not None:
        if steps * step < eps:
            return f"{name}: {steps} steps of {step} cannot reach eps {eps}"
        if step > 2 * eps:
            return f"{name}: a step of {step} is more than twice eps {eps}"
    if isinstance(attack.norm, Linf) and eps < HALF_A_LEVEL:
        return f"{name}: eps {eps} is below half a grey level; was it divided by 255 twice?"
    return ""
