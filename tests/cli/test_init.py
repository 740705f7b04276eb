"""What `init` writes is valid, says what each key means, and its JSON Schema is that of the configs that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from robustcli.cli.init import SPECS, json_schema
from robustcli.cli.request import read_flags, with_config
from robustcli.cli.train import train_spec
from robustcli.config import EvalSpec, TrainSpec, about, read_yaml
from robustcli.fields import Eps
from robustcli.training.methods import METHODS, describe_method, parse_method

from .conftest import Call

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def schema_errors(purpose: str, content: Any) -> list[str]:
    schema = json.loads(json.dumps(json_schema(purpose)))
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.mark.parametrize("method", METHODS)
def test_what_it_writes_is_a_training_with_every_default(call: Call, here: Path, method: str) -> None:
    ended = call("init", "--method", method, "--dataset", "mnist-sample")
    assert (ended.code, ended.out) == (0, "")
    assert "robustcli train --config robustcli.yaml" in ended.err
    spec = train_spec({"config": here / "robustcli.yaml"})
    usual = TrainSpec(method=method, dataset="mnist-sample")  # type: ignore[arg-type]
    assert parse_method(spec.method) == parse_method({"name": method})
    assert spec == usual.model_copy(update={"method": describe_method(parse_method({"name": method}))})
    content = read_yaml(here / "robustcli.yaml")
    assert content.keys() == TrainSpec.model_fields.keys()
    assert schema_errors("train", content) == []


def test_every_key_has_a_comment_and_the_first_line_names_the_schema(call: Call, here: Path) -> None:
    assert call("init", "--method", "pgd").code == 0
    lines = (here / "robustcli.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=robustcli.schema.json"
    assert json.loads((here / "robustcli.schema.json").read_text()) == json_schema("train")
    keys = [i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    assert all(lines[i - 1].lstrip().startswith("# ") for i in keys if "name:" not in lines[i])
    assert max(map(len, lines)) <= 110
    assert "# Passes over the training images." in lines
    said = [lines[i - 1].lstrip("# ") for i in keys if "name:" not in lines[i]]
    assert [text for text in said if text.startswith(("Of ", "Its ", "It "))] == []


@pytest.mark.parametrize("purpose", SPECS)
def test_the_next_command_can_be_pasted(call: Call, here: Path, purpose: str) -> None:
    ended = call("init", "a b.yaml", "--for", purpose)
    assert "--config 'a b.yaml'" in ended.err
    assert "--config 'a b.yaml'" in (here / "a b.yaml").read_text().splitlines()[1]


def test_help_of_a_default_keeps_what_stands_before_it() -> None:
    assert about(EvalSpec, "normalize").endswith("mnist or mean=M,std=S (default auto).")


def test_the_config_trains(call: Call, here: Path, images: Path) -> None:
    assert call("init", "mine.yaml", "--method", "batchout", "--dataset", images).code == 0
    ended = call("train", "--config", "mine.yaml", "--epochs", 1, "--limit", 60, "--output", "a.pt")
    assert ended.code == 0, ended.err
    assert (here / "a.pt").exists()


def test_a_path_that_yaml_would_misread_comes_back(call: Call, here: Path) -> None:
    for name in ("a: b #c", "null", "'q\"", "0x1", "a\nb"):
        (here / name).mkdir()
        assert call("init", "--dataset", name, "--force").code == 0
        assert train_spec({"config": here / "robustcli.yaml"}).dataset == name


def test_a_name_cannot_break_out_of_its_comment(call: Call, here: Path) -> None:
    name = "a\nepochs: 1\n#.yaml"
    assert call("init", name).code == 0
    assert train_spec({"config": here / name}) == train_spec({"config": here / name, "epochs": 12})


@pytest.mark.parametrize("name", ["robustcli.yaml", "robustcli.schema.json"])
def test_a_file_that_is_there_is_replaced_only_by_force(call: Call, here: Path, name: str) -> None:
    (here / name).write_text("{}" if name.endswith("json") else "method: fgsm\n")
    ended = call("init")
    assert ended.code == 2
    assert name in ended.error
    assert "--force" in ended.error
    assert len((here / name).read_text()) < 20
    assert call("init", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", "fgms"], 2, ["--method", "fgms", "did you mean 'fgsm'"]),
        (["--dataset", "mnits"], 2, ["mnits", "did you mean 'mnist'"]),
        (["--dataset", "no/such.npz"], 3, ["no/such.npz"]),
        (["--for", "trian"], 2, ["--for", "did you mean 'train'"]),
        (["--for", "evaluate", "--method", "pgd"], 2, ["--method pgd", "--for"]),
        (["no/such/folder/a.yaml"], 2, ["folder"]),
        (["."], 2, ["folder"]),
        (["photo.png", "--force"], 2, ["photo.png", "is not a config"]),
    ],
)
def test_a_mistake_is_one_line(call: Call, here: Path, arguments: list[str], code: int, words: list[str]) -> None:
    (here / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ended = call("init", *arguments)
    assert ended.code == code
    assert [word for word in words if word not in ended.error] == []
    assert sorted(path.name for path in here.iterdir()) == ["photo.png"]


# --- the JSON Schema


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_fit_the_schema(path: Path) -> None:
    assert schema_errors("train", yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize("purpose", SPECS)
def test_the_schema_says_what_each_key_means(call: Call, here: Path, purpose: str) -> None:
    ended = call("init", "--schema", "--for", purpose)
    assert (ended.code, ended.err, list(here.iterdir())) == (0, "", [])
    keys = ended.document["properties"]
    assert keys.keys() == SPECS[purpose].model_fields.keys()
    assert [key for key, about in keys.items() if not about.get("description") or not about.get("title")] == []
    assert [key for key, about in keys.items() if "default" not in about] == []


def test_the_schema_has_the_options_of_each_method() -> None:
    plain, *methods = json_schema("train")["properties"]["method"]["anyOf"]
    assert plain["enum"] == [one["title"] for one in methods] == list(METHODS)
    for one, method in zip(methods, METHODS.values(), strict=True):
        assert one["properties"].keys() == {"name", *describe_method(method())} - ({"name"} - {"name"})
        assert all(about.get("description") for about in one["properties"].values())


@pytest.mark.parametrize(
    ("purpose", "content", "fits"),
    [
        ("train", {"method": "fgsm", "lr": "1/100"}, True),
        ("train", {"method": {"name": "pgd", "eps": "8/255", "norm": "l2"}}, True),
        ("train", {"method": {"name": "batchout", "eta": [0.1, "U[0,0.1]"], "layers": ["c1"]}}, True),
        ("train", {"method": {"name": "batchout", "eta": 0.1}}, True),
        ("train", {"epoch": 3}, False),
        ("train", {"method": "pdg"}, False),
        ("train", {"method": {"name": "vanilla", "eps": 0.1}}, False),
        ("train", {"method": {"eps": 0.1}}, False),
        ("train", {"schedule": "linear"}, False),
        ("train", {"epochs": 0}, False),
        ("evaluate", {"attacks": ["fgsm"], "eps": [0.1, "8/255"], "limit": "first:10"}, True),
        ("evaluate", {"eps": "0.1,0.2", "batch_size": "auto"}, True),
        ("evaluate", {"preset": "slow"}, False),
        ("evaluate", {"attack": "fgsm"}, False),
    ],
)
def test_the_schema_takes_what_the_command_takes(purpose: str, content: dict[str, Any], fits: bool) -> None:
    assert (schema_errors(purpose, content) == []) is fits


# --- --config of what measures

FEW = ("--limit", "12", "--no-store", "--checks", "off", "--format", "json")


def test_what_init_writes_for_an_evaluation_changes_nothing(call: Call, models: Path, here: Path) -> None:
    assert call("init", "e.yaml", "--for", "evaluate").code == 0
    assert schema_errors("evaluate", read_yaml(here / "e.yaml")) == []
    plain = call("evaluate", models / "vanilla.pt", *FEW).document
    configured = call("evaluate", models / "vanilla.pt", *FEW, "--config", "e.yaml").document
    assert [row["robust"] for row in plain["rows"]] == [row["robust"] for row in configured["rows"]]
    assert plain["provenance"]["spec"] == configured["provenance"]["spec"]
    assert call("compare", models / "vanilla.pt", models / "batchout.pt", *FEW, "--config", "e.yaml").code == 0
    assert (
        call("attack", models / "vanilla.pt", "--attack", "fgsm", "--eps", "0.1", *FEW, "--config", "e.yaml").code == 0
    )


def test_flags_override_a_config_that_overrides_defaults(call: Call, models: Path, here: Path) -> None:
    (here / "e.yaml").write_text(
        "attacks: [fgsm, 'pgd:steps=2']\neps: [0.1, 8/255]\nlimit: 5\nseed: 3\nallow_sample: false\n"
    )
    rest = ("--no-store", "--checks", "off", "--format", "json")
    document = call("evaluate", models / "vanilla.pt", "--config", "e.yaml", *rest).document
    assert [(row["label"], row["budget"], row["n"]) for row in document["rows"]] == [
        ("fgsm", "0.1", 5),
        ("fgsm", "8/255", 5),
        ("pgd:steps=2", "0.1", 5),
        ("pgd:steps=2", "8/255", 5),
    ]
    spec = document["provenance"]["spec"]
    assert (spec["seed"], spec["allow_sample"]) == (3, False)
    flags = ("--limit", "7", "--eps", "0.2", "--attack", "fgsm")
    document = call("evaluate", models / "vanilla.pt", "--config", "e.yaml", *flags, *rest).document
    assert [(row["label"], row["budget"], row["n"]) for row in document["rows"]] == [("fgsm", "0.2", 7)]


def test_a_config_that_has_changed_is_another_question_to_the_store(call: Call, models: Path, here: Path) -> None:
    rest = (models / "vanilla.pt", "--config", "e.yaml", "--checks", "off", "--format", "json", "--attack", "fgsm")
    for limit in (4, 6):
        (here / "e.yaml").write_text(f"limit: {limit}\neps: 0.1\n")
        assert call("evaluate", *rest).document["rows"][0]["n"] == limit


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("evaluate", "atacks: [fgsm]", ["--config e.yaml", "'atacks'", "did you mean 'attacks'"]),
        ("evaluate", "steps: zero", ["--config e.yaml", "steps=zero"]),
        ("evaluate", "limit: 0", ["--config e.yaml", "limit=0"]),
        ("evaluate", "preset: slow", ["--config e.yaml", "preset=slow", "'quick'"]),
        ("attack", "preset: quick", ["--config e.yaml", "preset=quick", "attack"]),
        ("compare", "curve: true", ["--config e.yaml", "curve=True", "compare"]),
        ("evaluate", "- 1", ["--config e.yaml"]),
        ("evaluate", "a: &b 1", ["--config e.yaml", "aliases"]),
        ("evaluate", "eps: 0,1", ["--config e.yaml: eps=0,1: is a list of 2 budgets", "did you mean 0.1"]),
        ("evaluate", "norm: ''", ["norm ''"]),
        ("evaluate", "attacks: 5", ["--config e.yaml: attacks=5", "string"]),
        ("evaluate", "weights: 5", ["--config e.yaml: weights=5: should be a path"]),
        (
            "evaluate",
            "method: pgd\nlr: 0.1",
            ["--config e.yaml", "'method' is of a config of train", "init --for evaluate"],
        ),
    ],
)
def test_a_mistake_in_a_config_names_the_file_and_the_key(
    call: Call, models: Path, here: Path, command: str, content: str, words: list[str]
) -> None:
    (here / "e.yaml").write_text(content + "\n")
    attack = ("--attack", "fgsm") if command == "attack" else ()
    ended = call(command, models / "vanilla.pt", "--config", "e.yaml", *attack)
    assert ended.code == 2
    assert [word for word in words if word not in ended.error] == []


def test_what_is_0_in_a_config_is_meant(call: Call, models: Path, here: Path) -> None:
    (here / "e.yaml").write_text("attacks: fgsm\neps: 0\nworkers: 0\nseed: 0\nlimit: 4\n")
    flags = {**dict.fromkeys(("attack", "eps", "workers", "seed", "limit")), "config": here / "e.yaml"}
    read = {"attack": "fgsm", "eps": 0, "workers": 0, "seed": 0, "limit": 4}
    assert {key: with_config("evaluate", flags)[key] for key in read} == read
    document = call("evaluate", models / "vanilla.pt", "--config", "e.yaml", *FEW).document
    assert [row["budget"] for row in document["rows"]] == ["0"]


@pytest.mark.parametrize("eps", [[0, 1], [round(0.01 * i, 2) for i in range(1, 60)], ["0.10", "8/255"]])
@pytest.mark.parametrize("as_text", [False, True])
def test_budgets_of_a_config_are_taken_as_they_are(call: Call, models: Path, eps: list[object], as_text: bool) -> None:
    written = ",".join(str(budget) for budget in eps).replace("0,1", "0.0,1") if as_text else eps
    Path("e.yaml").write_text(yaml.safe_dump({"attacks": ["fgsm"], "eps": written}))
    document = call("evaluate", models / "vanilla.pt", "--config", "e.yaml", *FEW).document
    assert [float(Eps(row["budget"])) for row in document["rows"]] == [Eps(str(budget)) for budget in eps]


def test_attack_takes_the_only_attack_of_a_config(call: Call, models: Path, here: Path) -> None:
    for attacks in ("fgsm", "[fgsm]"):
        (here / "e.yaml").write_text(f"attacks: {attacks}\neps: 0.1\n")
        document = call("attack", models / "vanilla.pt", "--config", "e.yaml", *FEW).document
        assert [row["label"] for row in document["rows"]] == ["fgsm"]
    for attacks in ("[fgsm, noise]", "[]"):
        (here / "e.yaml").write_text(f"attacks: {attacks}\neps: 0.1\n")
        ended = call("attack", models / "vanilla.pt", "--config", "e.yaml")
        assert (ended.code, "give --attack SPEC" in ended.error) == (2, True)


def test_a_config_that_is_missing_is_one_line(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", "--config", "no.yaml")
    assert (ended.code, "--config no.yaml" in ended.error) == (2, True)


def test_a_config_is_never_written_over(call: Call, models: Path, here: Path) -> None:
    (here / "config").write_text("limit: 4\n")
    ended = call("evaluate", models / "vanilla.pt", "--config", "config", "--json", "config")
    assert (ended.code, (here / "config").read_text()) == (2, "limit: 4\n")


def test_flags_that_stand_for_a_spec_still_do() -> None:
    flags = {"style": "table", "checks": "off", "eps": "0.1", "steps": 3, "attack": ["pgd"]}
    assert read_flags(flags) == EvalSpec(attacks=("pgd",), eps="0.1", steps=3)  # type: ignore[arg-type]
