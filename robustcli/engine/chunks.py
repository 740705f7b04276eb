"""A run of an attack, chunk by chunk: what of the samples is attacked, at once or in turn, and judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack, SweepingAttack, TracingAttack
from robustcli.engine.guard import Meter
from robustcli.engine.outcome import Board, Journal, Outcome, Samples, Work, predict, split_evenly
from robustcli.engine.progress import Forecast
from robustcli.engine.threads import abreast, plan
from robustcli.noise import Noise


def chunks_of(active: Tensor, unknown: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples to attack in chunks, each with all samples that are finished with it: those between need no attack.

    Args:
        active: (k,) positions among `unknown`, in ascending order.
        unknown: (m,) positions in ascending order.
        batch_size: the most of a chunk; all are about as large, as a small one costs almost what a large one does.
    """
    if not len(active):
        if len(unknown):
            yield active, unknown
        return
    parts = torch.split(active, split_evenly(len(active), math.ceil(len(active) / batch_size)))
    start = -1
    for i, part in enumerate(parts):
        end = int(part[-1] if i + 1 < len(parts) else unknown[-1])
        yield part, unknown[(unknown > start) & (unknown <= end)]
        start = end


@dataclass(frozen=True)
class Run:
    """A run's model, samples and settings; see `run_attack`."""

    meter: Meter
    samples: Samples
    pred: Tensor
    seed: int
    batch_size: int
    keep_images: bool
    forecast: Forecast
    journal: Journal | None
    eot: int

    def together(self, variants: Sequence[Attack], started: Work) -> list[Outcome]:
        """One attack at several budgets, chunk by chunk."""
        boards = [self._board(variant) for variant in variants]
        began = time.perf_counter()
        groups = [(group, unknown, unknown[group[0].clean[unknown]]) for group, unknown in self._alike(boards)]
        self.forecast.start(len(self.samples) * len(boards), 1, [variants[0].cost])
        self.forecast.enter(0, sum(len(active) * len(group) for group, _, active in groups))
        started += Work(time.perf_counter() - began)
        for group, unknown, active in groups:
            told = Work().split(len(group))
            for span in self._attacked(group, active, unknown):
                done = (Work.until_now(self.meter) - started).split(len(group))
                started += self._keep(group, span, [now - before for now, before in zip(done, told, strict=True)])
                told = done
            if not len(unknown) and self.journal is None:
                told = (Work.until_now(self.meter) - started).split(len(group))
            for board, share in zip(group, told, strict=True):
                board.spent += share
            started = Work.until_now(self.meter)
        self.forecast.end()
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
        self.forecast.start(len(self.samples), len(ensemble.members) + 1, [member.cost for member in ensemble.members])
        for i, member in enumerate(ensemble.members):
            began = time.perf_counter()
            unknown = (~self._recall(board, i)).nonzero()[:, 0]
            started += Work(time.perf_counter() - began)
            standing = unknown[board.robust[unknown]]
            self.forecast.enter(i, len(standing), int(board.robust.sum()) - len(standing))
            told = Work()
            stream = partial(self._noise, attack=ensemble, stream=f"attempt {i}")
            for span in self._chunk_by_chunk([(board, member)], standing, unknown, stream):
                done = Work.until_now(self.meter) - started
                started += self._keep([board], span, [done - told], i)
                told = done
            yield board.outcome(told, member)
            started, board.spent = Work.until_now(self.meter), Work()
        self.forecast.end()
        yield board.outcome(Work())

    def _board(self, attack: Attack) -> Board:
        pictures = self.journal.pictures if self.journal else 0
        return Board(self.samples, self.pred, attack, self.keep_images, pictures, self.eot)

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

    def _noise(self, index: Tensor, attack: Attack, stream: str = "") -> Noise:
        noise = Noise(self.seed, self.samples.ids[index]).stream(attack.name)
        return noise.stream(stream) if stream else noise

    def _attacked(self, group: list[Board], active: Tensor, unknown: Tensor) -> Iterator[Tensor]:
        """Fill the boards with what the attack does; which samples `unknown` (k,) are finished, chunk by chunk."""
        attack = group[0].attack
        noise = partial(self._noise, attack=attack)
        if not isinstance(attack, TracingAttack | SweepingAttack):
            yield from self._chunk_by_chunk([(board, board.attack) for board in group], active, unknown, noise)
            return
        for index, span in chunks_of(active, unknown, self.batch_size):
            if len(index):  # many models cannot flatten an empty batch
                self._follow_or_sweep(group, index, noise(index))
            yield span

    def _follow_or_sweep(self, group: list[Board], index: Tensor, noise: Noise) -> None:
        """The rows `index` of an attack whose images are judged as they come."""
        attack, chunk = group[0].attack, self.samples[index]
        if isinstance(attack, TracingAttack):
            group[0].follow(self.meter, chunk, index, attack.trace(self.meter.exact, chunk.x, chunk.y, noise))
            self.forecast.judge(len(chunk), 0)
        elif isinstance(attack, SweepingAttack):
            budgets = [board.attack.eps for board in group if isinstance(board.attack, BudgetAttack)]
            images = attack.sweep(self.meter, chunk.x, chunk.y, noise, budgets)
            for board, x_adv in zip(group, images, strict=True):
                self._judge(board, board.attack, index, x_adv, noise)
                self.forecast.judge(len(chunk), 0)

    def _chunk_by_chunk(
        self,
        rows: Sequence[tuple[Board, Attack]],
        active: Tensor,
        unknown: Tensor,
        noise: Callable[[Tensor], Noise],
    ) -> Iterator[Tensor]:
        """Judge what each row's attack makes of the samples `active`, and say which `unknown` ones are finished."""
        attack, k = rows[0][1], len(active)
        threads, size = 1, self.batch_size
        if attack.needs == "gradients":
            threads, size = plan(self.meter.model, self.samples.x.device, k, size)
        else:
            size *= 2  # there is no graph for a way back to keep
        chunks = list(chunks_of(active, unknown, size))
        tasks = [
            partial(self._images, row[1], index, noise(index)) for index, _ in chunks if len(index) for row in rows
        ]
        with closing(abreast(tasks, self.meter, threads)) as images:
            for index, span in chunks:
                for board, by in rows if len(index) else ():
                    self._judge(board, by, index, next(images), noise(index))
                    self.forecast.judge(len(index), int(board.robust[index].sum()))
                yield span

    def _images(self, attack: Attack, index: Tensor, noise: Noise, meter: Meter) -> Tensor:
        """What an attack makes of the samples `index`."""
        chunk = self.samples[index]
        return attack.perturb(meter.exact if isinstance(attack, MinimalAttack) else meter, chunk.x, chunk.y, noise)

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
