"""What a check is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "INFO", "WARN", "SUSPECT", "INVALID"]

When = Literal["preflight", "reuse", "full", "compare"]
"""Before the run; from its rows; by more attacks (`--checks full`); for two checkpoints."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id, title: its name in tables.
        criterion: when it speaks up, with its thresholds.
        source: who asks for it; `ours` where the threshold is our own.
        level: the worst that it says.
        when: where it runs.
        bars: whether a WARN of it already bars the word RELIABLE.
    """

    id: str
    title: str
    criterion: str
    source: str
    level: Level
    when: When
    bars: bool = False


CARLINI = "Carlini et al. 2019"
AUTOATTACK = "Croce & Hein 2020"
PINTOR = "Pintor et al. 2022"
