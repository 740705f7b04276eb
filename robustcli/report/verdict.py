"""The verdict under a table: the word, why, what speaks against the number, and how many checks were not run.

All else, findings at OK and INFO and the ids of what was not run, stands in the JSON.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from robustcli.text import latex, markdown, visible
from robustcli.verdict.check import LEVELS


def heading(verdict: Mapping[str, Any], several: bool) -> str:
    """`Verdict: SUSPECT`, with the checkpoint where there are several, and the reason where no finding has it."""
    whose = f" on {verdict['checkpoint']}" if several else ""
    why = "" if verdict["word"] in ("SUSPECT", "INVALID") else f": {verdict['reason']}"
    return f"Verdict{whose}: {verdict['word']}{why}"


def finding_lines(verdict: Mapping[str, Any]) -> list[str]:
    """A line a finding at WARN or above, the worst first; of one check at one level, only the first budget's.

    What a stronger ensemble (R24) found has a line for each budget; a finding that is the verdict's reason has none.
    """
    lines: dict[tuple[str, ...], str] = {}
    bad = [one for one in verdict["findings"] if LEVELS.index(one["level"]) >= LEVELS.index("WARN")]
    for finding in sorted(bad, key=lambda one: -LEVELS.index(one["level"])):
        key = (finding["id"], finding["level"], str(finding.get("budget")) if finding["id"] == "R24" else "")
        if finding["message"] != verdict["reason"]:
            title = f"{finding['level']} {finding['id']} {finding.get('title', '')}".rstrip()
            lines.setdefault(key, f"{title}: {finding['message']}")
    return list(lines.values())


def not_run_line(verdict: Mapping[str, Any], checks: str) -> str:
    """How many of a checkpoint's `quick` or `full` checks were not run, why, and what can run them; else empty."""
    missing, by_full = len(verdict["not_run"]), len(verdict.get("full_runs", ()))
    if verdict["interrupted"]:
        return f"The checks were cut short: {missing} were not run."
    if not missing:
        return ""
    line = f"{missing} check{'s were' if missing > 1 else ' was'} not run"
    if checks == "full" or not by_full:
        return f"{line}: there was nothing for {'them' if missing > 1 else 'it'} to judge."
    which = ("them" if missing > 1 else "it") if by_full == missing else f"{by_full} of them"
    return f"{line}: --checks full can run {which}."


def verdict_text(document: Mapping[str, Any], style: str, width: int = 120) -> str:
    """The verdicts that a document has under `verdict`, as `markdown`, `latex` or a `table` of so many columns."""
    parts = []
    verdicts: Sequence[Mapping[str, Any]] = document["checkpoints"]
    for verdict in verdicts:
        head = heading(verdict, len(verdicts) > 1)
        body = [line for line in (*finding_lines(verdict), not_run_line(verdict, document["checks"])) if line]
        if style == "markdown":
            parts.append("\n".join([f"**{markdown(head)}**\n", *(f"- {markdown(line)}" for line in body)]).rstrip())
        elif style == "latex":
            parts.append("\n".join(f"% {latex(line)}" for line in (head, *body)))
        else:
            indented = (line for one in body for line in _wrapped(one, width, "  "))
            parts.append("\n".join([*_wrapped(head, width), *indented]))
    note = document["note"]
    bound = f"{note[0].upper()}{note[1:]}."
    return "\n\n".join([*parts, f"% {latex(bound)}" if style == "latex" else bound])


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        visible(line),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
