"""`robustcli data`: the data sets that are here, what is in one, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.completion import COMPLETERS
from robustcli.cli.console import notice, out
from robustcli.cli.options import argument
from robustcli.cli.request import STORE
from robustcli.cli.results import Style, check_style
from robustcli.errors import DataError

if TYPE_CHECKING:
    from robustcli.config import DataSpec

data = typer.Typer(help="List data sets, say what is in one, and check its files.", rich_markup_mode="markdown")

Which = Annotated[str, argument("A data set's name or path, as --dataset takes it.", COMPLETERS["--dataset"])]

INDEX = STORE.with_suffix(".images")
"""Where what is known of image files is kept, once there are results."""


@data.command("list")
def list_sets(data_dir: options.DataDir = None, style: Style = "table") -> None:
    """A data set a line: those with a name, whether they are here or how to get them, and the files of the data folder.

    Example: `robustcli data list`
    """
    from robustcli.data.load import data_folder, is_here
    from robustcli.data.named import DATASETS, FILES

    check_style(style)
    folder = data_folder(data_dir)
    rows: list[dict[str, Any]] = []
    for name, known in DATASETS.items():
        here, kind = is_here(name, data_dir), known.torchvision
        files = f"{kind.files[0]} or {name}.npz" if kind else ""
        get = "" if here else f"--dataset {name} (downloads it where it can), or put {files} there"
        rows.append(
            {"name": name, "here": here, "where": str(folder) if here and kind else "bundled" * here, "get": get}
        )
    own = {place.split("/")[0] for known in DATASETS.values() if known.torchvision for place in known.torchvision.files}
    try:
        others = sorted(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise DataError(f"--data-dir {folder}: {error.strerror}") from None
    rows += [
        {"name": path.name, "here": True, "where": str(path), "get": ""}
        for path in others
        if path.suffix.lower() in FILES or (path.is_dir() and path.name not in own and not path.name.startswith("."))
    ]
    cells = [(row["name"], "yes" if row["here"] else "no", row["where"] or row["get"]) for row in rows]
    headers = ("data set", "here", "where, or how to get it")
    _show({"schema": 1, "folder": str(folder), "datasets": rows}, style, headers, cells)


@data.command()
def info(name: Which, data_dir: options.DataDir = None, style: Style = "table") -> None:
    """Images by split and class, their shape, bytes and source, and what is left out.

    Example: `robustcli data info mnist-sample`
    """
    from robustcli.data.inspection import inspect

    check_style(style)
    found = inspect(_spec(name, data_dir), _index())
    splits = found["splits"].values()
    cells = [
        (key, *(str(said.get(key) or "-") for said in splits))
        for key in ("images", "shape", "fit", "format", "bytes", "source", "reason")
        if any(said.get(key) for said in splits)
    ]
    labels = dict.fromkeys(label for said in splits for label in said.get("classes", ()))
    cells += [(f"class {one}", *(str(said.get("classes", {}).get(one, 0)) for said in splits)) for one in labels]
    _show(found, style, (name, *found["splits"]), cells)
    _tell(splits)


@data.command()
def verify(name: Which, data_dir: options.DataDir = None, style: Style = "table") -> None:
    """Read every image: broken files, duplicates, test images that are in train. Exit 3 for broken ones and for these.

    Example: `robustcli data verify mnist-sample`
    """
    from robustcli.data.inspection import inspect

    check_style(style)
    found = inspect(_spec(name, data_dir), _index(), every=True)
    splits, both = found["splits"], found["test_in_train"]
    broken = [(split, file, why) for split, said in splits.items() for file, why in said.get("broken", {}).items()]
    broken += [("", "checksum", line) for line in found["checksums"]]
    kinds = {"same_class": "equal, in one class", "several_classes": "equal, in several classes"}
    equal = [
        (split, ", ".join(group), kind)
        for split, said in splits.items()
        for key, kind in kinds.items()
        for group in said.get(key, ())
    ]
    cells = [*broken, *(("both", " = ".join(pair), "a test image is in train") for pair in both), *equal]
    _show(found, style, ("split", "file", "what"), cells)
    _tell(splits.values())
    images = ", ".join(f"{said['images']} {split}" for split, said in splits.items())
    groups = {key: sum(len(said.get(key, ())) for said in splits.values()) for key in kinds}
    notice(
        f"{name}: {images} images; {len(broken)} broken; groups of equal ones: {groups['same_class']} in one class, "
        f"{groups['several_classes']} in several; {len(both)} test images are in train"
    )
    if broken or both:
        raise typer.Exit(3)


def _spec(name: str, data_dir: Path | None) -> DataSpec:
    from robustcli.config import DataSpec, validated

    return validated(DataSpec, {"dataset": name, "data_dir": data_dir, "allow_sample": False}, "data")


def _tell(splits: Iterable[dict[str, Any]]) -> None:
    """What was left out, and why a split is missing."""
    for line in dict.fromkeys(line for said in splits for line in said.get("notices", [said.get("reason")])):
        notice(line)


def _index() -> Path | None:
    return INDEX if INDEX.parent.is_dir() else None


def _show(document: dict[str, Any], style: str, headers: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> None:
    from robustcli.report.formats import print_tables
    from robustcli.report.table import Table

    if style == "json":
        out().file.write(json.dumps(document) + "\n")
    elif cells:
        print_tables([Table("", headers, tuple(cells), left=len(headers))], style, out())
