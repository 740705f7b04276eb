"""`robustcli init`."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import TypeAdapter

from robustcli.cli import options, train_options
from robustcli.cli.console import notice, out
from robustcli.cli.options import OUTPUT, option
from robustcli.cli.outputs import check_output
from robustcli.config import EvalSpec, Spec, TrainSpec, choices, shown, validated
from robustcli.data.named import locate
from robustcli.disk import write_whole
from robustcli.errors import ConfigError, lookup
from robustcli.text import visible

SPECS: dict[str, type[Spec]] = {"train": TrainSpec, "evaluate": EvalSpec}
NEXT = {
    "train": "robustcli train --config {file}, then robustcli evaluate",
    "evaluate": "robustcli evaluate MODEL --config {file}; attack and compare take it too",
}


def init(
    file: Annotated[Path, typer.Argument(help="The config to write.")] = Path("robustcli.yaml"),
    purpose: Annotated[str, option("--for", OUTPUT, "A config for train (default) or evaluate.")] = "train",
    method: train_options.MethodName = None,
    dataset: options.Dataset = None,
    schema: Annotated[bool, option("--schema", OUTPUT, "Print the JSON Schema, and write nothing.")] = False,
    force: Annotated[bool, option("--force", OUTPUT, "Replace files that are there.")] = False,
) -> None:
    """Write a config with every key, its default and what it means, and beside it a JSON Schema for editors.

    Example: `robustcli init --method batchout --dataset mnist`
    """
    build, schema_text = lookup(SPECS, purpose, "--for"), json.dumps(json_schema(purpose), indent=2) + "\n"
    if schema:
        out().file.write(schema_text)
        return
    if method is not None and purpose != "train":
        raise ConfigError(f"--method {method}: is of a training; leave out --for {purpose}")
    if dataset is not None:
        locate(dataset)
    given = {key: value for key, value in (("method", method), ("dataset", dataset)) if value is not None}
    values = validated(build, given, "init").as_dict()
    check_output(file, "init", kind="config")
    beside = file.with_suffix(".schema.json")
    check_output(beside, "init", kind=".json")
    if there := [path for path in (file, beside) if path.exists() and not force]:
        raise ConfigError(f"init {shown(there[0])}: exists already; give another name, or --force to replace it")
    usage = NEXT[purpose].format(file=visible(shlex.quote(str(file))))
    head = f"# yaml-language-server: $schema={visible(beside.name)}\n# Next: {usage}\n# Flags override these keys.\n\n"
    write_whole(file, (head + "\n".join(_commented(build, values)) + "\n").encode(), "init")
    write_whole(beside, schema_text.encode(), "init")
    notice(f"{file}: every key with its default; {beside.name} tells editors what is allowed")
    notice(f"next: {usage}")


def _commented(build: Any, values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The keys of a spec or a method with their values, what each means above it."""
    fields = getattr(build, "model_fields", None) or build.__pydantic_fields__
    for key, value in values.items():
        text, words = " ".join((fields[key].description or "").split()), choices(fields[key].annotation)
        if any(word not in text for word in words):
            text = f"{text.removesuffix('.')}: {', '.join(words)}."
        yield from textwrap.wrap(text, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if key == "method":
            from robustcli.training.methods import METHODS, describe_method, parse_method

            own = describe_method(parse_method(value))
            yield f"method:\n  name: {own.pop('name')}"
            yield from _commented(METHODS[value["name"]], own, "  ")
        else:
            line = yaml.safe_dump(value, default_flow_style=True, width=10_000)
            yield f"{indent}{key}: {line.removesuffix(chr(10)).removesuffix('...').rstrip()}"


def json_schema(purpose: str) -> dict[str, Any]:
    """What a config for `train` or `evaluate` may hold, as a JSON Schema: `--config` itself says more."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SPECS[purpose].model_json_schema()
    if purpose == "train":
        from robustcli.training.methods import METHODS

        allowed: list[dict[str, Any]] = [{"enum": list(METHODS)}]
        for name, method in METHODS.items():
            own = TypeAdapter(method).json_schema()
            keys = {"name": {"const": name, "description": method.summary}} | own.get("properties", {})
            allowed.append(own | {"title": name, "properties": keys, "required": ["name"]})
        said = made["properties"]["method"]
        made["properties"]["method"] = {key: said[key] for key in ("title", "description", "default")} | {
            "anyOf": allowed
        }
    return made
