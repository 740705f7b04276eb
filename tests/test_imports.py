"""Imports run one way, heavy libraries load late, and public names resolve."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import robustcli

ROOT = Path(robustcli.__file__).parent
RANKS = [
    {"errors", "fields", "internet", "text"},
    {"disk", "tensorfile"},
    {"config", "noise", "device", "provenance"},
    {"data", "models", "attacks"},
    {"engine", "store"},
    {"training", "measure"},
    {"testing"},
    {"verdict"},
    {"report"},
    {"studies", "doctor", "api"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
MODULES = sorted(ROOT.rglob("*.py"))


def part(path: Path) -> str:
    """The layer that a file belongs to: a top-level module or a subpackage."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_parts(path: Path) -> set[str]:
    """The layers of this package that a file imports, but its own."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("robustcli.")}
    return {name for name in names if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()} - {part(path)}


def circle(paths: Iterable[Path], root: Path) -> list[str]:
    """Modules below `root` that import each other in turn, wherever in a file they do; none if there are none."""
    modules = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                # What is no module is a name in the one that it is imported from.
                names |= inner if inner <= modules.keys() else inner | {str(node.module)}
        graph[module] = names & modules.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


@pytest.mark.parametrize("folder", ["robustcli", "benchmarks", "scripts"])
def test_no_modules_import_each_other_in_a_circle(folder: str) -> None:
    top = ROOT.parent / folder
    assert circle(sorted(top.rglob("*.py")), ROOT.parent if folder == "robustcli" else top) == []


def test_the_name_of_a_file_is_unique_in_the_package() -> None:
    counts = Counter(path.stem for path in MODULES if path.name != "__init__.py" and part(path) != "cli")
    assert {name for name, count in counts.items() if count > 1} == set()


def test_every_module_has_a_rank() -> None:
    assert {part(path) for path in MODULES} - {"__init__"} == RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    if path != ROOT / "__init__.py":
        assert {name for name in own_parts(path) if RANK[name] >= RANK[part(path)]} == set()


def test_the_package_itself_imports_none_of_its_parts() -> None:
    assert own_parts(ROOT / "__init__.py") == set()


@pytest.mark.parametrize(("importer", "other"), [("attacks", "models"), ("models", "attacks")])
def test_attacks_and_models_never_import_each_other(importer: str, other: str) -> None:
    assert [path.name for path in (ROOT / importer).glob("*.py") if other in own_parts(path)] == []


def test_only_data_imports_torchvisions_data_sets() -> None:
    users = [path for path in MODULES if any(name.startswith("torchvision.datasets") for name in imported(path))]
    assert [path.name for path in users] == ["torchvision_sets.py"]


def test_nothing_loads_pickles() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for path in MODULES:
        names = {name for name in imported(path) if name.partition(".")[0] in banned}
        # To recognise the refusal of one is allowed.
        assert names in (set(), {"pickle", "pickle.UnpicklingError"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_evaluates_text_or_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert {call.id for call in calls if isinstance(call, ast.Name)} & {"eval", "exec", "compile", "print"} == set()


def test_every_public_name_resolves() -> None:
    assert [name for name in robustcli.__all__ if getattr(robustcli, name, None) is None] == []
    assert len(set(robustcli.__all__)) == len(robustcli.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FGMS'"):
        robustcli.FGMS  # noqa: B018


@pytest.mark.parametrize(
    "statement", ["import robustcli", "import robustcli.cli.main", "from robustcli import ConfigError"]
)
def test_importing_does_not_import_torch(statement: str) -> None:
    program = f"import sys; {statement}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
