"""What holds for the repository as a whole: layers, names, packaging, configurations, help."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli import app
from pipeline.config import load_config
from pipeline.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "stages", "data")
FORBIDDEN_LAYERS = {"data": ("stages", "pipeline"), "stages": ("pipeline",), "pipeline": ()}
JOB_FILES = ("precompute_ref", "train", "evaluate")
PICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "polars", "numpy", "pydantic")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def _ignored_folders() -> set[str]:
    """Names of folders that are no part of the repository, from its own list."""
    lines = (ROOT / ".gitignore").read_text().split()
    return {".git", *(line.strip("/") for line in lines if line.endswith("/"))}


def _files(top: Path) -> Iterator[Path]:
    ignored = _ignored_folders()
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in ignored and not name.endswith(".egg-info"))
        yield from (Path(folder, name) for name in sorted(names))


SOURCES = [path for package in PACKAGES for path in _files(ROOT / package) if path.suffix == ".py"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in the file; `from a import b` gives a and a.b."""
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def _reaches(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in _imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert [upper for upper in FORBIDDEN_LAYERS[layer] if _reaches(path, upper)] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if _name(path).startswith("data/")], ids=_name)
def test_the_packages_of_data_import_one_way(path: Path) -> None:
    package = path.relative_to(ROOT / "data").parts[0]
    allowed = {
        "rows": (),
        "sources": ("rows",),
        "tokens": ("rows",),
        "pairs": ("rows", "sources", "tokens"),
        "store": (),
    }
    forbidden = [other for other in allowed if other not in (package, *allowed.get(package, ()))]
    assert path.parent == ROOT / "data" or [other for other in forbidden if _reaches(path, f"data.{other}")] == []


@pytest.mark.parametrize("job", JOB_FILES)
def test_job_files_do_not_import_one_another(job: str) -> None:
    path = ROOT / "stages" / f"{job}.py"
    assert [other for other in JOB_FILES if other != job and _reaches(path, f"stages.{other}")] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_pickles(path: Path) -> None:
    assert [module for module in PICKLING if _reaches(path, module)] == []
    assert [name for name in ("torch.load", "torch.save") if _reaches(path, name)] == []
    calls = {ast.unparse(node) for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
    assert calls & {"torch.load", "torch.save"} == set()
    keywords = {node.arg for node in ast.walk(_tree(path)) if isinstance(node, ast.keyword)}
    assert "allow_pickle" not in keywords


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(_tree(path))


def test_no_file_has_a_vague_name() -> None:
    paths = [path.relative_to(ROOT) for path in _files(ROOT) if path.suffix == ".py"]
    assert [str(path) for path in paths if VAGUE_NAMES & {*path.parts[:-1], path.stem}] == []


def test_the_command_line_loads_nothing_heavy() -> None:
    """Help and usage errors must answer at once."""
    code = "import json, sys, pipeline.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "typer" in loaded
    assert loaded & set(HEAVY) == set()


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_packages_of_the_wheel_are_the_packages_on_disk() -> None:
    on_disk = {".".join(path.relative_to(ROOT).parent.parts) for path in SOURCES}
    listed = _pyproject()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(on_disk)
    assert [name for name in listed if not (ROOT / name.replace(".", "/") / "__init__.py").is_file()] == []


def test_the_version_is_in_one_place() -> None:
    project = _pyproject()
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pipeline.version.__version__"}
    literal = re.compile(rf"""["']{re.escape(__version__)}["']""")
    files = [*SOURCES, ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "Dockerfile"]
    assert [_name(path) for path in files if literal.search(path.read_text())] == ["pipeline/version.py"]


def test_the_changelog_starts_with_the_version() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    places = [f"/{first}/{second}" for first, second in (("work", "main"), ("work", "shared"), ("tmp", "w/"))]
    texts = {path: path.read_bytes() for path in _files(ROOT) if path.stat().st_size < 5_000_000}
    assert [_name(path) for path, text in texts.items() if any(place.encode() in text for place in places)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=_name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    load_config(path, environment={})


GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands


@pytest.mark.parametrize("command", [GROUP, *COMMANDS.values()], ids=lambda command: command.name)
def test_every_command_and_every_option_has_help(command: Any) -> None:
    assert command.help
    assert command.params
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"\bpipeline {re.escape(name)}(?![\w-])", (ROOT / "README.md").read_text())
