"""The one driver: it owns what every attack would otherwise do badly.

Eval mode and frozen parameters, chunks, the active set, counting, progress, and the check of each result.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack, SweepingAttack, TracingAttack
from robustcli.attacks.convolutions import quick_convolutions
from robustcli.attacks.facts import needs
from robustcli.attacks.guards import Meter, frozen
from robustcli.attacks.losses import Model
from robustcli.attacks.outcome import Board, Journal, Outcome, Samples, Work, chunks_of, predict, split_evenly
from robustcli.errors import AttackError
from robustcli.noise import Noise

__all__ = ["Outcome", "Progress", "Samples", "predict", "run_attack", "split_evenly", "stream_attack"]

Progress = Callable[[int], None]
"""Told how many more samples are finished."""


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
    on_progress: Progress = lambda _: None,
    journal: Journal | None = None,
) -> list[Outcome]:
    """Attack the samples that the model gets right, and measure what is left.

    A sample that was wrong before is not attacked and stays wrong. Draws are keyed by the samples' ids, so the result
    does not depend on `batch_size` or on what is attacked beside a sample.

    Args:
        model: returns logits; measured in eval mode, and handed back as it was.
        attack: any attack.
        samples: what to attack.
        budgets: for a budget attack, one outcome each; without any, its own eps. An ensemble has one for each of its
            members too, and the worst case is the last.
        seed: of the attack's draws.
        batch_size: samples a chunk, twice as many for an attack without gradients; it changes speed and memory only.
        pred: (n,) the model's clean predictions, where they are known already.
        keep_images: keep `Outcome.x_adv`.
        dtype: of the model's activations while images are made (autocast). They are judged without it, and a sample
            that only the rounding broke is attacked again without it. A minimal-norm attack, whose images lie where
            rounding decides, never has it.
        on_progress: called with the number of samples that are finished, n for each outcome in all.
        journal: what remembers samples from one run to the next: what it knows is not computed again, nor told as
            progress, and it is told each chunk as it is done.

    Raises:
        AttackError: the attack left its ball or the box, or the model returned no usable logits.
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
    on_progress: Progress = lambda _: None,
    journal: Journal | None = None,
) -> Iterator[Outcome]:
    """`run_attack`, an outcome as soon as it is there: those of an ensemble's members come one by one."""
    variants = _variants(attack, budgets)
    if any(module.training for module in model.modules()):
        warnings.warn("the model is in train mode; it is measured in eval mode", stacklevel=3)
    with frozen(model), quick_convolutions(model):
        meter = Meter(model, dtype)
        started = Work.until_now(meter)
        if pred is None:
            pred = predict(meter.exact, samples.x, batch_size)
        run = _Run(meter, samples, pred, seed, batch_size, keep_images, on_progress, journal)
        ensembles = [variant for variant in variants if isinstance(variant, Ensemble)]
        if not ensembles:
            yield from run.together(variants, started)
        for ensemble in ensembles:
            yield from run.members(ensemble, started)
            started = Work.until_now(meter)


def _variants(attack: Attack, budgets: Sequence[float]) -> list[Attack]:
    if budgets and not isinstance(attack, BudgetAttack):
        raise AttackError(f"{attack.name} takes no budget")
    return [replace(attack, eps=eps) for eps in budgets] if budgets else [attack]  # type: ignore[type-var]


