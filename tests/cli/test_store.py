"""The store as the commands use it: the second call answers at once, and no trouble with the file costs a result."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.cli.main import run
from robustcli.cli.request import STORE
from robustcli.store import database
from robustcli.store.database import StoreError

from .conftest import Call, write_images

FGSM = ("--attack", "fgsm", "--eps", "0.1,0.2", "--limit", "20")
PROGRAM = """
import sys
from robustcli.cli.main import run
code = run(sys.argv[1:])
print({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "scipy", "pandas"}, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that measure something."""
    from robustcli.measure import evaluate

    calls: list[Any] = []
    run_item = evaluate.run_item

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return run_item(*arguments)

    monkeypatch.setattr(evaluate, "run_item", counted)
    return calls


def rows(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["rows"]
    return found


def flags(text: str) -> list[Any]:
    return [(row["attack"], row["budget"], row["ids"], row["robust"]) for row in rows(text)]


@pytest.mark.parametrize("command", ["evaluate", "compare", "attack"])
@pytest.mark.parametrize("style", ["table", "json"])
def test_the_same_call_prints_the_same_again_without_measuring(
    call: Call, models: Path, computed: list[Any], command: str, style: str
) -> None:
    first = call(command, *FGSM, "--format", style)
    computed.clear()
    second = call(command, *FGSM, "--format", style)
    assert (first.code, second.code, computed) == (0, 0, [])
    assert second.err == first.err
    if style == "json":
        assert [row["cached"] for row in rows(first.out)] == [0] * len(rows(first.out))
        assert [row | {"cached": 0} for row in rows(second.out)] == rows(first.out)
        assert json.loads(second.out) | {"rows": []} == json.loads(first.out) | {"rows": []}
    else:
        assert second.out == first.out


def test_another_format_is_the_same_question(call: Call, models: Path, computed: list[Any]) -> None:
    call("evaluate", *FGSM)
    computed.clear()
    ended = call("evaluate", *FGSM, "--format", "json", "--json", "r.json", "--batch-size", "7")
    assert computed == []
    assert rows(ended.out) == rows(Path("r.json").read_text())


@pytest.mark.parametrize(
    "command",
    [
        f"evaluate checkpoints/vanilla.pt {' '.join(FGSM)}",
        *["results list", "results list --format json", "results show 1", "results export all.csv"],
        "results prune --all",
    ],
)
def test_what_is_stored_is_shown_without_torch(call: Call, models: Path, command: str) -> None:
    expected = call("evaluate", "checkpoints/vanilla.pt", *FGSM).out
    arguments = [sys.executable, "-c", PROGRAM, *command.split()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "set()"), done.stderr
    assert done.stdout == expected or command.startswith("results")


@pytest.mark.parametrize("what", ["checkpoint", "images", "newest"])
def test_what_has_changed_is_measured_again(call: Call, models: Path, computed: list[Any], what: str) -> None:
    data = write_images(Path("bars.npz"))
    arguments = ["evaluate", *([] if what == "newest" else [models / "vanilla.pt"]), *FGSM, "--dataset", data]
    assert call(*arguments).code == 0
    computed.clear()
    if what == "checkpoint":
        (models / "vanilla.pt").write_bytes((models / "batchout.pt").read_bytes())
    elif what == "images":
        write_images(data, n_test=90)
    else:
        os.utime(models / "vanilla.pt")
    assert call(*arguments).code == 0
    assert len(computed) == 1


@pytest.mark.parametrize(("flags", "runs"), [(["--no-store"], 2), (["--store", "deep/er/mine.db"], 1)], ids=str)
def test_results_are_kept_nowhere_or_in_another_file(
    call: Call, models: Path, computed: list[Any], flags: list[str], runs: int
) -> None:
    for _ in range(2):
        assert call("evaluate", *FGSM, *flags).code == 0
    assert (len(computed), Path("deep/er/mine.db").is_file()) == (runs, runs == 1)
    assert not STORE.exists()


@pytest.mark.parametrize("flag", [["--store", "x.db"], ["--keep-adversarials"]], ids=lambda flag: flag[0])
def test_no_store_and_what_needs_one_exclude_each_other(call: Call, models: Path, flag: list[str]) -> None:
    ended = call("evaluate", *FGSM, "--no-store", *flag)
    assert (ended.code, ended.error) == (2, f"error: --no-store: cannot be given together with {flag[0]}")


def test_all_images_are_kept_where_that_is_asked_for(call: Call, models: Path) -> None:
    arguments = ["evaluate", "--attack", "pgd", "--eps", "0.3", "--format", "json"]
    few = rows(call(*arguments).out)[0]
    broken = few["clean_correct"] - few["correct"]
    assert _images() == min(16, broken) < broken
    again = rows(call(*arguments, "--keep-adversarials").out)[0]
    assert (_images(), again["robust"]) == (broken, few["robust"])


def _images() -> int:
    with closing(sqlite3.connect(STORE)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM adversarials").fetchone()
    return int(count)


def test_an_attack_whose_images_are_wanted_is_run_again(call: Call, models: Path, computed: list[Any]) -> None:
    attack = ["attack", "--attack", "fgsm", "--eps", "0.1", "--limit", "20"]
    call(*attack)
    assert call(*attack, "--save", "x.npz").code == 0
    assert len(computed) == 2


@pytest.mark.parametrize("value", [["--format", "yaml"], ["--json", "nowhere/r.json"]], ids=lambda value: value[0])
def test_a_mistake_is_told_where_the_answer_is_known(call: Call, models: Path, value: list[str]) -> None:
    call("evaluate", *FGSM)
    ended = call("evaluate", *FGSM, *value)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith(f"error: {value[0]}")


# --- Faults: each is one line, and the result is printed all the same


def change(*statements: str) -> None:
    with closing(sqlite3.connect(STORE, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)


def warnings(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning:")]


def test_a_locked_store_still_prints_the_result(call: Call, models: Path, impatient: None) -> None:
    expected = call("evaluate", *FGSM, "--format", "json", "--no-store").out
    call("evaluate", "--attack", "noise", "--limit", "5")
    with closing(sqlite3.connect(STORE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ended = call("evaluate", *FGSM, "--format", "json")
    assert (ended.code, flags(ended.out)) == (0, flags(expected))
    assert "is locked by another process" in warnings(ended.err)[0]
    assert "could not be kept" in warnings(ended.err)[1]


@pytest.mark.parametrize("fault", ["corrupt", "read-only", "newer"])
def test_a_store_that_cannot_be_used_still_prints_the_result(
    call: Call, models: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = call("evaluate", *FGSM, "--format", "json", "--no-store").out
    call("evaluate", "--attack", "noise", "--limit", "5")
    if fault == "corrupt":
        STORE.write_bytes(b"\xa5" * 10_000)
    elif fault == "read-only":
        monkeypatch.setattr(database, "writable", lambda _: False)
    else:
        change("PRAGMA user_version = 9")
    before = STORE.read_bytes()
    ended = call("evaluate", *FGSM, "--format", "json")
    assert (ended.code, flags(ended.out)) == (0, flags(expected))
    (line,) = warnings(ended.err)
    assert line.startswith(f"warning: --store {STORE}: ")
    assert STORE.read_bytes() == before


@pytest.mark.parametrize("name", [":memory:", "a pipe", "text", "another program's", "x" * 300, "text/r.db"])
def test_what_is_no_store_is_refused_before_anything_is_measured(
    call: Call, models: Path, computed: list[Any], name: str
) -> None:
    os.mkfifo("a pipe")
    Path("text").write_text("mine")
    with closing(sqlite3.connect("another program's")) as other:
        other.execute("CREATE TABLE mine (x)")
    before = sorted((path.name, path.stat().st_size) for path in Path().iterdir())
    ended = call("evaluate", *FGSM, "--store", name)
    assert (ended.code, ended.out, computed) == (2, "", [])
    assert ended.error.startswith(f"error: --store {name[:150]}")
    assert call("results", "list", "--store", name).code == (2 if len(name) > 255 else 3)
    assert before == sorted((path.name, path.stat().st_size) for path in Path().iterdir())


def test_a_store_with_a_trigger_is_refused_and_the_default_one_left_alone(call: Call, models: Path) -> None:
    expected = call("evaluate", *FGSM, "--format", "json").out
    change("CREATE TRIGGER t AFTER INSERT ON samples BEGIN UPDATE samples SET robust = 1; END")
    words = "was altered: its trigger 't' is not robustcli's; give --store another file, or delete this one"
    for arguments in (("evaluate", *FGSM, "--store", STORE), ("results", "list"), ("results", "prune", "--all")):
        ended = call(*arguments)
        assert (ended.code, ended.error) == (3, f"error: --store {STORE}: {words}")
    ended = call("evaluate", *FGSM, "--format", "json")
    assert (ended.code, flags(ended.out)) == (0, flags(expected))
    assert warnings(ended.err) == [f"warning: --store {STORE}: {words}; it is left as it is, and nothing new is kept"]


@pytest.mark.parametrize(
    "odd",
    [
        *[{"document": {}}, {"document": {"rows": [1]}}, {"document": {"rows": [{"n": 20}], "verdict": {"word": 1}}}],
        *[{"document": {"rows": [], "notes": 1}}, {"document": 1}],
    ],
    ids=str,
)
def test_an_answer_that_cannot_be_printed_is_made_anew(
    call: Call, models: Path, computed: list[Any], odd: dict[str, Any]
) -> None:
    expected = call("evaluate", *FGSM, "--format", "markdown").out
    with closing(sqlite3.connect(STORE)) as other:
        (content,) = other.execute("SELECT content FROM answers").fetchone()
    altered = json.loads(zlib.decompress(content)) | odd
    change(f"UPDATE answers SET content = x'{zlib.compress(json.dumps(altered).encode()).hex()}'")
    computed.clear()
    ended = call("evaluate", *FGSM, "--format", "markdown")
    assert (ended.code, len(computed)) == (0, 1)
    assert ended.out == expected
    (line,) = warnings(ended.err)
    assert line.startswith(f"warning: --store {STORE}: holds an answer that cannot be read (")
    assert warnings(call("evaluate", *FGSM, "--format", "markdown").err) == []


def test_a_file_name_that_is_not_utf8_is_kept_and_found_again(call: Call, models: Path, computed: list[Any]) -> None:
    name = os.fsdecode(b"bad\xff")
    write_images(Path(f"{name}.npz"))
    (models / "vanilla.pt").rename(f"{name}.pt")
    arguments = ["evaluate", f"{name}.pt", "--dataset", f"{name}.npz", *FGSM]
    first, second = (rows(call(*arguments, "--format", "json").out) for _ in range(2))
    assert len(computed) == 1
    assert [row["checkpoint"] for row in first] == [row["checkpoint"] for row in second] == [f"{name}.pt"] * 2
    listed = rows(call("results", "list", "--format", "json").out)
    assert {(row["checkpoint"], row["dataset"]) for row in listed} == {(f"{name}.pt", "bad\\xff")}
    assert call("results", "export", "all.csv").code == 0
    assert Path("all.csv").read_text(encoding="utf-8").count("bad\\xff.pt") == 60
    assert call("results", "prune", "--checkpoint", f"{name}.pt").code == 0
    assert rows(call("results", "list", "--format", "json").out) == []


def test_a_run_that_was_interrupted_goes_on(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustcli.engine.run import Run

    judge, calls = Run._judge, []

    def stops(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        judge(*arguments)

    arguments = ["evaluate", "--attack", "pgd", "--eps", "0.1", "--batch-size", "10", "--format", "json"]
    arguments += ["--checks", "off"]  # they attack too
    with monkeypatch.context() as patched:
        patched.setattr(Run, "_judge", stops)
        ended = call(*arguments)
    assert ended.code == 130
    assert "0 of 1 rows were finished and are kept; the same command goes on from there" in ended.err
    assert rows(call(*arguments).out)[0]["cached"] >= 30


# --- robustcli results


@pytest.fixture
def stored(call: Call, models: Path) -> None:
    """A store of six rows: clean, PGD and DeepFool of one model, clean and FGSM at two budgets of another."""
    both = ("--attack", "pgd", "--attack", "deepfool", "--eps", "0.2")
    assert call("evaluate", "checkpoints/vanilla.pt", *both).code == 0
    assert call("evaluate", "checkpoints/batchout.pt", *FGSM).code == 0


@pytest.mark.usefixtures("stored")
def test_results_are_listed(call: Call) -> None:
    ended = call("results", "list")
    assert ended.code == 0
    for word in ("clean", "pgd:steps=20", "Linf 0.2", "deepfool", "checkpoints/vanilla.pt", "fgsm", "bars"):
        assert word in ended.out
    found = rows(call("results", "list", "--format", "json").out)
    assert [row["id"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row["n"] for row in found] == [60, 60, 60, 20, 20, 20]


@pytest.mark.usefixtures("stored")
def test_a_row_is_shown_with_where_it_comes_from(call: Call) -> None:
    assert "has no row 77" in call("results", "show", "77").error
    ended = call("results", "show", "2")
    assert ended.code == 0
    for word in ("checkpoints/vanilla.pt", '"steps": 20', "images kept", "60 samples"):
        assert word in ended.out
    row = json.loads(call("results", "show", "2", "--format", "json").out)
    assert (len(row["robust"]), sum(row["robust"]), row["provenance"][0]["samples"]) == (60, row["correct"], 60)


@pytest.mark.usefixtures("stored")
def test_rows_are_exported_with_their_samples(call: Call) -> None:
    import numpy as np

    for suffix in ("csv", "json", "npz", "pt", "pt"):
        assert call("results", "export", f"all.{suffix}").code == 0
    assert len(Path("all.csv").read_text().splitlines()) == 1 + 3 * 60 + 3 * 20
    exported = rows(Path("all.json").read_text())
    with np.load("all.npz") as arrays:
        assert arrays["2_robust"].tolist() == exported[1]["robust"]
        assert arrays["2_x_adv"].shape[1:] == (1, 8, 8)
        assert set(arrays["2_x_adv_ids"]) <= set(exported[1]["ids"])
        tensors = torch.load("all.pt", weights_only=True)
        assert tensors.keys() == set(arrays)
        assert all(np.array_equal(tensors[name].numpy(), arrays[name]) for name in arrays)
        assert 0 <= arrays["2_x_adv"].min() <= arrays["2_x_adv"].max() <= 1
    assert call("results", "export", "one.csv", "4").code == 0
    assert len(Path("one.csv").read_text().splitlines()) == 21


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (["--all"], []),
        (["--attack", "pgd"], [1, 3, 4, 5, 6]),
        (["--checkpoint", "checkpoints/vanilla.pt"], [4, 5, 6]),
        (["--checkpoint", "checkpoints/vanilla.pt", "--attack", "clean"], [2, 3, 4, 5, 6]),
        (["--older-than", "1h"], [1, 2, 3, 4, 5, 6]),
        (["--older-than", "0h", "--attack", "nothing"], [1, 2, 3, 4, 5, 6]),
        (["--all", "--dry-run"], [1, 2, 3, 4, 5, 6]),
    ],
    ids=str,
)
def test_rows_are_pruned(call: Call, flags: list[str], left: list[int]) -> None:
    ended = call("results", "prune", *flags)
    assert ended.code == 0
    assert f"{6 - len(left) if '--dry-run' not in flags else 6} of 6 rows" in ended.err
    assert [row["id"] for row in rows(call("results", "list", "--format", "json").out)] == left


@pytest.mark.usefixtures("stored")
def test_a_row_that_was_pruned_by_its_checkpoints_hash_is_measured_again(call: Call) -> None:
    digest = rows(call("results", "list", "--format", "json").out)[3]["checkpoint_sha256"]
    assert "removed 3 of 6 rows" in call("results", "prune", "--checkpoint", digest[:8]).err
    found = rows(call("evaluate", "checkpoints/batchout.pt", *FGSM, "--format", "json").out)
    assert [row["cached"] for row in found] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "--store results/robustcli.db: is not there"),
        (["show", "1"], "--store results/robustcli.db: is not there"),
        (["list", "--format", "xml"], "--format 'xml' is unknown (allowed: json, table)"),
        (["export", "all.txt"], "results export all.txt: should end in .json, .csv, .npz, .pt"),
        (["prune"], "results prune: say which rows"),
        (["prune", "--older-than", "9" * 99 + "w"], "is older than the calendar"),
        (["prune", "--older-than", "999999999h"], "is older than the calendar"),
        (["prune", "--older-than", "30"], "--older-than 30: should be a number of hours, days or weeks"),
    ],
    ids=str,
)
def test_a_mistake_with_results_is_one_line(call: Call, here: Path, arguments: list[str], words: str) -> None:
    ended = call("results", *arguments)
    assert (ended.code in (2, 3), ended.out) == (True, "")
    assert words in ended.error


@pytest.mark.usefixtures("stored")
def test_rows_that_cannot_be_read_are_left_out_and_said(call: Call) -> None:
    change(
        "UPDATE series SET eps = x'ff' WHERE id IN (2, 5)",
        "UPDATE samples SET robust = 1000 WHERE series = 3",
        "UPDATE runs SET provenance = '{'",
        "UPDATE adversarials SET shape = 'axb'",
    )
    said = [
        f"warning: --store {STORE}: row 2 is left out, and so is 1 more: its eps cannot be read",
        f"warning: --store {STORE}: 60 samples are left out, with values that contradict each other or are none that "
        "robustcli writes",
        f"warning: --store {STORE}: where samples come from cannot be read for 2 of its runs",
    ]
    ended = call("results", "list", "--format", "json")
    assert ([row["id"] for row in rows(ended.out)], warnings(ended.err)) == ([1, 4, 6], said)
    for suffix in ("csv", "json"):
        ended = call("results", "export", f"all.{suffix}")
        assert (ended.code, warnings(ended.err)) == (0, said)
    assert "3 rows, 100 samples" in ended.err
    assert call("results", "show", "6").code == 0
    ended = call("results", "show", "2")
    assert (ended.code, "row 2 cannot be read; `robustcli results prune` removes it" in ended.error) == (3, True)
    ended = call("results", "export", "all.npz")
    assert (ended.code, "row 6: the image of sample" in ended.error) == (3, True)
    ended = call("results", "prune", "--checkpoint", "checkpoints/vanilla.pt")
    assert "removed 1 of 3 rows with 60 samples, and 2 that cannot be read" in ended.err
    assert [row["id"] for row in rows(call("results", "list", "--format", "json").out)] == [4, 6]


@pytest.mark.usefixtures("stored")
def test_a_full_disk_is_listed_and_pruned(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store = database._open

    def full(path: Path, wait: float, *, alone: bool = False) -> sqlite3.Connection:
        if not alone:
            raise StoreError("cannot be written: database or disk is full", "full")
        return open_store(path, wait, alone=alone)

    monkeypatch.setattr(database, "_open", full)
    assert len(rows(call("results", "list", "--format", "json").out)) == 6
    assert call("results", "export", "all.npz").code == 0
    with monkeypatch.context() as patched:  # no room at all
        patched.setattr(database, "connect_alone", lambda path, *, writes=False: full(path, 1.0, alone=not writes))
        ended = call("results", "prune", "--all")
    assert ended.code == 3
    assert ended.error.endswith("is full; free some space, or delete it with the files -wal and -shm beside it")
    assert "removed 6 of 6 rows" in call("results", "prune", "--all").err
    assert rows(call("results", "list", "--format", "json").out) == []


@pytest.mark.usefixtures("stored")
def test_a_checkpoint_is_not_replaced_by_an_export(call: Call) -> None:
    ended = call("results", "export", "checkpoints/vanilla.pt")
    assert ended.code == 2
    assert "checkpoints/vanilla.pt: is there already and is not an export of rows; give another name" in ended.error


@pytest.mark.usefixtures("stored")
def test_a_store_is_not_exported_onto_itself(call: Call) -> None:
    STORE.rename("r.json")
    before = Path("r.json").read_bytes()
    ended = call("results", "export", "r.json", "--store", "r.json")
    assert (ended.code, ended.error) == (
        2,
        "error: results export r.json: is the store that this command reads; give another name",
    )
    assert Path("r.json").read_bytes() == before


def test_results_show_help_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list", "show", "export", "prune"):
        assert run(["results", command, "--help"]) == 0
        assert "--store" in capsys.readouterr().out
