"""`pipeline init --task`: files that load, explain themselves and are never overwritten."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import pipeline.init.templates as templates
from data.errors import ConfigError
from pipeline.cli import app
from pipeline.config import load_config
from pipeline.init.job import run_init, written
from pipeline.init.templates import TASKS, template
from tests.tiny import ROOT

EXPECTED = {
    "trial": {"reference.dtype": "float32", "data.max_length": 256},
    "full": {"train.lora": None, "train.fsdp": False, "train.gradient_checkpointing": True},
    "lora": {"train.lora.r": 16, "train.learning_rate": 1e-5},
    "several-gpus": {"train.fsdp": True, "train.pairs_per_step": 128},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_written_file_loads_and_is_for_its_task(tmp_path, task):
    out = tmp_path / "new" / "c.yaml"
    run_init(None, (), out=out, task=task, model="owner/model", data="pairs.jsonl")
    config = load_config(out, (), {})
    assert (config.reference.model, config.data.train[0].path) == ("owner/model", "pairs.jsonl")
    for key, value in EXPECTED[task].items():
        found = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value


@pytest.mark.parametrize("task", TASKS)
def test_every_key_has_a_comment_in_one_column(task):
    lines = [line for line in template(task).splitlines() if re.match(r" *[a-z_0-9]+: ", line)]
    assert len(lines) > 8
    assert [line for line in lines if line.find("# ") != 48 or len(line) > 120] == []


@pytest.mark.parametrize("task", TASKS)
def test_a_template_holds_the_example_that_is_replaced(task):
    assert yaml.safe_load(template(task))["data"]["train"] == "prefs.jsonl"


@pytest.mark.parametrize("name", ["a b #c.jsonl", "it's: odd.jsonl", "12e5", "yes", r"C:\data", "é/\u2028.jsonl"])
def test_names_are_written_so_that_they_are_read_as_they_are(tmp_path, name):
    out = tmp_path / "c.yaml"
    run_init(None, (), out=out, model=name, data=name)
    config = load_config(out, (), {})
    assert (config.reference.model, config.data.train[0].path) == (name, name)


def test_a_trial_passes_the_real_validate(work):
    work.config = work.folder / "trial.yaml"
    run_init(None, (), out=work.config, task="trial", model=str(work.model), data=str(work.data))
    document = work.run("validate", f"workdir={work.root}")
    assert min(document["coverage"]["splits"][split] for split in ("train", "eval")) > 0
    assert document["pairs"] == 40


def test_a_file_that_exists_is_left_as_it_is(tmp_path):
    (tmp_path / "c.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"There is a file .*c\.yaml already, and it is left as it is\. .*--out\."):
        run_init(None, (), out=tmp_path / "c.yaml")
    assert (tmp_path / "c.yaml").read_text() == "mine"


def test_the_command_needs_no_configuration_and_says_what_is_next(tmp_path, capsys, monkeypatch):
    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            app(["init", *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    assert printed().splitlines() == [
        "pipeline.yaml: a small model and short pairs, minutes on a CPU",
        "next:",
        "  pipeline doctor --config pipeline.yaml",
        "  pipeline validate --config pipeline.yaml",
        "  pipeline run --config pipeline.yaml",
    ]
    document = json.loads(printed("--task", "several-gpus", "--out", "a b.yaml", "--json"))
    start = "torchrun --standalone --nproc-per-node gpu --no-python pipeline run"
    assert document["next"][-1] == f"{start} --config 'a b.yaml'"
    assert document["outputs"] == {"config": "a b.yaml"} and document["task"] == "several-gpus"
    assert written(document).endswith(document["next"][-1])


def test_the_templates_are_part_of_the_wheel():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pipeline"]
    files = {path for pattern in data for path in (ROOT / "pipeline").glob(pattern)}
    folder = Path(templates.__file__).parent
    assert {folder / f"{task}.yaml" for task in TASKS} == set(folder.glob("*.yaml")) <= files