@dataclass(frozen=True)
class _Run:
    """A run's model, samples and settings; see `run_attack`."""

    meter: Meter
    samples: Samples
    pred: Tensor
    seed: int
    batch_size: int
    keep_images: bool
    on_progress: Progress
    journal: Journal | None

    def together(self, variants: Sequence[Attack], started: Work) -> list[Outcome]:
        """One attack at several budgets, chunk by chunk."""
        boards = [self._board(variant) for variant in variants]
        began = time.perf_counter()
        groups = self._alike(boards)
        started += Work(time.perf_counter() - began)
        for group, unknown in groups:
            active = unknown[group[0].clean[unknown]]
            self.on_progress((len(unknown) - len(active)) * len(group))
            told = Work().split(len(group))
            for index, span in chunks_of(active, unknown, self._chunk(group[0].attack)):
                self._attack_chunk(group, index, self._noise(index, group[0].attack))
                done = (Work.until_now(self.meter) - started).split(len(group))
                started += self._keep(group, span, [now - before for now, before in zip(done, told, strict=True)])
                told = done
            if not len(unknown) and self.journal is None:
                told = (Work.until_now(self.meter) - started).split(len(group))
            for board, share in zip(group, told, strict=True):
                board.spent += share
            started = Work.until_now(self.meter)
        return [board.outcome(Work()) for board in boards]

    def _alike(self, boards: Sequence[Board]) -> list[tuple[list[Board], Tensor]]:
        """The boards in groups that lack the same samples, with these: their work can be shared."""
        groups: dict[tuple[bool, ...], tuple[list[Board], Tensor]] = {}
        for board in boards:
            known = self._recall(board)
            groups.setdefault(tuple(known.tolist()), ([], (~known).nonzero()[:, 0]))[0].append(board)
        return list(groups.values())

    def members(self, ensemble: Ensemble, started: Work) -> Iterator[Outcome]:
        """Each member on what those before it left standing; all work is the members'."""
        board = self._board(ensemble)
        for i, member in enumerate(ensemble.members):
            began = time.perf_counter()
            unknown = (~self._recall(board, i)).nonzero()[:, 0]
            started += Work(time.perf_counter() - began)
            standing = unknown[board.robust[unknown]]
            self.on_progress(len(unknown) - len(standing))
            told = Work()
            for index, span in chunks_of(standing, unknown, self._chunk(member)):
                if len(index):
                    chunk, noise = self.samples[index], self._noise(index, ensemble).stream(f"attempt {i}")
                    self._judge(
                        board, member, index, member.perturb(self._model(member), chunk.x, chunk.y, noise), noise
                    )
                    self.on_progress(len(index))
                done = Work.until_now(self.meter) - started
                started += self._keep([board], span, [done - told], i)
                told = done
            yield board.outcome(told, member)
            started, board.spent = Work.until_now(self.meter), Work()
        self.on_progress(len(self.samples))
        yield board.outcome(Work())

    def _board(self, attack: Attack) -> Board:
        return Board(self.samples, self.pred, attack, self.keep_images, self.journal.pictures if self.journal else 0)

    def _recall(self, board: Board, member: int | None = None) -> Tensor:
        if self.journal is None:
            return torch.zeros_like(board.clean)
        return self.journal.recall(board, member)

    def _keep(self, boards: Sequence[Board], span: Tensor, shares: Sequence[Work], member: int | None = None) -> Work:
        """Tell the journal; what that took, which is no work of the attack's."""
        if self.journal is None:
            return Work()
        began = time.perf_counter()
        self.journal.keep(boards, span, shares, member)
        return Work(time.perf_counter() - began)

    def _chunk(self, attack: Attack) -> int:
        """How many samples at once: twice as many for an attack that keeps no graph for a way back."""
        return self.batch_size * (1 if needs(attack) == "gradients" else 2)

    def _noise(self, index: Tensor, attack: Attack) -> Noise:
        return Noise(self.seed, self.samples.ids[index]).stream(attack.name)

    def _attack_chunk(self, boards: list[Board], index: Tensor, noise: Noise) -> None:
        """Fill the boards' rows `index` with what the attack does to these samples."""
        attack, chunk = boards[0].attack, self.samples[index]
        if not len(chunk):  # Nothing was right before; many models cannot flatten an empty batch.
            return
        if isinstance(attack, TracingAttack):
            boards[0].follow(self.meter, chunk, index, attack.trace(self.meter.exact, chunk.x, chunk.y, noise))
            self.on_progress(len(chunk))
            return
        if isinstance(attack, SweepingAttack):
            budgets = [board.attack.eps for board in boards if isinstance(board.attack, BudgetAttack)]
            images = attack.sweep(self.meter, chunk.x, chunk.y, noise, budgets)
        else:
            images = (board.attack.perturb(self._model(attack), chunk.x, chunk.y, noise) for board in boards)
        for board, x_adv in zip(boards, images, strict=True):
            self._judge(board, board.attack, index, x_adv, noise)
            self.on_progress(len(chunk))

    def _model(self, attack: Attack) -> Model:
        return self.meter.exact if isinstance(attack, MinimalAttack) else self.meter

    def _judge(self, board: Board, attack: Attack, index: Tensor, x_adv: Tensor, noise: Noise) -> None:
        """Record the images of the samples `index`; what only rounding broke is attacked once more, without it."""
        chunk = self.samples[index]
        board.record(self.meter, chunk, index, x_adv, attack)
        if not self.meter.rounded or isinstance(attack, MinimalAttack):
            return
        claimed = predict(self.meter, x_adv, len(x_adv)) != chunk.y
        again = (claimed & board.robust[index]).nonzero()[:, 0]
        if len(again):
            part = chunk[again]
            x_adv = attack.perturb(self.meter.exact, part.x, part.y, noise[again])
            board.record(self.meter, part, index[again], x_adv, attack)
