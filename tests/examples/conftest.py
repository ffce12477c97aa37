"""Folders as a user who copies an example has them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import ROOT, Work

EXAMPLES = ROOT / "examples"


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
