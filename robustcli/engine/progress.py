"""How far an attack has come, and how much of it is left as far as one can tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from robustcli.engine.guard import Meter

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
    has not judged the same share. Passes count while a chunk runs, up to what its samples are expected to need.

    Args:
        report: is called with what has changed.
        meter: counts the passes.
    """

    def __init__(self, report: Progress, meter: Meter) -> None:
        self._report, self._meter = report, meter
        self._efforts: Sequence[float] = ()
        self._unit = self._left = 0.0
        self._stage = self._open = self._standing = self._judged = self._stood = 0
        self._seen = self._base = meter.passes
        self._at = time.monotonic()

    def start(self, samples: int, outcomes: int, efforts: Sequence[float]) -> None:
        """Attacks begin that give so many outcomes a sample, with these passes a sample in turn."""
        self._efforts, self._unit = efforts, outcomes / sum(efforts)
        self._left = samples * sum(efforts)
        self._meter.on_pass = self._watch

    def enter(self, stage: int, samples: int, standing: int = 0) -> None:
        """An attack begins on so many samples, while others are known to stand or not."""
        self._stage, self._open, self._standing = stage, samples, standing
        self._judged = self._stood = 0
        self._base = self._meter.passes
        self._update(0)

    def judge(self, samples: int, standing: int) -> None:
        """So many more samples are judged, of which some stand."""
        self._open -= samples
        self._judged += samples
        self._stood += standing
        self._base = self._meter.passes
        self._update(0)

    def end(self) -> None:
        """Nothing is left."""
        self._report(0.0, self._left * self._unit)
        self._left = 0.0

    def _watch(self, elsewhere: int) -> None:
        if time.monotonic() >= self._at + SECONDS:
            self._update(elsewhere)

    def _update(self, elsewhere: int) -> None:
        """Report what has changed; passes `elsewhere` run in other threads, and are not in the meter yet."""
        self._at = time.monotonic()
        effort, later = self._efforts[self._stage], sum(self._efforts[self._stage + 1 :])
        share = self._stood / self._judged if self._judged else 1.0 if self._stage else FIRST_SHARE
        passes = self._meter.passes + elsewhere
        left = max(0.0, effort * self._open - (passes - self._base))
        left += later * (self._standing + self._stood + share * self._open)
        gone, done = self._left - left, max(0, passes - self._seen)
        if later and not self._stage and not self._judged:
            done = 0  # as long as nobody knows what the others will meet, no speed says how long they take
        self._left, self._seen = left, max(self._seen, passes)
        self._report(done * self._unit, (gone - done) * self._unit)
