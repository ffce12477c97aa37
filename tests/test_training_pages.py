"""The commands of docs/training.md and docs/several-gpus.md, run as they stand there."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.training.config import _NO_PART_OF_A_RUN
from tests.jobs import Command
from tests.tiny import ROOT, example_rows, write_jsonl

DOCS = ROOT / "docs"


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def folder(tmp_path, model_folder):
    """A folder with the page's configuration: the tiny model in place of its model, a batch of few pairs."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    config = yaml.safe_load(block)
    config["reference"]["model"] = str(model_folder)
    config["train"]["pairs_per_step"] = 4
    config["data"]["eval_fraction"] = 0.25
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(config))
    write_jsonl(tmp_path / "prefs.jsonl", example_rows(40))
    return tmp_path


def by_torchrun(words: list[str], folder: Path) -> list[Command]:
    """The processes that this command of torchrun starts."""
    processes = int(words[words.index("--nproc-per-node") + 1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(processes)}
    arguments = words[words.index("pipeline") + 1 :]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [Command(arguments, folder, os.environ | told | rank) for rank in ranks]


@pytest.mark.parametrize(("page", "least"), [("training.md", 6), ("several-gpus.md", 5)])
def test_every_command_does_what_the_page_says(folder, page, least):
    """The first of each kind in a shell, the others in processes that have imported torch already."""
    listed, kinds = commands(page), set()
    assert len(listed) >= least
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    for command in listed:
        kind, *words = shlex.split(command, comments=True)
        if kind not in kinds:
            shell = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            done = [shell]
        else:
            started = by_torchrun(words, folder) if kind == "torchrun" else [Command(words, folder)]
            done = [each.finish() for each in started]
        kinds.add(kind)
        assert [each.returncode for each in done] == [0] * len(done), (command, done[0].stderr)
    assert (folder / "work" / "latest" / "policy" / "model.safetensors").is_file()


def test_what_may_change_in_the_middle_of_a_run_is_listed():
    text = (DOCS / "training.md").read_text()
    listed = text[text.index("These may change at any time") : text.index("as long as no")]
    assert set(re.findall(r"`(\w+)`", listed)) == _NO_PART_OF_A_RUN | {"eval_every"}
