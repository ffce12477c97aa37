"""What is required: declared, used, locked, under licences that anybody may live with, and silent on the network."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.tiny import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"pipeline", "stages", "data"}
FOR_USERS = {
    "lora",
    "qlora",
    "8bit",
    "plot",
    "s3",
    "trackio",
    "wandb",
    "tensorboard",
}  # the other extras: for developers

# Imported without being declared, and why that will do.
PART_OF_ANOTHER = {"pydantic-core": "pydantic requires one exact version of it"}

# Declared without an import statement, and who imports it.
IMPORTED_BY_NAME = {
    "s3fs": "fsspec, for s3:// addresses",
    "trackio": "stages/training/trackers.py, where train.report_to names it",
    "wandb": "stages/training/trackers.py, where train.report_to names it",
    "tensorboard": "stages/training/trackers.py, where train.report_to names it",
}

# Anybody may use, change and pass on what is under these. MPL-2.0 asks for the source of its own files alone.
ALLOWED = {
    *("MIT", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC", "PSF-2.0"),
    *("MPL-2.0", "BSL-1.0", "Zlib", "CC0-1.0", "CNRI-Python"),
}
# What packages without an SPDX expression write into the classifiers or the field License.
IN_OTHER_WORDS = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# Needed on Linux with CUDA and not under a free licence: NVIDIA's libraries, which torch's own wheels require. NVIDIA
# allows to install and use them, and to pass them on as part of an application.
OF_NVIDIA = re.compile(r"(nvidia|cuda)-[a-z0-9-]+")
# Locked for other machines than this one; their licences, as they are on PyPI.
ELSEWHERE = {"triton": "MIT", "colorama": "BSD-3-Clause", "httpx2-jsfetch": "BSD-3-Clause", "tzdata": "Apache-2.0"}

# Modules that reach the network by themselves, and the files that may import them.
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "ftplib", "smtplib", "xmlrpc", "requests", "httpx", "aiohttp"}
MAY_REACH = {
    "data/durable.py": {"socket"},  # the name of this machine, in the owner of a lock
    "data/store/storage.py": {"fsspec"},  # store.url
    "data/sources/hub.py": {"datasets"},  # data sets of the Hub
    "stages/model_files.py": {"huggingface_hub"},  # models of the Hub
    "pipeline/doctor/hub.py": {"huggingface_hub"},  # says how the Hub's client is set up, and asks it for nothing
}


@cache
def imports():
    """(file, top-level module) of every import, also of those inside functions and by name."""
    found = set()
    for path in [path for package in OWN for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found |= {(path.relative_to(ROOT).as_posix(), name.partition(".")[0]) for name in names}
    return found


def declared(*, extras=False):
    lines = [*PROJECT["dependencies"]]
    if extras:
        lines += [line for extra in FOR_USERS for line in PROJECT["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def installed_closure():
    """Name -> distribution of everything that the project requires on this machine, directly or not."""
    found, waiting = {}, [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform, or a CPU build's
        wanted = [Requirement(line) for line in found[name].requires or []]
        for each in wanted:
            extras = ("", *requirement.extras)
            here = each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
            if here and canonicalize_name(each.name) not in found:
                waiting.append(each)
    return found


def licences(metadata):
    """SPDX identifiers: of the expression, or of the classifiers, or of a License field that is a name."""
    expression = metadata.get("License-Expression")
    if not expression:
        classifiers = [
            line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line
        ]
        words = classifiers or [metadata.get("License", "")]
        expression = " AND ".join(IN_OTHER_WORDS.get(each, each) for each in words)
    return {each.strip("() ") for each in re.split(r" AND | OR ", expression)}


def locked(name):
    """(requirement, its hashes) of every entry of a lock file."""
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    entries = [line.split(" --hash=") for line in text.splitlines() if line and line[0].isalnum()]
    return [(Requirement(entry.strip()), [each.strip() for each in hashes]) for entry, *hashes in entries]


def test_every_extra_is_for_users_or_for_developers():
    assert set(PROJECT["optional-dependencies"]) == FOR_USERS | {"dev", "demo", "bench"}


def test_what_is_imported_is_declared():
    owners = packages_distributions()
    foreign = {name for _, name in imports()} - OWN - set(sys.stdlib_module_names)
    distributions = {name: {canonicalize_name(owner) for owner in owners.get(name, [name])} for name in foreign}
    allowed = declared(extras=True) | set(PART_OF_ANOTHER)
    assert {name: owner for name, owner in distributions.items() if not owner & allowed} == {}


def test_what_is_declared_is_imported_or_known_to_be_by_another():
    owners = packages_distributions()
    used = {canonicalize_name(owner) for _, name in imports() for owner in owners.get(name, [name])}
    assert declared(extras=True) - used == set(IMPORTED_BY_NAME)
    assert set(PART_OF_ANOTHER) <= used - declared(extras=True)


def test_every_package_that_comes_along_has_a_licence_that_is_allowed():
    closure = {name: each for name, each in installed_closure().items() if not OF_NVIDIA.fullmatch(name)}
    found = {name: licences(each.metadata) for name, each in closure.items()}
    assert len(found) > len(PROJECT["dependencies"])
    assert {name: each - ALLOWED for name, each in found.items() if not each or each - ALLOWED} == {}


def test_a_licence_that_is_not_allowed_would_be_seen():
    class Metadata(dict):
        def get_all(self, name, default):
            return self.get(name, default)

    assert licences(Metadata({"License-Expression": "MIT AND GPL-3.0-only"})) - ALLOWED == {"GPL-3.0-only"}
    assert licences(Metadata({"Classifier": ["License :: OSI Approved :: GNU Affero GPL"]})) - ALLOWED
    assert licences(Metadata({})) - ALLOWED == {""}


def test_the_licence_of_every_locked_package_is_known():
    here = installed_closure()
    entries = [entry for entry, _ in locked("requirements.lock") if entry.marker is None or entry.marker.evaluate()]
    versions = {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in entries}
    if older := sorted(name for name in declared() if Version(here[name].version) < Version(versions[name])):
        pytest.skip(f"installed is what came before the locked versions: of {', '.join(older)}")
    for lock in ("requirements.lock", "requirements-cpu.lock"):
        names = {canonicalize_name(requirement.name) for requirement, _ in locked(lock)}
        unknown = {name for name in names - set(here) - set(ELSEWHERE) if not OF_NVIDIA.fullmatch(name)}
        assert unknown == set(), lock
    assert [name for name in names if OF_NVIDIA.fullmatch(name)] == []  # none in the lock file for CPUs
    assert set(ELSEWHERE.values()) <= ALLOWED


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-cpu.lock"])
def test_the_lock_file_has_a_version_with_hashes_of_everything_that_is_required(lock):
    entries = locked(lock)
    assert [entry for entry, hashes in entries if not hashes] == []
    assert [each for _, hashes in entries for each in hashes if not re.fullmatch("sha256:[0-9a-f]{64}", each)] == []
    assert [entry for entry, _ in entries if not re.fullmatch(r"==[^,*]+", str(entry.specifier))] == []
    for minor in (11, 12, 13, 14):
        machine = default_environment() | {
            "python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "sys_platform": "linux",
            "platform_machine": "x86_64", "platform_system": "Linux",
        }  # fmt: skip
        there = [entry for entry, _ in entries if entry.marker is None or entry.marker.evaluate(machine)]
        versions = {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in there}
        assert len(versions) == len(there)
        wanted = [Requirement(line) for line in PROJECT["dependencies"]]
        missing = [str(each) for each in wanted if versions.get(canonicalize_name(each.name)) not in each.specifier]
        assert missing == [], "run: make lock"


def test_the_lock_files_agree_and_name_no_index_but_the_one_of_torch_for_cpus():
    cuda, cpu = (
        {(e.name, str(e.marker)): str(e.specifier) for e, _ in locked(f"requirements{x}.lock")} for x in ("", "-cpu")
    )
    assert {name: version for name, version in cpu.items() if cuda.get(name) != version} == {
        ("torch", "None"): f"{cuda['torch', 'None']}+cpu"
    }
    lines = [line for x in ("", "-cpu") for line in (ROOT / f"requirements{x}.lock").read_text().splitlines()]
    assert [line for line in lines if "://" in line or line.startswith("-")] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu"
    ]


def test_only_these_files_could_reach_the_network():
    """That the jobs do not, where models and data are folders: test_security.py."""
    reaching = NETWORK | {"fsspec", "datasets", "huggingface_hub"}
    found = {}
    for path, name in imports():
        if name in reaching:
            found.setdefault(path, set()).add(name)
    assert found == MAY_REACH
