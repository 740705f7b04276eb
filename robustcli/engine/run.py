"""The one engine: it owns what every attack would otherwise do badly.

Eval mode and frozen parameters, chunks, the active set, counting, progress, and the check of each result.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import ParamSpec

import torch
from torch import Tensor, nn

from robustcli.attacks.base import (
    Attack,
    BudgetAttack,
    Ensemble,
    MinimalAttack,
    SweepingAttack,
    TracingAttack,
    at_budgets,
    passes_of,
)
from robustcli.engine.convolutions import quick_convolutions
from robustcli.engine.guard import Meter, frozen, require_module
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import (
    Journal,
    Outcome,
    OutcomeBuilder,
    Stopwatch,
    Work,
    predict,
    predict_samples,
    split_evenly,
)
from robustcli.engine.progress import Progress, ProgressTracker
from robustcli.engine.ranks import SharedJournal
from robustcli.engine.samples import Samples, SampleSource, check_samples, sample_size
from robustcli.engine.threads import plan_threads, run_in_threads
from robustcli.errors import AttackError
from robustcli.noise import Noise

__all__ = ["Outcome", "Progress", "Samples", "predict", "run_attack", "stream_attack"]

P = ParamSpec("P")

OnJudged = Callable[[Sequence[tuple[int, int]]], None]
"""Takes, for each outcome, how many samples stand of how many that are met; nothing as an attack begins."""


def stream_attack(
    model: nn.Module,
    attack: Attack,
    samples: Samples | SampleSource,
    *,
    budgets: Sequence[float] = (),
    seed: int = 0,
    batch_size: int | ChunkSize = 128,
    pred: Tensor | None = None,
    keep_images: bool = False,
    dtype: torch.dtype = torch.float32,
    on_progress: Progress = lambda done, spared: None,
    journal: Journal | None = None,
    eot: int = 1,
    shared: SharedJournal | None = None,
    on_judged: OnJudged = lambda _: None,
) -> Iterator[Outcome]:
    """Attack the samples that the model gets right, and measure what is left; `run_attack` returns a list.

    Each outcome comes as soon as it is there, those of an ensemble's members one by one.

    A sample that was wrong before is not attacked and stays wrong. Draws are keyed by the samples' ids, so the result
    does not depend on `batch_size` or on what is attacked beside a sample.

    Args:
        model: returns logits, or what `logits_of` finds them in; measured in eval mode, and handed back as it was.
        attack: any attack.
        samples: what to attack, whole or read chunk by chunk.
        budgets: for a budget attack, one outcome each; without any, its own eps. An ensemble has one for each of its
            members too, and the worst case is the last.
        seed: of the attack's draws.
        batch_size: samples a chunk; twice as many without gradients, and two chunks at once on the CPU with them. It
            changes speed and memory only. Where memory runs out it is halved, and a warning says so; a `ChunkSize` is
            halved for all that shares it.
        pred: (n,) the model's clean predictions, where they are known already.
        keep_images: keep `Outcome.x_adv`.
        dtype: of the model's activations while images are made (autocast). They are judged without it, and a sample
            that only the rounding broke is attacked again without it. A minimal-norm attack, whose images lie where
            rounding decides, never has it.
        on_progress: called with what was worked off and what turned out to need no work, in samples and parts of one,
            from time to time and as chunks are finished; both add up to n for each outcome.
        journal: what remembers samples from one run to the next: what it knows is not computed again, and it gets
            each chunk as it is done.
        eot: passes that each prediction of a randomised model is averaged over; an attack's own, where those are more.
        shared: with other processes, each of which computes a part of the samples; all get all outcomes.
        on_judged: called as chunks are finished, and while they run where there is one outcome: then a sample that the
            attack goes on with stands. Of an ensemble a sample is met once its first member has begun with it.

    Raises:
        AttackError: the attack left its ball or the box, the model returned no usable logits, or the samples are no
            images in [0, 1] with classes of the model and an id each.
        OutOfMemoryError: the model needs more memory than there is for a single sample.
    """
    require_module(model)
    if budgets and not isinstance(attack, BudgetAttack):
        raise AttackError(f"{attack.name} takes no budget")
    attacks, eot = at_budgets(attack, budgets), max(eot, passes_of(attack))
    samples = check_samples(samples) if isinstance(samples, Samples) else samples
    if torch.is_inference_mode_enabled():
        raise AttackError("torch.inference_mode is on, and allows no gradients; torch.no_grad does no harm")
    size = ChunkSize(batch_size) if isinstance(batch_size, int) else batch_size
    if size.samples < 1:
        raise AttackError(f"batch_size is {batch_size}; should be at least 1")
    if pred is not None and pred.shape != samples.y.shape:
        raise AttackError(f"pred has the shape {tuple(pred.shape)}; should be {tuple(samples.y.shape)}")
    if any(getattr(module, "training", False) for module in model.modules()):
        warnings.warn("the model is in train mode; it is measured in eval mode", stacklevel=3)
    with frozen(model), quick_convolutions(model):
        meter = Meter(model, dtype, largest=int(samples.y.max()) if len(samples) else -1)
        started = Work.until_now(meter)
        if pred is None:
            pred = predict_samples(meter.exact, samples, size, eot)
        with closing(ProgressTracker(on_progress, meter)) as progress:
            run = Run(meter, samples, pred, seed, size, keep_images, progress, journal, eot, shared, on_judged)
            ensembles = [one for one in attacks if isinstance(one, Ensemble)]
            if not ensembles:
                yield from run.attack(attacks, started)
            for ensemble in ensembles:
                yield from run.attack_ensemble(ensemble, started)
                started = Work.until_now(meter)


def _collect(stream: Callable[P, Iterator[Outcome]]) -> Callable[P, list[Outcome]]:
    """A function with the parameters of `stream` that returns its outcomes as a list."""

    def run_attack(*args: P.args, **kwargs: P.kwargs) -> list[Outcome]:
        return list(stream(*args, **kwargs))

    return update_wrapper(run_attack, stream, assigned=("__doc__", "__module__"))


run_attack = _collect(stream_attack)


@dataclass(frozen=True)
class Run:
    """A run's model, samples and settings; see `run_attack`. `pred` are the clean predictions (n,)."""

    meter: Meter
    samples: Samples | SampleSource
    pred: Tensor
    seed: int
    size: ChunkSize
    keep_images: bool
    progress: ProgressTracker
    journal: Journal | None
    eot: int
    shared: SharedJournal | None
    on_judged: OnJudged

    def attack(self, attacks: Sequence[Attack], started: Work) -> list[Outcome]:
        """One attack at several budgets, chunk by chunk; all work since `started`, with the clean pass, is theirs."""
        clock = Stopwatch(self.meter, started)
        rows = [self._row(attack) for attack in attacks]
        self.on_judged(())
        with clock.paused():
            groups = self._by_missing(rows)
        self.progress.start(len(self.samples) * len(rows), 1, [attacks[0].cost])
        self.progress.enter(0, sum(int(rows[0].clean[missing].sum()) * len(group) for group, missing in groups))
        if len(rows) == 1:
            self.progress.on_alive = partial(self._tell, rows, True)
        for group, missing in groups:
            noise = partial(self._noise, attack=attacks[0])
            with self._stage(group, missing) as mine:
                active = mine[group[0].clean[mine]]
                for finished in self._attack_in_chunks([(row, row.attack) for row in group], active, mine, noise):
                    self._keep(clock, group, finished)
                if self.journal is None:  # the clean predictions are someone's work where nothing was attacked, too
                    self._charge(group, clock.lap(len(group)))
            clock = Stopwatch(self.meter)
        self.progress.end()
        return [row.outcome() for row in rows]

    def attack_ensemble(self, ensemble: Ensemble, started: Work) -> Iterator[Outcome]:
        """Each member on what those before it left standing; all work since `started` is the members'."""
        clock = Stopwatch(self.meter, started)
        row, members = self._row(ensemble), ensemble.members
        self.on_judged(())
        unsampled = len(members) - getattr(ensemble, "sampled", 0)
        self.progress.start(len(self.samples), len(members) + 1, [member.cost for member in members], unsampled)
        for i, member in enumerate(members[:unsampled]):
            self._run_member(row, ensemble, i, clock)
            yield row.outcome(member)
            clock, row.spent = Stopwatch(self.meter), Work()
        if unsampled < len(members):
            yield from self._sample_first(row, ensemble, unsampled)
        self.progress.end()
        yield row.outcome()

    def _sample_first(self, row: OutcomeBuilder, ensemble: Ensemble, first: int) -> Iterator[Outcome]:
        """The members from `first` on meet a sample of what stands; once one of them breaks one, all meet all of it.

        The sample follows from what stands alone, whatever the journal knows. Its results are copies at first: what a
        later member broke of it is no part of an earlier one's outcome.
        """
        standing = row.robust.nonzero()[:, 0]
        chosen = self._choose(ensemble, standing)
        probes: list[OutcomeBuilder] = []
        while first + len(probes) < len(ensemble.members) and (not probes or bool(probes[-1].robust[chosen].all())):
            probe = copy.deepcopy(probes[-1] if probes else row)
            probe.spent = Work()
            self._run_member(probe, ensemble, first + len(probes), Stopwatch(self.meter), chosen)
            probes.append(probe)
        broken = int((~probes[-1].robust[chosen]).sum())
        others = standing[~torch.isin(standing, chosen)]
        counts = {"survivors": len(standing), "probed": len(chosen), "broken": broken}
        names = tuple(member.name for member in ensemble.members[first:])
        row.sampled = {"members": names, "unmet": 0 if broken else len(others)} | counts if len(standing) else None
        for i, member in enumerate(ensemble.members[first:]):
            probed = i < len(probes)
            if broken:
                self._run_member(row, ensemble, first + i, Stopwatch(self.meter), others if probed else standing)
            if probed:  # after the stage, which adds up what each process has spent: of the sample all have the sum
                row.adopt(probes[i], chosen)
            yield row.outcome(member)
            row.spent = Work()
        if self.journal is not None:
            with self._stage([row], torch.arange(len(self.samples), device=self.pred.device)) as mine:
                self.journal.keep([row], mine, [Work()], None)

    def _choose(self, ensemble: Ensemble, standing: Tensor) -> Tensor:
        """Which of the samples `standing` (m,) are the sample (k,), in their order: those of the smallest draws."""
        if not len(standing):
            return standing
        by_id = standing[self.samples.ids[standing].argsort()]  # equal draws are in the ids' order
        draws = self._noise(by_id, ensemble, "sample").uniform(by_id[:, None].double())[:, 0]
        return by_id[draws.argsort(stable=True)[: sample_size(len(standing))]].sort().values

    def _run_member(
        self, row: OutcomeBuilder, ensemble: Ensemble, i: int, clock: Stopwatch, index: Tensor | None = None
    ) -> None:
        """Member number i on what stands (of the samples `index`), as far as the journal does not know it."""
        with clock.paused():
            missing = self._recall(row, i, None if index is None else index[row.robust[index]])
        noise = partial(self._noise, attack=ensemble, stream=f"attempt {i}")
        with self._stage([row], missing, i) as mine:
            standing = mine[row.robust[mine]]
            self.progress.enter(i, len(standing), int(row.robust.sum()) - len(standing))
            self.progress.on_alive = partial(self._tell, [row], i == 0)
            for finished in self._attack_in_chunks([(row, ensemble.members[i])], standing, mine, noise):
                self._keep(clock, [row], finished, i)

    def _stage(
        self, rows: Sequence[OutcomeBuilder], missing: Tensor, member: int | None = None
    ) -> AbstractContextManager[Tensor]:
        """Within it the samples that this process attacks; after it the rows have those of all processes."""
        if self.shared is None:
            return nullcontext(missing)
        return self.shared.stage(rows, missing, rows[0].robust, member)

    def _row(self, attack: Attack) -> OutcomeBuilder:
        pictures = self.journal.pictures if self.journal else 0
        return OutcomeBuilder(self.samples, self.pred, attack, self.keep_images, pictures, self.eot)

    def _recall(self, row: OutcomeBuilder, member: int | None = None, index: Tensor | None = None) -> Tensor:
        """Restore what the journal knows of the samples `index`, or of all; which of them (m,) it does not."""
        missing = torch.arange(len(self.samples), device=self.pred.device) if index is None else index
        if self.journal is not None:
            missing = missing[~self.journal.recall(row, member, missing)[missing]]
        row.computed[missing] = True
        return missing

    def _by_missing(self, rows: Sequence[OutcomeBuilder]) -> list[tuple[list[OutcomeBuilder], Tensor]]:
        """The rows in groups that lack the same samples, with these: their work can be shared."""
        groups: dict[tuple[int, ...], tuple[list[OutcomeBuilder], Tensor]] = {}
        for row in rows:
            missing = self._recall(row)
            groups.setdefault(tuple(missing.tolist()), ([], missing))[0].append(row)
        return list(groups.values())

    def _keep(
        self, clock: Stopwatch, rows: Sequence[OutcomeBuilder], finished: Tensor, member: int | None = None
    ) -> None:
        """Charge the rows with their work, and pass the samples `finished` (k,) on to the journal."""
        shares = clock.lap(len(rows))
        self._charge(rows, shares)
        for row in rows:
            row.judged[finished] = True
        self._tell(rows)
        if self.journal is not None:
            with clock.paused():
                self.journal.keep(rows, finished, shares, member)

    def _tell(self, rows: Sequence[OutcomeBuilder], new: bool = False, running: int = 0, alive: int = 0) -> None:
        """How many stand: of chunks that run, `new` ones or such as others left standing, as many as are `alive`."""
        met, fallen = running * new, running - alive
        counts = [(int(row.robust[row.judged].sum()), int(row.judged.sum())) for row in rows]
        self.on_judged([(stand + met - fallen, judged + met) for stand, judged in counts])

    def _charge(self, rows: Sequence[OutcomeBuilder], shares: Sequence[Work]) -> None:
        for row, share in zip(rows, shares, strict=True):
            row.spent += share

    def _noise(self, index: Tensor, attack: Attack, stream: str = "") -> Noise:
        noise = Noise(self.seed, self.samples.ids[index]).stream(attack.name)
        return noise.stream(stream) if stream else noise

    def _trace_or_sweep(self, group: Sequence[OutcomeBuilder], index: Tensor, noise: Noise) -> None:
        """The samples `index` of an attack whose images are judged as they come."""
        attack, chunk = group[0].attack, self.samples[index]
        self.meter.begin(len(index))
        if isinstance(attack, TracingAttack):
            iterates = attack.trace(self.meter.exact, chunk.x, chunk.y, noise)
            group[0].record_trace(self.meter, chunk, index, iterates)
            self.progress.judge(len(chunk), 0)
        elif isinstance(attack, SweepingAttack):
            budgets = [row.attack.eps for row in group if isinstance(row.attack, BudgetAttack)]
            images = attack.sweep(self.meter, chunk.x, chunk.y, noise, budgets)
            for row, x_adv in zip(group, images, strict=True):
                self._judge(row, row.attack, index, x_adv, noise)
                self.progress.judge(len(chunk), 0)

    def _attack_in_chunks(
        self,
        rows: Sequence[tuple[OutcomeBuilder, Attack]],
        active: Tensor,
        missing: Tensor,
        noise: Callable[[Tensor], Noise],
    ) -> Iterator[Tensor]:
        """Attack and judge the samples `active`, in smaller chunks once memory has run out; which are finished."""
        attack = rows[0][1]
        while len(missing):
            threads, size = 1, self.size.samples
            if isinstance(rows[0][0].attack, TracingAttack | SweepingAttack):
                pass
            elif attack.needs == "gradients":
                threads, size = plan_threads(self.meter.model, self.pred.device, len(active), size)
            elif not self.size.halved:
                size *= 2  # there is no graph for a way back to keep
            chunks = list(chunks_of(active, missing, size))
            self.samples.expect([index for index, _ in chunks])
            try:
                for finished in self._judge_chunks(rows, chunks, noise, threads):
                    yield finished
                    active, missing = active[active > finished[-1]], missing[missing > finished[-1]]
            except Exception as error:
                if not self.size.halve(error, max(len(index) for index, _ in chunks)):
                    raise

    def _judge_chunks(
        self,
        rows: Sequence[tuple[OutcomeBuilder, Attack]],
        chunks: Sequence[tuple[Tensor, Tensor]],
        noise: Callable[[Tensor], Noise],
        threads: int,
    ) -> Iterator[Tensor]:
        """Judge what each row's attack makes of these chunks, so many of them at once."""
        if isinstance(rows[0][0].attack, TracingAttack | SweepingAttack):
            for index, finished in chunks:
                if len(index):  # many models cannot flatten an empty batch
                    self._trace_or_sweep([row for row, _ in rows], index, noise(index))
                yield finished
            return
        tasks = [
            partial(self._perturb, attack, index, noise(index))
            for index, _ in chunks
            if len(index)
            for _, attack in rows
        ]
        with closing(run_in_threads(tasks, self.meter, threads)) as images:
            for index, finished in chunks:
                for row, attack in rows if len(index) else ():
                    self._judge(row, attack, index, next(images), noise(index))
                    self.progress.judge(len(index), int(row.robust[index].sum()))
                yield finished

    def _perturb(self, attack: Attack, index: Tensor, noise: Noise, meter: Meter) -> Tensor:
        """What an attack makes of the samples `index`."""
        chunk = self.samples[index]
        meter.begin(len(index))
        return attack.perturb(meter.exact if isinstance(attack, MinimalAttack) else meter, chunk.x, chunk.y, noise)

    def _judge(self, row: OutcomeBuilder, attack: Attack, index: Tensor, x_adv: Tensor, noise: Noise) -> None:
        """Record the images of the samples `index`; what only rounding broke is attacked once more, without it."""
        chunk = self.samples[index]
        row.record(self.meter, chunk, index, x_adv, attack)
        if not self.meter.rounded or isinstance(attack, MinimalAttack):
            return
        claimed = predict(self.meter, x_adv, len(x_adv)) != chunk.y
        again = (claimed & row.robust[index]).nonzero()[:, 0]
        if len(again):
            part = chunk[again]
            x_adv = attack.perturb(self.meter.exact, part.x, part.y, noise[again])
            row.record(self.meter, part, index[again], x_adv, attack)


def chunks_of(active: Tensor, missing: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples to attack in chunks, each with all samples that are finished with it: those between need no attack.

    Args:
        active: (k,) positions among `missing`, in ascending order.
        missing: (m,) positions in ascending order.
        batch_size: the most of a chunk; all are about as large, as a small one costs almost what a large one does.
    """
    if not len(active):
        if len(missing):
            yield active, missing
        return
    parts = torch.split(active, split_evenly(len(active), math.ceil(len(active) / batch_size)))
    start = -1
    for i, part in enumerate(parts):
        end = int(part[-1] if i + 1 < len(parts) else missing[-1])
        yield part, missing[(missing > start) & (missing <= end)]
        start = end
