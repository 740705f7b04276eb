"""Every check, declared once: what it is, when it speaks up, how bad that is, and where it is from."""

from __future__ import annotations

from robustcli.verdict.declared import Check, Level, When
from robustcli.verdict.table_preflight import PREFLIGHT_CHECKS
from robustcli.verdict.table_runs import RUN_CHECKS

__all__ = ["CHECKS", "Check", "Level", "When"]

CHECKS: dict[str, Check] = {check.id: check for check in PREFLIGHT_CHECKS + RUN_CHECKS}
