"""The study is a user of the library, and no part of it."""

from __future__ import annotations

import re
from pathlib import Path

import robustcli

PACKAGE = Path(robustcli.__file__).parent
IMPORT = re.compile(r"^\s*(from|import) robustcli\.studies\b", re.MULTILINE)


def test_only_its_command_imports_the_study() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "studies")]
    importers = [path for path in others if IMPORT.search(path.read_text(encoding="utf-8"))]
    assert importers == [PACKAGE / "cli" / "reproduce.py"]
