"""Images made on one model and evaluated on another; and the matrix of all models with each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import predict_samples
from robustcli.engine.run import Samples, run_attack
from robustcli.measure.evaluate import Result
from robustcli.measure.record import Record, Subject
from robustcli.measure.session import Session
from robustcli.measure.stats import wilson


def transfer(
    source: nn.Module,
    target: nn.Module,
    attack: Attack,
    samples: Samples,
    *,
    seed: int = 0,
    batch_size: int | ChunkSize = 128,
) -> tuple[Tensor, Tensor]:
    """What an attack on `source` does to `target` (Carlini et al. 2019, section 4.3).

    Where it breaks `target` more often than the same attack on `target` itself, that one's gradients hide something.
    What `source` gets wrong before the attack stays as it is.

    Returns:
        (n,) bool, whether `target` is right before, and (n,) bool, before and after.
    """
    outcome = run_attack(source, attack, samples, seed=seed, batch_size=batch_size, keep_images=True)[-1]
    assert outcome.x_adv is not None
    clean = right(target, samples.x, samples.y, batch_size)
    return clean, clean & right(target, outcome.x_adv.to(samples.x), samples.y, batch_size)


def right(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | ChunkSize = 128) -> Tensor:
    """(n,) bool on the CPU: whether the model takes the images `x` (n, c, h, w) for their classes `y` (n,)."""
    with frozen(model), torch.no_grad():
        return (predict_samples(Meter(model), Samples(x, y, y), batch_size) == y).cpu()


@dataclass(frozen=True)
class Transferred:
    """One cell of the matrix: a model evaluated on the images of a budget attack on another one, or on itself.

    Attributes:
        record: of the attack on the model that the images were made on; what it got wrong before stayed as it was.
        target: the model that was evaluated.
        robust: (n,) 1 where the target is right before and after.
    """

    record: Record
    target: Subject
    robust: tuple[int, ...]

    @property
    def source(self) -> Subject:
        """The model that the images were made on."""
        return self.record.subject

    def broken_beyond(self, own: Record) -> list[int]:
        """The ids of samples that withstood the target's `own` attack at that budget, and not these images.

        Carlini et al. 2019, section 4.3: an attack that sees the gradients should find what one does that does not.
        """
        assert (own.subject, own.setting, own.ids) == (self.target, self.record.setting, self.record.ids)
        flags = zip(own.ids, own.robust, self.robust, strict=True)
        return [sample for sample, stood, stands in flags if stood and not stands]

    def as_dict(self, own: Record | None) -> dict[str, Any]:
        """The cell as JSON holds it, with `broken_beyond` the target's own attack where that was finished."""
        n, correct = len(self.robust), sum(self.robust)
        return {
            "source": self.source.checkpoint,
            "target": self.target.checkpoint,
            **self.record.setting_as_dict(),
            "n": n,
            "correct": correct,
            "accuracy": correct / n if n else 0.0,
            "ci95": list(wilson(correct, n)),
            "broken_beyond": [] if own is None else self.broken_beyond(own),
            "ids": list(self.record.ids),
            "robust": list(self.robust),
        }


class Matrix:
    """Asks every model of a session about the images of each budget attack, as its results come; none are kept.

    Args:
        session: of several checkpoints on the same images, run with `keep_images`.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.cells: list[Transferred] = []
        self._clean: dict[tuple[Subject, tuple[int, ...]], Tensor] = {}

    @property
    def total(self) -> int:
        """How many samples `take` evaluates in all, clean ones too: in the unit of progress."""
        items = self.session.items
        runs = sum(planned.runs for item in items for planned in item.plan if planned.budgets)
        return (runs * (len(items) - 1) + len(items)) * len(items[0].images)

    def take(self, result: Result) -> Iterator[int]:
        """Fill in the cells of one result; yields how many more samples were evaluated."""
        outcome, record = result.outcome, result.record
        if record.ensemble is not None or record.kind == "minimal":
            return
        assert outcome.x_adv is not None
        for item in self.session.items:
            subject, robust = item.subject, record.robust
            if subject != record.subject:
                model, y = item.target.module.to(self.session.device), result.images.y.to(self.session.device)
                key = subject, record.ids  # a row that was cut short has fewer
                if key not in self._clean:
                    x = result.images.batch(slice(None), self.session.device)
                    self._clean[key] = right(model, x, y, self.session.chunk)
                    yield len(y)
                x_adv = outcome.x_adv.to(self.session.device)
                after = self._clean[key] & right(model, x_adv, y, self.session.chunk)
                robust = tuple(after.int().tolist())
                yield len(y)
            self.cells.append(Transferred(record, subject, robust))

    def as_dicts(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """The cells as JSON holds them; where the target's own record is missing, `broken_beyond` is empty."""
        own = {(record.subject, record.setting): record for record in records}
        return [cell.as_dict(own.get((cell.target, cell.record.setting))) for cell in self.cells]
