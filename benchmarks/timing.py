"""Attacks that do the same work, ours and the peers', timed by turns, each at its best batch size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tabulate import tabulate

from robustcli.engine.run import Samples

Work = Callable[[Samples, int], list[int]]
"""Samples, all classified right before, and a batch size to how many of them still are, for each budget."""


@dataclass
class Entry:
    """One line of a table.

    Attributes:
        name: whose attack.
        work: what is timed.
        peer: not ours.
        slow: a loop over single samples, which is timed on fewer of them.
        n: on how many samples it was timed.
        batch_size: its best.
        standing: how many samples it leaves, for each budget.
        seconds: of each turn, scaled to all samples.
    """

    name: str
    work: Work
    peer: bool = False
    slow: bool = False
    n: int = 0
    batch_size: int = 0
    standing: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds for all samples."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Goal:
    """What ours should do: take at most `ratio` of the fastest peer's time, and break at least this share."""

    ratio: float
    broken: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Entries of one task, ours first, after they have run."""

    name: str
    title: str
    goal: Goal
    entries: Sequence[Entry]

    @property
    def fastest(self) -> Entry | None:
        """The fastest peer; None where none is installed."""
        peers = [entry for entry in self.entries if entry.peer]
        return min(peers, key=lambda entry: entry.median) if peers else None

    @property
    def ratio(self) -> float | None:
        """Our time as a share of the fastest peer's: the median over turns, as a slow minute hits both alike."""
        if self.fastest is None:
            return None
        return statistics.median(a / b for a, b in zip(self.entries[0].seconds, self.fastest.seconds, strict=True))

    @property
    def broken(self) -> float:
        """The share of samples that ours breaks, at the budget that leaves most."""
        ours = self.entries[0]
        return 1 - max(ours.standing) / ours.n

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is no peer."""
        return None if self.ratio is None else self.ratio <= self.goal.ratio and self.broken >= self.goal.broken

    def verdict(self) -> str:
        """The ratio and the goal, in a line."""
        if self.fastest is None:
            return "No peer is installed."
        said = f"{self.entries[0].name} takes {self.ratio:.2f} x the time of the fastest peer, {self.fastest.name}"
        wanted = f"goal: at most {self.goal.ratio:g}"
        if self.goal.broken:
            said += f", and breaks {self.broken:.1%}"
            wanted += f", and at least {self.goal.broken:.0%} broken"
        return f"{said} ({wanted}): {'met' if self.met else 'missed'}."

    def table(self) -> str:
        """One line an entry: seconds for all samples, median and range of the turns."""
        n = max(entry.n for entry in self.entries)
        fastest = min(entry.median for entry in self.entries)
        rows = [
            [
                entry.name,
                entry.batch_size,
                f"{entry.median:.3f}",
                f"{min(entry.seconds):.3f} to {max(entry.seconds):.3f}",
                f"{entry.median / fastest:.1f}",
                " ".join(map(str, entry.standing)),
                str(n) if entry.n == n else f"{entry.n}, seconds scaled to {n}",
            ]
            for entry in self.entries
        ]
        headers = ["", "batch", "seconds", "range", "x fastest", "standing", "of"]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        entries = [
            {key: getattr(entry, key) for key in ("name", "peer", "n", "batch_size", "standing", "median", "seconds")}
            for entry in self.entries
        ]
        return {
            "name": self.name,
            "title": self.title,
            "goal": asdict(self.goal),
            "fastest_peer": self.fastest.name if self.fastest else None,
            "ratio": self.ratio,
            "broken": self.broken,
            "met": self.met,
            "entrants": entries,
        }


def time_by_turns(
    entries: Sequence[Entry], samples: Samples, *, turns: int, batch_sizes: Sequence[int], slow_n: int
) -> None:
    """Give each entry its best batch size, then run them by turns, so that a slow minute hits all alike."""
    for entry in entries:
        entry.n = min(len(samples), slow_n) if entry.slow else len(samples)
        _timed(entry, samples[:8], 8)  # the first call of all pays for loading
        # A loop over single samples takes no notice of the batch.
        sizes = batch_sizes[:1] if entry.slow else batch_sizes
        tried = [(_timed(entry, samples[: entry.n], size), size) for size in (*sizes, *sizes)]  # memory is new once
        entry.batch_size = min(tried)[1]
    for turn in range(turns):
        first = turn % len(entries)
        for entry in (*entries[first:], *entries[:first]):
            seconds = _timed(entry, samples[: entry.n], entry.batch_size)
            entry.seconds.append(seconds * len(samples) / entry.n)


def _timed(entry: Entry, samples: Samples, batch_size: int) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    entry.standing = entry.work(samples, batch_size)
    if samples.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
