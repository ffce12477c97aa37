"""Fixtures: what tests/tiny.py builds, ready to use."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads cost more than they bring
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # where a test asks for threads: spinning ones take other processes' cores
os.environ.pop("GITHUB_STEP_SUMMARY", None)  # of the CI step that runs the tests: no place for what they evaluate

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import pipeline  # noqa: F401 - puts our own `stages` and `data` first
from pipeline.svg import can_draw
from tests.tiny import Work, build_tokenizer, save_model

LONGEST = (
    "test_exact_resume", "test_train", "test_compiled", "test_training_pages", "test_torchrun",
    "test_several_processes", "test_gating", "test_start", "test_reuse", "test_commands", "test_generation",
    "test_container", "test_part_maker", "test_remote_store", "test_training_memory", "test_several_workers",
    "test_adapters", "test_visits", "test_evaluate",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process is left with one of them at the end."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _without_figures() -> Iterator[None]:
    """Reports as where matplotlib is not installed: to draw takes longer than to evaluate. Other processes draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.figures.can_draw", lambda: False)
        yield


@pytest.fixture(scope="module")
def figures() -> Iterator[None]:
    """For tests of what is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.figures.can_draw", can_draw)
        yield


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


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with `pipeline` and `torchrun` in it, which answer at once (tests/warm.py)."""
    from tests.jobs import forked
    from tests.warm import serve, write_commands

    folder = tmp_path_factory.mktemp("bin")
    address = folder / "server"
    server = forked(serve, str(address))
    try:
        deadline = time.monotonic() + 120
        while not address.exists():
            assert server.is_alive() and time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)
        write_commands(folder, address)
        yield folder
    finally:
        server.kill()
        server.join()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3-compatible server in a process of its own, on the loopback interface; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.rpartition(":")[2]]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket on that server, and the environment in which it is reached."""
    import s3fs

    settings = {
        "ENDPOINT_URL": s3_server,
        "ACCESS_KEY_ID": "any",
        "SECRET_ACCESS_KEY": "any",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid4().hex}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture
def make_work(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Callable[[], Work]:
    """Further work folders."""
    return lambda: Work(tmp_path_factory.mktemp("work"), model_folder)
