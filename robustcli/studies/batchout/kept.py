"""What was measured once: rows in a file, found again by what was measured; and files that make room for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustcli import __version__
from robustcli.attacks import describe, parse_attack
from robustcli.disk import write_whole
from robustcli.models import checkpoint
from robustcli.studies.batchout.design import Probe

Json = dict[str, Any]


def probe_key(probe: Probe, eps: str, limit: int | None, source: Path | None = None) -> str:
    """What a measurement is found by: attack, budget, how many samples, and the checkpoint that images are made on."""
    attack = parse_attack(probe.attack, {"eps": eps or None})
    of = {} if source is None else {"source": checkpoint.sha256(source)}
    return json.dumps(describe(attack) | {"limit": limit, "version": __version__} | of, sort_keys=True)


def set_aside(path: Path) -> Path:
    """Rename a file to `NAME.old`, or `NAME.old-2` and so on where that is taken; the new path."""
    aside, number = path.with_name(f"{path.name}.old"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.old-{number}"), number + 1
    return path.replace(aside)


class Kept:
    """The rows of one checkpoint on one data set, in one file; those of others are forgotten."""

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of
        self.rows: dict[str, Json] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["of"] == of:
                self.rows = dict(content["rows"])
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: measured again
            pass

    def add(self, key: str, row: Json) -> None:
        """Keep a row, in the file too."""
        self.rows[key] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"of": self.of, "rows": self.rows}
        write_whole(self.path, json.dumps(content, indent=1).encode(), "--out")
