"""The one driver: it owns what every attack would otherwise do badly.

Eval mode and frozen parameters, chunks, the active set, counting, progress, and the check of each result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, at_budgets, passes_of
from robustcli.engine.chunks import Run
from robustcli.engine.convolutions import quick_convolutions
from robustcli.engine.guard import Meter, frozen, require_module
from robustcli.engine.inputs import checked
from robustcli.engine.outcome import Journal, Outcome, Samples, Work, predict, split_evenly
from robustcli.engine.progress import Forecast, Progress
from robustcli.errors import AttackError

__all__ = ["Outcome", "Progress", "Samples", "predict", "run_attack", "split_evenly", "stream_attack"]


def run_attack(
    model: nn.Module,
    attack: Attack,
    samples: Samples,
    *,
    budgets: Sequence[float] = (),
    seed: int = 0,
    batch_size: int = 128,
    pred: Tensor | None = None,
    keep_images: bool = False,
    dtype: torch.dtype = torch.float32,
    on_progress: Progress = lambda done, spared: None,
    journal: Journal | None = None,
    eot: int = 1,
) -> list[Outcome]:
    """Attack the samples that the model gets right, and measure what is left.

    A sample that was wrong before is not attacked and stays wrong. Draws are keyed by the samples' ids, so the result
    does not depend on `batch_size` or on what is attacked beside a sample.

    Args:
        model: returns logits, or what `logits_of` finds them in; measured in eval mode, and handed back as it was.
        attack: any attack.
        samples: what to attack.
        budgets: for a budget attack, one outcome each; without any, its own eps. An ensemble has one for each of its
            members too, and the worst case is the last.
        seed: of the attack's draws.
        batch_size: samples a chunk; twice as many without gradients, and two chunks at once on the CPU with them. It
            changes speed and memory only.
        pred: (n,) the model's clean predictions, where they are known already.
        keep_images: keep `Outcome.x_adv`.
        dtype: of the model's activations while images are made (autocast). They are judged without it, and a sample
            that only the rounding broke is attacked again without it. A minimal-norm attack, whose images lie where
            rounding decides, never has it.
        on_progress: called with what was worked off and what turned out to need no work, in samples and parts of one,
            from time to time and as chunks are finished; both add up to n for each outcome.
        journal: what remembers samples from one run to the next: what it knows is not computed again, and it is told
            each chunk as it is done.
        eot: passes that each prediction of a randomised model is averaged over; an attack's own, where those are more.

    Raises:
        AttackError: the attack left its ball or the box, the model returned no usable logits, or the samples are no
            images in [0, 1] with classes of the model and an id each.
        OutOfMemoryError: the model needs more memory than there is.
    """
    return list(
        stream_attack(
            model,
            attack,
            samples,
            budgets=budgets,
            seed=seed,
            batch_size=batch_size,
            pred=pred,
            keep_images=keep_images,
            dtype=dtype,
            on_progress=on_progress,
            journal=journal,
            eot=eot,
        )
    )


def stream_attack(
    model: nn.Module,
    attack: Attack,
    samples: Samples,
    *,
    budgets: Sequence[float] = (),
    seed: int = 0,
    batch_size: int = 128,
    pred: Tensor | None = None,
    keep_images: bool = False,
    dtype: torch.dtype = torch.float32,
    on_progress: Progress = lambda done, spared: None,
    journal: Journal | None = None,
    eot: int = 1,
) -> Iterator[Outcome]:
    """`run_attack`, an outcome as soon as it is there: those of an ensemble's members come one by one."""
    require_module(model)
    variants, samples, eot = _variants(attack, budgets), checked(samples), max(eot, passes_of(attack))
    if torch.is_inference_mode_enabled():
        raise AttackError("torch.inference_mode is on, and allows no gradients; torch.no_grad does no harm")
    if batch_size < 1:
        raise AttackError(f"batch_size is {batch_size}; should be at least 1")
    if pred is not None and pred.shape != samples.y.shape:
        raise AttackError(f"pred has the shape {tuple(pred.shape)}; should be {tuple(samples.y.shape)}")
    if any(getattr(module, "training", False) for module in model.modules()):
        warnings.warn("the model is in train mode; it is measured in eval mode", stacklevel=3)
    with frozen(model), quick_convolutions(model):
        meter = Meter(model, dtype, largest=int(samples.y.max()) if len(samples) else -1)
        started = Work.until_now(meter)
        if pred is None:
            pred = predict(meter.exact, samples.x, batch_size, eot)
        run = Run(meter, samples, pred, seed, batch_size, keep_images, Forecast(on_progress, meter), journal, eot)
        ensembles = [variant for variant in variants if isinstance(variant, Ensemble)]
        if not ensembles:
            yield from run.together(variants, started)
        for ensemble in ensembles:
            yield from run.members(ensemble, started)
            started = Work.until_now(meter)


def _variants(attack: Attack, budgets: Sequence[float]) -> list[Attack]:
    if budgets and not isinstance(attack, BudgetAttack):
        raise AttackError(f"{attack.name} takes no budget")
    return at_budgets(attack, budgets)
