"""The commands of docs/training.md and docs/several-gpus.md, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.training.config import _NO_PART_OF_A_RUN
from tests.tiny import ROOT, example_rows, write_jsonl

DOCS = ROOT / "docs"


def commands_of(page: str) -> list[str]:
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


@pytest.mark.parametrize(("page", "least"), [("training.md", 6), ("several-gpus.md", 5)])
def test_every_command_does_what_the_page_says(folder, commands, page, least):
    """In a shell; the first of torchrun's as they are installed, the others where torch is imported already."""
    listed = commands_of(page)
    assert len(listed) >= least
    for i, command in enumerate(listed):
        programs = Path(sys.executable).parent if (page, i) == ("several-gpus.md", 0) else commands
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    assert (folder / "work" / "latest" / "policy" / "model.safetensors").is_file()


def test_what_may_change_in_the_middle_of_a_run_is_listed():
    text = (DOCS / "training.md").read_text()
    listed = text[text.index("These may change at any time") : text.index("as long as no")]
    assert set(re.findall(r"`(\w+)`", listed)) == _NO_PART_OF_A_RUN | {"eval_every"}
