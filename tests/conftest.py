"""Fixtures: what tests/tiny.py builds, ready to use."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads cost more than they bring
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # where a test asks for threads: spinning ones take other processes' cores

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline  # noqa: F401 - puts our own `stages` and `data` first
from tests.tiny import Work, build_tokenizer, save_model


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny model folder for the whole session; tests that change files copy it."""
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def work(tmp_path: Path, model_folder: Path) -> Work:
    return Work(tmp_path, model_folder)


@pytest.fixture
def make_work(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Callable[[], Work]:
    """Further work folders."""
    return lambda: Work(tmp_path_factory.mktemp("work"), model_folder)
