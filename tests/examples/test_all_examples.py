"""Every example has a test, a place in examples/README.md, and the same three commands."""

import re
import shlex

import pytest
import yaml

from tests.examples.conftest import EXAMPLES
from tests.tiny import ROOT

FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
THREE = [f"pipeline {job} --config pipeline.yaml" for job in ("precompute-ref", "train", "eval")]
JOBS = re.compile(r"pipeline (?:precompute-ref|train|eval)[^\n|&;]*?--config [\w./-]+")


def commands(folder):
    """The jobs that an example runs, in their order; of a script what is a comment does not count."""
    compose = EXAMPLES / folder / "compose.yaml"
    if compose.exists():
        services = yaml.safe_load(compose.read_text())["services"].values()
        return [shlex.join(["pipeline", *shlex.split(service["command"])]) for service in services]
    order = ["score.sbatch", "train.sbatch", "eval.sbatch"] if folder == "slurm" else sorted(
        path.name for path in (EXAMPLES / folder).iterdir()
    )  # fmt: skip
    texts = "\n".join((EXAMPLES / folder / name).read_text() for name in order)
    return JOBS.findall(re.sub(r"^\s*#.*$", "", texts, flags=re.MULTILINE))


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name != "demo"])
def test_every_example_has_the_same_three_commands(folder):
    assert commands(folder) == THREE


def test_the_demo_has_them_in_the_makefile():
    recipe = (ROOT / "Makefile").read_text()
    assert "for job in precompute-ref train eval; do" in recipe and "pipeline $$job --config $(DEMO)" in recipe


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_example_has_a_test_and_is_in_the_list(folder):
    name = f"test_{folder.replace('-', '_')}.py"
    assert (ROOT / "tests" / "examples" / name).is_file() or (ROOT / "tests" / name).is_file()
    assert f"]({folder}" in (EXAMPLES / "README.md").read_text()
