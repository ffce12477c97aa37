"""A release: what is built is what is in the tree, runs where it is installed, and has its section in the changelog."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.version import Version

from pipeline.version import __version__
from tests.test_docker import context, files_of_the_wheel
from tests.tiny import ROOT, example_rows, write_jsonl

BUILD = "import sys, setuptools.build_meta as backend; [getattr(backend, each)('dist') for each in sys.argv[1:]]"


def build(folder, *what):
    """Suffix -> file. The date in the archives is given, as `make dist` does: by default it is that of the build."""
    (folder / "dist").mkdir()
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, "-c", BUILD, *what], cwd=folder, env=environment, capture_output=True, check=True)
    return {path.suffix: path for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what goes into a wheel or a source archive, and of a test, which goes into none."""
    folder = tmp_path_factory.mktemp("tree")
    for path in [*context(), "CHANGELOG.md", "MANIFEST.in", "tests/test_release.py"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def built(tree):
    return build(tree, "build_sdist", "build_wheel")


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The command in a fresh environment that has the wheel itself, and everything else from the one of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-compile",
    ]
    subprocess.run([*install, built[".whl"]], capture_output=True, check=True)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # behind its own: not read as a place of .pth files
    return folder / "bin" / "pipeline"


def run(installed, folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [installed, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_the_wheel_is_the_packages_and_nothing_else(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    mine = {name for name in files if ".dist-info/" not in name}
    assert mine == files_of_the_wheel()
    assert [name for name in mine if files[name] != (ROOT / name).read_bytes()] == []


def test_the_source_archive_makes_the_same_wheel_to_the_byte(built, tmp_path):
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert not (source / "tests").exists()
    assert {"CHANGELOG.md", "LICENSE", "requirements.lock"} <= {path.name for path in source.iterdir()}
    assert build(source, "build_wheel")[".whl"].read_bytes() == built[".whl"].read_bytes()


def test_the_metadata_is_valid_and_what_an_index_shows(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Metadata.from_email(wheel.read(name), validate=True)
    assert (metadata.name, str(metadata.version)) == ("offline-preference-pipeline", __version__)
    assert metadata.license_expression == "Apache-2.0" and metadata.license_files == ["LICENSE"]
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.description_content_type == "text/markdown" and metadata.description.startswith("# ")


def test_the_installed_command_works_elsewhere(installed, tmp_path):
    """Up to the model, which is not there: loading one is tested elsewhere, and takes seconds."""
    assert run(installed, tmp_path, "--version").stdout == f"pipeline {__version__}\n"
    assert "Usage: pipeline" in run(installed, tmp_path, "--help").stdout
    write_jsonl(tmp_path / "prefs.jsonl", example_rows(4))
    assert run(installed, tmp_path, "init", "--model", "no-model").returncode == 0  # its templates are in the wheel
    checked = run(installed, tmp_path, "validate", "--config", "pipeline.yaml", "-vv")
    assert checked.returncode == 2 and "reference.model: no-model is neither a folder" in checked.stderr
    places = set(re.findall(r'File "(.*/(?:pipeline|stages|data)/[^"]*)"', checked.stderr))
    assert places and all(Path(place).is_relative_to(installed.parents[1]) for place in places)


def problems(changelog, version, tag=None):
    """What is wrong with the first section of a changelog for this version, and for a tag of it."""
    heading = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    named = re.fullmatch(r"(\S+) - (unreleased|\d{4}-\d{2}-\d{2})", heading[1]) if heading else None
    if not named or named[1] != version:
        return [f"the first section is not that of {version}"]
    if tag is None:
        return []
    wrong = [] if tag == f"v{version}" else [f"the tag {tag} is not v{version}"]
    wrong += ["the section has no date"] if named[2] == "unreleased" else []
    wrong += ["the version is one of development"] if Version(version).is_prerelease else []
    return wrong


def tag_of_this_commit():
    command = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None


def test_the_changelog_has_the_section_of_this_version_and_a_tagged_one_has_a_date():
    assert problems((ROOT / "CHANGELOG.md").read_text(), __version__, tag_of_this_commit()) == []


@pytest.mark.parametrize(
    ("heading", "version", "tag", "expected"),
    [
        ("1.0.0 - unreleased", "1.0.0", None, []),
        ("1.0.0 - 2026-12-01", "1.0.0", "v1.0.0", []),
        ("1.0.0 - unreleased", "1.0.0", "v1.0.0", ["the section has no date"]),
        ("1.0.0 - 2026-12-01", "1.0.0", "v1.0.1", ["the tag v1.0.1 is not v1.0.0"]),
        ("1.0.0 - 2026-12-01", "1.1.0", None, ["the first section is not that of 1.1.0"]),
        ("1.0.0", "1.0.0", None, ["the first section is not that of 1.0.0"]),
        ("1.0.0.dev1 - 2026-12-01", "1.0.0.dev1", "v1.0.0.dev1", ["the version is one of development"]),
    ],
)
def test_what_is_wrong_with_a_changelog_is_seen(heading, version, tag, expected):
    assert problems(f"# Changelog\n\n## {heading}\n\n## 0.9.0 - 2026-01-01\n", version, tag) == expected
