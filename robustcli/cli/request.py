"""What attack, evaluate, compare and doctor read: flags, checkpoints, and the document of an equal call before."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from robustcli.cli.console import out, tell, warn
from robustcli.cli.outputs import check_outputs, given_checkpoints
from robustcli.config import EvalSpec, TrainSpec, field_names, read_yaml, shown, validated
from robustcli.disk import file_hash, write_whole
from robustcli.errors import CheckpointError, ConfigError, DataError, unknown
from robustcli.models.zoo import locate

if TYPE_CHECKING:
    from robustcli.engine.ranks import Ranks
    from robustcli.measure.session import Session

CHECKPOINTS = Path("checkpoints")
STORE = Path("results/robustcli.db")
CHECKS = ("quick", "full", "off")

GREY_DIGITS = (1, 28, 28)
"""Any shape: whether SPECs and flags are right does not depend on it."""

INVALID = 5
"""The exit code where a verdict says so."""

WITHOUT_EFFECT = frozenset({"checkpoint", "style", "json_file", "batch_size", "workers", "store", "no_store", "config"})
"""Flags that do not change the results: of a config, its keys stand among the flags."""

ALWAYS_MEASURED = (
    "no_store",
    "keep_adversarials",
    "fail_under",
    "junit",
    "curve_plot",
    "gallery",
    "save",
    "budget",
    "until_ci",
    "dry_run",
)
"""Flags whose work is more than to print a document from the store."""


class Request:
    """One call of attack, evaluate or compare. Making it checks what would be written, and the store.

    Args:
        command: its name.
        flags: as the parser gives them.
        ranks: the processes that share the work; only rank 0 writes anything.

    Raises:
        RobustCliError: a file or a store that cannot be used so.
    """

    def __init__(self, command: str, flags: Mapping[str, Any], ranks: Ranks | None = None) -> None:
        self.leads = ranks is None or ranks.rank == 0
        if self.leads:
            check_outputs(flags)
        self.command, self.flags, self.ranks = command, flags, ranks
        self.store = store_path(flags) if self.leads else None
        self.notes: list[tuple[str, str]] = []
        self.by_content = False

    @cached_property
    def spec(self) -> EvalSpec:
        """The spec that the flags mean; a mistake in any of them is an error before anything is opened."""
        spec = read_flags(self.flags)
        return spec.model_copy(update={"device": self.ranks.own_device(spec.device)}) if self.ranks else spec

    @property
    def index(self) -> Path | None:
        """The folder beside the store where what is known of image files is kept."""
        return None if self.store is None else self.store.with_suffix(".images")

    def tell(self, text: str, kind: str = "notice") -> None:
        """Write a line to stderr, as `console.tell` does, and note it for the document."""
        self.notes.append((kind, text))
        tell(text, kind)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that were given, or the newest complete one in checkpoints/.

        Raises:
            CheckpointError: none is given and none is there.
        """
        given = list(dict.fromkeys(given_checkpoints(self.flags)))
        if self.flags.get("weights") and len(given) != 1:
            file = self.flags["weights"]
            raise ConfigError(f"--weights {file}: goes with one model, and {len(given)} are named; write MODEL@WEIGHTS")
        if given:
            return given
        from robustcli.models import checkpoint

        path = checkpoint.newest(CHECKPOINTS)
        if path is None:
            raise CheckpointError(f"{CHECKPOINTS}/: holds no complete checkpoint; train one, such as `robustcli train`")
        self.tell(f"checkpoint: {path}")
        return [path]

    @cached_property
    def key(self) -> str | None:
        """The key of this call's document in the store; None where the call has to be measured."""
        from robustcli.store.documents import stamps

        if self.flags.get("weights"):
            return None
        given = given_checkpoints(self.flags)
        if any(path.suffix.lower() == ".onnx" for path in given):  # its weights may lie in files beside it
            return None
        try:
            files = [(str(path), file_hash(locate(path))) for path in given] or stamps(sorted(CHECKPOINTS.glob("*.pt")))
        except (OSError, CheckpointError):  # an error where the checkpoint is opened
            return None
        return self._key_of(files)

    def _key_of(self, models: Sequence[Any]) -> str | None:
        """The key of this call's document, of these models; None where no document can say all that it does."""
        from robustcli.store.documents import request_key

        if self.store is None or any(self.flags.get(flag) for flag in ALWAYS_MEASURED):
            return None
        decisive = {key: value for key, value in self.flags.items() if key not in WITHOUT_EFFECT}
        return request_key(self.command, decisive, models)

    def answer_for(self, session: Session) -> None:
        """As `answer_from_store`, where the names of the models do not say what they are: by what was opened."""
        if self.key is None:
            opened = [(item.target.key, item.images.source, item.images.fingerprint) for item in session.items]
            self.key, self.by_content = self._key_of(opened), True
            self.answer_from_store()

    def answer_from_store(self) -> None:
        """Print the document in the store, where there is one that still holds, and end the command. No torch here."""
        from robustcli.report.formats import FORMATS
        from robustcli.store.documents import find

        if self.store is None or self.key is None or self.flags["style"] not in FORMATS:
            return
        try:
            found = find(self.store, self.key)
            if found is None:
                return
            rows = [row | {"cached": row["n"]} for row in found["rows"]]
            document = found | {"rows": rows}
            code = exit_code(document)
            notes = [(str(kind), str(text)) for kind, text in document["notes"]]
            self.write(document, notes)
        except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if type(error) in (ValueError, DataError) else "its document is another one"
            warn(f"--store {self.store}: holds an answer that cannot be read ({reason}); it is made anew")
            return
        raise typer.Exit(code)

    def write(self, document: Mapping[str, Any], notes: Sequence[tuple[str, str]] = ()) -> None:
        """Tell the notes, print a document and write the JSON file; each also where another cannot be written."""
        from robustcli.report.formats import print_document

        json_file = self.flags["json_file"]
        for kind, text in notes:
            tell(text, kind)
        with ExitStack() as after:
            after.callback(print_document, document, self.flags["style"], out())
            if json_file is not None:
                write_whole(json_file, (json.dumps(document, allow_nan=False) + "\n").encode(), "--json")

    def remember(self, document: Mapping[str, Any], session: Session) -> None:
        """Put a document into the store, for the next equal call."""
        if self.store is None or self.key is None:
            return
        from robustcli.data.load import data_folder
        from robustcli.measure.session import images_for
        from robustcli.store.documents import SHORT_SECONDS, data_files, remember, stamps

        items = () if self.by_content else session.items  # by content, the images are a part of the key
        specs = [images_for(item.target, session.spec) for item in items]
        files = [path for spec in specs for path in data_files(spec.dataset, data_folder(spec.data_dir))]
        stands_in = any(item.images.note for item in session.items)
        until = time.time() + SHORT_SECONDS if stands_in else None
        remember(self.store, self.key, document, stamps(dict.fromkeys(files)), until)


