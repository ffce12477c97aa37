"""`pipeline config`: the resolved configuration with where each key came from, and the schema for editors."""

import json
import re
from typing import Any

import pytest
import yaml

from data.errors import ConfigError
from pipeline.config import PipelineConfig, load_config
from pipeline.config_job import run_config, shown
from pipeline.config_schema import config_schema
from pipeline.keys import all_keys
from pipeline.yaml_source import load_yaml
from stages.objectives.catalogue import OBJECTIVES
from tests.tiny import ROOT

TEXT = """\
reference:
  model: some/model
data:
  train:
    - a.jsonl
    - path: b.jsonl
      weight: 0.5
train:
  beta: 0.2
  epochs: 2
eval:
  min: {reward_accuracy: 0.6}
"""


@pytest.fixture
def show(tmp_path, monkeypatch):
    """Write a configuration and show it: the document, and its lines by key."""
    monkeypatch.chdir(tmp_path)

    def show(text: str = TEXT, *assignments: str, **environment: str):
        (tmp_path / "c.yaml").write_text(text)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        document = run_config((tmp_path / "c.yaml").relative_to(tmp_path), assignments, "show").document()
        return document, shown(document)

    return show


def test_every_key_says_where_it_came_from(show):
    assignments = ["train.epochs=3", "eval.min.ranking_accuracy=0.5", "train.lora.r=4"]
    document, text = show(TEXT, *assignments, PIPELINE_TRAIN__BETA="0.3")
    origins = document["origins"]
    assert {key: origins[key] for key in origins if origins[key] != "default"} == {
        "reference.model": "c.yaml:2",
        "data.train.0.path": "c.yaml:5",
        "data.train.1.path": "c.yaml:6",
        "data.train.1.weight": "c.yaml:7",
        "train.beta": "PIPELINE_TRAIN__BETA",
        "train.epochs": "--set train.epochs",
        "train.lora.r": "--set train.lora.r",
        "eval.min": "c.yaml:12, --set eval.min.ranking_accuracy",
    }
    aside = ("data.train", "train.lora", "eval.generate.prompts", "eval.generate.max_new_tokens")
    assert {key for key in all_keys(PipelineConfig) if key not in aside} <= origins.keys()
    lines = text.splitlines()
    assert "  beta: 0.3".ljust(48) + "  # PIPELINE_TRAIN__BETA" in lines
    assert "workdir: work".ljust(48) + "  # default" in lines
    assert "    - path: b.jsonl".ljust(48) + "  # c.yaml:6" in lines
    assert all("  # " in line or line.endswith(":") for line in lines)


def test_a_section_that_is_replaced_as_a_whole_forgets_the_lines_that_it_had(show):
    origins = show(TEXT, "train={beta: 0.4, epochs: 2}")[0]["origins"]
    assert (origins["train.beta"], origins["train.epochs"]) == ("--set train", "--set train")


@pytest.mark.parametrize(
    "run", ["12e5", "0123", "yes", "a\nb", "2026-11-21", "a: b #c", "'", '"', "x\ty", "~", "- a", "é\u2028"]
)
def test_what_is_shown_is_a_configuration_that_comes_to_the_same(show, tmp_path, run):
    judge = r"""eval.external={j: {command: "a # b\n c '"}}"""
    assignments = [f"run={run}", judge, "train.learning_rate=3e-7"]
    _, text = show(TEXT, *assignments)
    (tmp_path / "again.yaml").write_text(text)
    assert load_config(tmp_path / "again.yaml", (), {}) == load_config(tmp_path / "c.yaml", assignments, {})


def test_secrets_are_not_shown(show):
    document, text = show(
        TEXT, "store.url=s3://key:hunter2@bucket/x", "eval.external={judge: 'judge.py --api-key sk-abcdefghijk'}"
    )
    for given in (text, json.dumps(document)):
        assert "hunter2" not in given and "sk-abcdefghijk" not in given and "[redacted]" in given
    assert document["origins"]["store.url"] == "--set store.url"


def test_a_configuration_with_problems_is_not_shown(show):
    with pytest.raises(ConfigError, match=r"c\.yaml:2: reference\.modle: there is no such key; did you mean model\?"):
        show(TEXT.replace("model:", "modle:"))


