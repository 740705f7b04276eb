"""Answers from the store at once: what a command found before is printed without torch."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from robustcli.cli.choice import CHECKPOINTS
from robustcli.cli.console import fail, notice, warn
from robustcli.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from robustcli.measure.evaluate import Session
    from robustcli.report.sheets import Sheet

STORE = Path("results/robustcli.db")

NOT_ASKED = frozenset({"checkpoint", "style", "json_file", "batch_size", "store", "no_store"})
"""Flags that do not change what is found."""

MADE_ANEW = (
    "no_store",
    "keep_adversarials",
    "fail_under",
    "junit",
    "curve_plot",
    "gallery",
    "save",
    "budget",
    "until_ci",
)
"""Flags whose work is more than to print what was found."""


def store_path(flags: Mapping[str, Any]) -> Path | None:
    """Where results are kept; None for `--no-store`.

    Raises:
        ConfigError: two flags that exclude each other, or a file that is no store.
        DataError: a store that someone has altered.
    """
    if not flags.get("no_store"):
        given = flags.get("store")
        if given:
            _check_store(Path(given))
        return Path(given or STORE)
    for flag, other in (("store", "--store"), ("keep_adversarials", "--keep-adversarials")):
        if flags.get(flag):
            raise ConfigError(f"--no-store: cannot be given together with {other}")
    return None


def _check_store(path: Path) -> None:
    """A file that was named to keep results in, and cannot do so, is told before hours of work and not after.

    What may pass, such as another process's lock or a full disk, costs no result: a warning says so later.
    """
    from robustcli.store.database import StoreError, connect

    if str(path) == ":memory:":
        raise ConfigError("--store :memory:: would keep nothing; give a file, or --no-store")
    try:
        connect(path, make=False, wait=0.5).close()
    except StoreError as error:
        if error.kind in ("other", "altered"):
            raise (ConfigError if error.kind == "other" else DataError)(f"--store {path}: {error}") from None


class Asked:
    """What a command was asked: an answer to it may be kept, or is to be.

    Args:
        path: the store's file.
        key: what the answer is found by; None where it has to be made anew.
    """

    def __init__(self, path: Path | None, key: str | None) -> None:
        self.path = path
        self.key = key
        self.said: list[tuple[str, str]] = []

    def tell(self, text: str, kind: str = "notice") -> None:
        """Tell the user, and whoever asks the same again; `kind` is `notice`, `bold`, `warning` or `error`."""
        self.said.append((kind, text))
        _tell(text, kind)

    def reply(self, style: str, json_file: Path | None) -> None:
        """Print the answer and end the command, where one is kept and still holds."""
        from robustcli.cli.measure import FORMATS
        from robustcli.cli.printing import print_result
        from robustcli.store.answers import find

        if self.path is None or self.key is None or style not in FORMATS:
            return
        try:
            answer = find(self.path, self.key)
            if answer is None:
                return
            rows = [row | {"cached": row["n"]} for row in answer.document["rows"]]
            found = answer.document | {"rows": rows}
            sheets = _sheets(answer.sheets)
            with redirect_stdout(io.StringIO()):  # what cannot be printed is no answer
                print_result(found, sheets, answer.csv, style, None)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if type(error) is ValueError else "its document is another one"
            warn(f"--store {self.path}: holds an answer that cannot be read ({reason}); it is made anew")
            return
        for kind, text in answer.said:
            _tell(text, kind)
        print_result(found, sheets, answer.csv, style, json_file)
        raise typer.Exit(answer.code)

    def remember(
        self, session: Session, document: dict[str, Any], sheets: Sequence[Sheet], csv: str, code: int
    ) -> None:
        """Keep what was found."""
        if self.path is None or self.key is None:
            return
        from robustcli.data.load import data_folder
        from robustcli.measure.evaluate import images_for
        from robustcli.store.answers import SHORT_SECONDS, Answer, data_files, remember, stamps

        wanted = [images_for(item.candidate, session.spec) for item in session.items]
        files = [path for spec in wanted for path in data_files(spec.dataset, data_folder(spec.data_dir))]
        stands_in = any(item.images.note for item in session.items)
        answer = Answer(
            document=document,
            sheets=[asdict(sheet) for sheet in sheets],
            csv=csv,
            said=self.said,
            code=code,
            evidence=stamps(dict.fromkeys(files)),
            until=time.time() + SHORT_SECONDS if stands_in else None,
        )
        remember(self.path, self.key, answer)


def ask(command: str, flags: Mapping[str, Any]) -> Asked:
    """What a command's flags ask of the store.

    Raises:
        ConfigError: two flags that exclude each other.
    """
    from robustcli.store.answers import request_key, stamps

    path = store_path(flags)
    if path is None or any(flags.get(flag) for flag in MADE_ANEW):
        return Asked(path, None)
    given = flags["checkpoint"]
    named = [given] if isinstance(given, str | Path) else list(given or ())
    try:
        files = [(str(one), sha256_of(Path(one))) for one in named] or stamps(sorted(CHECKPOINTS.glob("*.pt")))
        decisive = {key: value for key, value in flags.items() if key not in NOT_ASKED}
        return Asked(path, request_key(command, decisive, files))
    except (OSError, CheckpointError):  # it will be told where the checkpoint is opened
        return Asked(path, None)


def sha256_of(path: Path) -> str:
    """A checkpoint's hash, without reading what is in it.

    Raises:
        OSError: it cannot be read.
        CheckpointError: the zoo has none of that name.
    """
    from robustcli.disk import file_hash
    from robustcli.models.zoo import locate

    return file_hash(locate(path))


def _tell(text: str, kind: str) -> None:
    if kind in ("warning", "error"):
        (warn if kind == "warning" else fail)(text)
    else:
        notice(text, bold=kind == "bold")


def _sheets(told: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """The tables of an answer.

    Raises:
        ValueError: they are none.
    """
    from pydantic import TypeAdapter

    from robustcli.report.sheets import Sheet

    return TypeAdapter(list[Sheet]).validate_python(told)