def begin(command: str, flags: Mapping[str, Any], ranks: Ranks | None = None) -> Request:
    """A request whose flags are right, and that the store has no document for: else that one ends the command."""
    flags = with_config(command, flags)
    if flags.get("shard") is not None:
        flags = {**flags, "shard": read_shard(flags)}
    request = Request(command, flags, ranks)
    request.answer_from_store()
    _ = request.spec
    return request


def with_config(command: str, flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flags, and what the file of `--config` says where they say nothing.

    Raises:
        ConfigError: names the file and the key.
    """
    path = flags.get("config")
    if path is None:
        return flags
    values, added = read_yaml(path), {}
    if of_train := [key for key in values if key in field_names(TrainSpec) and key not in field_names(EvalSpec)]:
        way = "`robustcli init --for evaluate` writes one for what measures"
        raise ConfigError(f"--config {path}: key '{of_train[0]}' is of a config of train; {way}")
    validated(EvalSpec, values, f"--config {path}")
    refuse_decimal_commas(values.get("eps"), f"--config {path}: eps=")
    for key, value in values.items():
        flag = {"attacks": "attack", "allow_sample": "no_sample"}.get(key, key)
        meant = not value if key == "allow_sample" else value
        if meant is not False and meant not in (None, []):  # 0 is meant
            if flag not in flags:
                raise ConfigError(f"--config {path}: {key}={shown(value)}: is nothing that {command} does")
            added[flag] = meant
    return {**flags, **added, **given_flags(flags)}


def exit_code(document: Mapping[str, Any]) -> int:
    """5 where the verdict is INVALID, else 0."""
    verdict = document["verdict"]
    return INVALID if verdict is not None and verdict["word"] == "INVALID" else 0


def read_flags(flags: Mapping[str, Any]) -> EvalSpec:
    """The spec that a command's flags mean.

    Raises:
        ConfigError: names the flag.
    """
    from robustcli.report.formats import FORMATS

    given = given_flags(flags)
    if flags["style"] not in FORMATS:
        raise unknown("--format", flags["style"], FORMATS)
    refuse_decimal_commas(given.get("eps"))
    values = {key: value for key, value in given.items() if key in field_names(EvalSpec)}
    if "no_sample" in given:
        values["allow_sample"] = False
    if "curve_plot" in given:
        values["curve"] = True
    if "attack" in given:
        values["attacks"] = given["attack"]
    spec = validated(EvalSpec, values, "", flags=frozenset(values))

    from robustcli.measure.plan import make_plan

    make_plan(spec, GREY_DIGITS)
    if flags["checks"] not in CHECKS:
        raise unknown("--checks", flags["checks"], CHECKS)
    return spec


def read_shard(flags: Mapping[str, Any]) -> str:
    """`--shard` as `i/n`; `slurm` is its array's or its tasks' variables.

    Raises:
        ConfigError: it is no shard, a variable is wrong or missing, or the flags make none.
    """
    text = flags["shard"]
    if text == "slurm":
        array = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
        names = array if array[0] in os.environ else ("SLURM_PROCID", "SLURM_NTASKS")
        values = {name: os.environ.get(name, "1" if name == array[2] else "") for name in names}
        if wrong := [name for name, value in values.items() if not re.fullmatch(r"[0-9]{1,9}", value)]:
            raise ConfigError(
                f"--shard slurm: {wrong[0]} is '{values[wrong[0]]}'; should be a number, as SLURM sets it"
            )
        first, *rest = map(int, values.values())
        text = f"{(first - rest[0]) // max(1, rest[1]) + 1}/{rest[2]}" if len(rest) == 3 else f"{first + 1}/{rest[0]}"
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text}: should be i/n with i from 1 to n, or slurm")
    if flags["store"] is None:
        raise ConfigError(f"--shard {text}: needs a store of its own: --store FILE")
    for flag in ("budget", "until_ci"):
        if flags.get(flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: cannot be given together with --shard")
    return str(text)


def has_budget(spec: EvalSpec) -> bool:
    """Whether any of a spec's attacks has a budget."""
    from robustcli.measure.plan import make_plan

    return any(planned.budgets for planned in make_plan(spec, GREY_DIGITS))


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user gave; a repeatable one that was not given comes as an empty list or tuple."""
    return {
        key: value
        for key, value in flags.items()
        if value is not None and value is not False and not (isinstance(value, list | tuple) and not value)
    }


def refuse_decimal_commas(eps: object, named: str = "--eps ") -> None:
    """Refuse text of budgets that look like numbers with a decimal comma, such as `0,1`; a config's list is none.

    Raises:
        ConfigError: says what may be meant, of the flag or key that is `named`.
    """
    parts = [part.strip() for part in eps.split(",")] if isinstance(eps, str) else []
    meant: list[str] = []
    for before, part in zip(["", *parts], parts, strict=False):
        if before == "0" and meant[-1] == "0" and re.fullmatch(r"\d+", part):
            meant[-1] = f"0.{part}"
        else:
            meant.append(part)
    if len(meant) < len(parts):
        listed = ",".join("0.0" if part == "0" else part for part in parts)
        raise ConfigError(
            f"{named}{shown(eps)}: is a list of {len(parts)} budgets, as commas separate; did you mean "
            f"{','.join(meant)}? (for the list write {listed})"
        )


def store_path(flags: Mapping[str, Any]) -> Path | None:
    """Where results are stored; None for `--no-store`.

    A file that cannot be a store is refused before hours of work and not after. What may pass, such as another
    process's lock or a full disk, costs no result: a warning says so later.

    Raises:
        ConfigError: two flags that exclude each other, or a file that is no store.
        DataError: a store that someone has altered.
    """
    from robustcli.store.database import StoreError, connect

    given = flags["store"]
    if flags["no_store"]:
        for flag, other in (("store", "--store"), ("keep_adversarials", "--keep-adversarials")):
            if flags[flag]:
                raise ConfigError(f"--no-store: cannot be given together with {other}")
        return None
    if given is None:
        return STORE
    if str(given) == ":memory:":
        raise ConfigError("--store :memory:: would keep nothing; give a file, or --no-store")
    try:
        connect(given, make=False, wait=0.5).close()
    except StoreError as error:
        if error.kind in ("other", "altered"):
            raise (ConfigError if error.kind == "other" else DataError)(f"--store {given}: {error}") from None
    return Path(given)