def test_the_commands_print_it_and_need_a_configuration_only_to_show_one(capsys, tmp_path):
    from pipeline.cli import app

    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            app(["config", *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    (tmp_path / "c.yaml").write_text(TEXT)
    assert json.loads(printed("schema")) == config_schema() == json.loads(printed("schema", "--json"))["schema"]
    assert yaml.safe_load(printed("show", "-c", str(tmp_path / "c.yaml")))["train"]["beta"] == 0.2


SCHEMA = config_schema()
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_ASIDE = {"description", "default", "title", "$schema", "$defs"}


def _problems(value: Any, schema: Any = SCHEMA, at: str = "") -> list[str]:
    """What JSON Schema says against a value, for the keywords that ours uses; an unknown one is an error here."""
    found: list[str] = []
    for word, said in schema.items():
        if word == "$ref":
            found += _problems(value, SCHEMA["$defs"][said.rpartition("/")[2]], at)
        elif word == "anyOf":
            found += [] if any(_problems(value, each, at) == [] for each in said) else [at]
        elif word == "type":
            found += [] if any(_is(value, each) for each in ([said] if isinstance(said, str) else said)) else [at]
        elif word in ("enum", "const"):
            found += [] if value in (said if word == "enum" else [said]) else [at]
        elif word in _OF_OBJECTS:
            found += _of_object(word, value, schema, at) if isinstance(value, dict) else []
        elif word in ("items", "minItems"):
            parts = value if isinstance(value, list) else []
            found += (
                [p for i, each in enumerate(parts) for p in _problems(each, said, f"{at}.{i}")]
                if word == "items"
                else [at] * (isinstance(value, list) and len(value) < said)
            )
        elif word == "pattern":
            found += [at] if isinstance(value, str) and not re.search(said, value) else []
        elif word in _LIMITS:
            found += [at] if _is(value, "number") and not _LIMITS[word](value, said) else []
        else:
            assert word in _ASIDE, word
    return found  # fmt: skip


_OF_OBJECTS = ("properties", "required", "additionalProperties", "propertyNames", "minProperties")
_LIMITS = {
    "minimum": lambda value, least: value >= least,
    "maximum": lambda value, most: value <= most,
    "exclusiveMinimum": lambda value, least: value > least,
    "exclusiveMaximum": lambda value, most: value < most,
}


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and (kind == "number" or value == int(value))
        )
    return isinstance(value, _TYPES[kind])


def _of_object(word: str, value: dict[str, Any], schema: Any, at: str) -> list[str]:
    said = schema[word]
    if word == "properties":
        return [p for name in value.keys() & said.keys() for p in _problems(value[name], said[name], f"{at}.{name}")]
    if word == "required":
        return [f"{at}.{name}" for name in said if name not in value]
    if word == "propertyNames":
        return [p for name in value for p in _problems(name, said, f"{at}.{name}")]
    if word == "minProperties":
        return [at] * (len(value) < said)
    others = value.keys() - schema.get("properties", {}).keys()
    return [p for name in others for p in ([f"{at}.{name}"] if said is False else _problems(value[name], said, at))]


SMALLEST = "reference: {model: m}\ndata: {train: a.jsonl}\n"


def _of(text: str) -> dict[str, Any]:
    return yaml.safe_load(SMALLEST) | yaml.safe_load(text)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_follow_the_schema(path):
    assert _problems(load_yaml(path)[0]) == []


def test_the_configuration_of_the_readme_and_a_resolved_one_follow_the_schema(show):
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert _problems(yaml.safe_load(block)) == []
    assert _problems(yaml.safe_load(show(TEXT, "train.lora.r=4", "eval.generate={}")[1])) == []


FORMS = [
    "data: {train: a.jsonl}",
    "data: {train: {path: a.jsonl}}",
    "data: {train: [a.jsonl, {path: b.jsonl, weight: 2}], eval: c.jsonl}",
    "data: {train: {path: a.jsonl, columns: {prompt: q, margin: gap}, pairs: all}}",
    "train: {report_to: tensorboard}",
    "train: {report_to: [wandb, trackio]}",
    *(f"train: {{objective: {name}}}" for name in OBJECTIVES),
    "train: {objective: {sigmoid: 0.8, bco_pair: 0.2}}",
    "train: {lora: {}}",
    "train: {lora: {target_modules: [q_proj]}}",
    "train: {metric_for_best_model: loss, eval_every: 5}",
    "eval: {model: a}",
    "eval: {model: [a, b]}",
    "eval: {external: {judge: python judge.py}, min: {judge/score: 1}}",
    "eval: {external: {judge: {command: x, timeout: 3}}}",
    "eval: {generate: {}, min: {generation_length: 3}, max: {leaked_pairs: 0}}",
    "eval: {baseline: passed, max_drop: {reward_accuracy: 0.01}}",
    "sweep: {objective: [ipo, {sigmoid: 1, sft: 0.1}], beta: [0.1]}",
    "run: 20261121",
    "reference: {model: m, id: 7}",
]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_that_jobs_take_follows_the_schema(text):
    PipelineConfig.model_validate(_of(text))
    assert _problems(_of(text)) == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("train: {bata: 1}", ".train.bata"),
        ("train: {beta: 0}", ".train.beta"),
        ("train: {epochs: 1.5}", ".train.epochs"),
        ("train: {objective: ipoo}", ".train.objective"),
        ("train: {report_to: [x]}", ".train.report_to"),
        ("reference: {model: m, dtype: bf16}", ".reference.dtype"),
        ("reference: {}", ".reference.model"),
        ("data: {train: []}", ".data.train"),
        ("data: {train: {path: a, colums: {}}}", ".data.train"),
        ("eval: {min: {accuracy: 1}}", ".eval.min.accuracy"),
        ("eval: {max_drop: {ece: 1}}", ".eval.max_drop.ece"),
        ("eval: {external: {judge: {}}}", ".eval.external"),
        ("nonsense: 1", ".nonsense"),
    ],
)
def test_what_jobs_refuse_by_itself_the_schema_refuses_too(text, at):
    assert at in _problems(_of(text))
    with pytest.raises(ValueError):
        PipelineConfig.model_validate(_of(text))


def test_the_schema_has_every_key_and_what_it_is_for():
    for key, field in all_keys(PipelineConfig).items():
        place = SCHEMA
        for part in key.split("."):
            kinds = [place, *place.get("anyOf", [])]
            place = next(SCHEMA["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind for kind in kinds
                         if "$ref" in kind or "properties" in kind)["properties"][part]  # fmt: skip
        assert place["description"] == " ".join(field.description.split()), key
