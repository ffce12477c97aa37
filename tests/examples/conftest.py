"""A `pipeline` that answers at once, and folders as a user who copies an example has them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples.warm import write_command
from tests.tiny import ROOT, Work

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with `pipeline` in it (tests/examples/warm.py)."""
    folder = tmp_path_factory.mktemp("bin")
    address = folder / "server"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-m", "tests.examples.warm", str(address)], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not address.exists():
            assert server.poll() is None and time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        write_command(folder, address)
        yield folder
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def copied(tmp_path: Path, model_folder: Path) -> Callable[..., Work]:
    """Copies an example beside a pipeline.yaml whose paths are relative; returns the folder."""

    def copy(example: str, name: str = "night") -> Work:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / example, folder)
        work = Work(folder, model_folder)
        work.config.write_text(work.config.read_text().replace(f"{folder}/", ""))
        return work

    return copy
