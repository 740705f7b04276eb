"""How far an attack has come, and how much of it is left as far as one can tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from robustcli.engine.guard import Meter
from robustcli.engine.samples import sample_size

Progress = Callable[[float, float], None]
"""Called with how much was worked off and how much turned out to need no work, in samples and parts of one; less than 0
where more is left than it seemed. All of both adds up to n for each outcome."""

FIRST_SHARE = 0.5
"""Of the samples that an ensemble's first member meets, those that it is taken to leave before any is judged."""

SECONDS = 0.1
"""Between two calls while passes run."""


class ProgressTracker:
    """The progress of attacks on n samples, by the passes that each attack needs of a sample at most.

    An ensemble is a stage a member. What a later one will meet is what this one has left standing, and of those that it
    has not judged the same share. Of a chunk that runs, what is left is what its samples that are alive still need.

    Args:
        report: is called with what has changed.
        meter: counts the passes.

    `on_alive` is called from time to time while chunks run, with their samples and how many of these are alive.
    """

    def __init__(self, report: Progress, meter: Meter) -> None:
        self._report, self._meter = report, meter
        self._efforts: Sequence[float] = ()
        self._unit = self._left = 0.0
        self._stage = self._open = self._standing = self._judged = self._stood = self._unsampled = 0
        self._running: Sequence[Meter] = ()
        self._seen = meter.passes
        self._at = time.monotonic()
        self.on_alive: Callable[[int, int], None] = lambda size, alive: None

    def start(self, samples: int, outcomes: int, efforts: Sequence[float], unsampled: int | None = None) -> None:
        """Attacks begin that give so many outcomes a sample; from number `unsampled` on they meet a sample first."""
        self._efforts, self._unit = efforts, outcomes / sum(efforts)
        self._unsampled = len(efforts) if unsampled is None else unsampled
        self._left = samples * sum(efforts)
        self._meter.on_pass = self._watch

    def enter(self, stage: int, samples: int, standing: int = 0) -> None:
        """An attack begins on so many samples, while others are known to stand or not."""
        self._stage, self._open, self._standing = stage, samples, standing
        self._judged = self._stood = 0
        self._running = ()
        self._update()

    def judge(self, samples: int, standing: int) -> None:
        """So many more samples are judged, of which some stand."""
        self._open -= samples
        self._judged += samples
        self._stood += standing
        self._running = self._running[1:]
        self._meter.begin(0)
        self._update()

    def end(self) -> None:
        """Nothing is left."""
        self._report(0.0, self._left * self._unit)
        self._left = 0.0

    def close(self) -> None:
        """Hear of no more passes, and tell nobody: who listens holds this, the model and all images."""
        self._meter.on_pass = lambda _: None
        self.on_alive = lambda size, alive: None

    def _watch(self, running: Sequence[Meter]) -> None:
        self._running = running
        if time.monotonic() >= self._at + SECONDS:
            self._update()
            self.on_alive(sum(one.size for one in running), sum(one.alive for one in running))

    def _update(self) -> None:
        """Report what has changed; of other threads passes are not in the meter yet."""
        self._at = time.monotonic()
        running, effort = self._running, self._efforts[self._stage]
        later = list(enumerate(self._efforts))[self._stage + 1 :]
        share = self._stood / self._judged if self._judged else 1.0 if self._stage else FIRST_SHARE
        passes = self._meter.passes + sum(one.passes for one in running if one is not self._meter)
        untouched = max(0, self._open - sum(one.size for one in running))
        left = effort * untouched + sum(one.alive * max(0.0, effort - one.had) for one in running)
        standing = self._standing + self._stood + share * untouched
        standing += sum(min(one.alive, share * one.size) for one in running)
        left += sum(cost * (standing if i < self._unsampled else sample_size(standing)) for i, cost in later)
        gone, done = self._left - left, max(0, passes - self._seen)
        if later and not self._stage and not self._judged:
            done = 0  # as long as nobody knows what the others will meet, no speed says how long they take
        self._left, self._seen = left, max(self._seen, passes)
        self._report(done * self._unit, (gone - done) * self._unit)
