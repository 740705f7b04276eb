"""The clean predictions of a checkpoint, which all its attacks start from."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from robustcli.config import EvalSpec
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.outcome import Work, predict_samples
from robustcli.engine.samples import Samples, SampleSource
from robustcli.measure.journal import CacheJournal


def predict_clean(
    model: nn.Module, samples: Samples | SampleSource, spec: EvalSpec, journal: CacheJournal | None, eot: int = 1
) -> tuple[Tensor, Work]:
    """The clean predictions (n,), and what was spent on them; those that are known are not made again.

    Of a randomised model they are those of the mean logits of `eot` passes, as those after the attack are.
    """
    n = len(samples)
    pred, known, before = (
        journal.predictions(eot) if journal else (torch.zeros(n).long(), torch.zeros(n).bool(), Work())
    )
    missing = (~known).nonzero()[:, 0]
    if len(missing):
        here = missing.to(samples.y.device)
        started = time.perf_counter()
        with frozen(model):
            meter = Meter(model, largest=int(samples.y.max()))
            found = predict_samples(meter, samples, spec.batch_size, eot, here).cpu()
        work = Work(time.perf_counter() - started, meter.forwards)
        pred[missing], before = found, before + work
        if journal:
            journal.keep_predictions(missing, found, samples.y[here].cpu(), work, eot)
    return pred.to(samples.y.device), before
