"""The verdict under a table: the word, why, what was found, what was not run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from robustcli.text import latex, markdown, visible
from robustcli.verdict.findings import BOUND, Finding, Verdict, at_least
from robustcli.verdict.table import CHECKS


def heading(verdict: Verdict, several: bool) -> str:
    """`Verdict: SUSPECT`, with the checkpoint where there are several, and the reason where no finding tells it."""
    whose = f" on {verdict.checkpoint}" if several else ""
    why = "" if verdict.word in ("SUSPECT", "INVALID") else f": {verdict.reason}"
    return f"Verdict{whose}: {verdict.word}{why}"


def told(findings: Sequence[Finding]) -> list[str]:
    """A line a finding at WARN or above, the worst first; of one check at one level, only the first budget's.

    What the stronger ensemble (R24) found is told of each budget, also where it agrees.
    """
    lines, seen = [], set()
    agreed = [finding for finding in findings if finding.id == "R24" and finding.level == "OK"]
    for finding in [*at_least(findings, "WARN"), *agreed]:
        key = (finding.id, finding.level, finding.budget if finding.id == "R24" else None)
        if key not in seen:
            seen.add(key)
            lines.append(f"{finding.level} {finding.id} {CHECKS[finding.id].title}: {finding.message}")
    return lines


def left_out(verdict: Verdict) -> str:
    """`Not run: R2 re-evaluation, ...`, and whether Ctrl-C is why."""
    names = ", ".join(f"{name} {CHECKS[name].title}" for name in verdict.not_run)
    cut = "The checks were cut short. " if verdict.interrupted else ""
    return cut + (f"Not run: {names}." if names else "Every check ran.")


def verdict_text(verdicts: Sequence[Verdict], style: str, width: int = 120) -> str:
    """The verdicts as text in a format: `table`, `markdown` or `latex`.

    Args:
        verdicts: one a checkpoint.
        style: the format.
        width: of a line of `table`.
    """
    parts = []
    for verdict in verdicts:
        head = heading(verdict, len(verdicts) > 1)
        more = [finding for finding in verdict.findings if finding.message != verdict.reason]  # not twice
        body = [*told(more), left_out(verdict)]
        if style == "markdown":
            parts.append(f"**{markdown(head)}**\n\n" + "\n".join(f"- {markdown(line)}" for line in body))
        elif style == "latex":
            parts.append("\n".join(f"% {latex(line)}" for line in (head, *body)))
        else:
            parts.append(
                "\n".join([*_wrapped(head, width), *(line for one in body for line in _wrapped(one, width, "  "))])
            )
    bound = f"{BOUND[0].upper()}{BOUND[1:]}."
    return "\n\n".join([*parts, f"% {bound}" if style == "latex" else bound])


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        visible(line),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
