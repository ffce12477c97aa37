"""Configuration: precedence, types as people mean them, and every problem at once with where it came from."""

import pytest
import yaml

from data.errors import ConfigError
from pipeline.config import load_config
from stages.evaluation.config import EvalConfig

SMALLEST = "reference:\n  model: some/model\ndata:\n  train: prefs.jsonl\n"


@pytest.fixture
def load(tmp_path):
    def load(text: str = SMALLEST, *assignments: str, **environment: str):
        file = tmp_path / "c.yaml"
        file.write_text(text)
        return load_config(file, assignments, environment)

    return load


def problems(load, *arguments: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **environment)
    return str(caught.value)


def test_defaults_then_file_then_environment_then_flags(load):
    assert load().train.beta == 0.1
    assert load(SMALLEST + "train:\n  beta: 0.2\n").train.beta == 0.2
    assert load(SMALLEST + "train:\n  beta: 0.2\n", PIPELINE_TRAIN__BETA="0.3").train.beta == 0.3
    both = load(SMALLEST + "train:\n  beta: 0.2\n", "train.beta=0.4", PIPELINE_TRAIN__BETA="0.3")
    assert both.train.beta == 0.4


def test_variables_of_ci_systems_that_begin_alike_are_left_alone(load):
    assert load(SMALLEST, PIPELINE_WORKSPACE="/agent/1", PIPELINE_ID="7", CI_PIPELINE_ID="8") == load()


@pytest.mark.parametrize("number", ["5e-7", "5.0e-7", "0.0000005", "5E-7", ".5e-6"])
def test_small_numbers_are_numbers(load, number):
    assert load(SMALLEST + f"train:\n  learning_rate: {number}\n").train.learning_rate == 5e-7
    assert load(SMALLEST, f"train.learning_rate={number}").train.learning_rate == 5e-7


@pytest.mark.parametrize("name", ["nightly", "20261121", "0123", "2026-11-21", "12e5", "1234567e9012", "yes"])
def test_a_key_that_holds_text_takes_it_as_it_is_written(load, name):
    assert load(SMALLEST, f"run={name}").run == name
    assert load(SMALLEST, PIPELINE_RUN=name).run == name


@pytest.mark.parametrize("name", ["2026-11-21", "0123", "20261121"])
def test_dates_and_leading_zeros_in_the_file_stay_text(load, name):
    assert load(SMALLEST + f"run: {name}\n").run == name


def test_the_smallest_configuration_of_the_readme(load):
    config = load(
        """
workdir: work
reference:
  model: HuggingFaceTB/SmolLM2-135M-Instruct
  dtype: bfloat16
data:
  train: prefs.jsonl.gz
  eval_fraction: 0.1
  dev_fraction: 0.0
  max_length: 1024
train:
  objective: sigmoid
  beta: 0.1
  learning_rate: 1.0e-6
  epochs: 1
  pairs_per_step: 16
  seed: 0
eval:
  min: {reward_accuracy: 0.6}
"""
    )
    assert config.eval.min == {"reward_accuracy": 0.6}


def test_what_is_resolved_can_be_run_again(load):
    config = load(SMALLEST, "run=20261121", "train.learning_rate=5e-7", "data.eval_fraction=0.2")
    assert load(config.as_yaml()) == config
    assert yaml.safe_load(config.as_yaml())["train"]["lr_scheduler_type"] == "linear"


def test_sources_are_a_name_a_mapping_or_a_list(load):
    one = "reference: {model: m}\ndata: {train: a.jsonl, eval: {path: owner/set, split: test}}\n"
    assert load(one).data.eval[0].split == "test"
    several = "reference: {model: m}\ndata: {train: [a.jsonl, {path: owner/set, split: train_prefs}]}\n"
    assert [source.name for source in load(several).data.train] == ["a.jsonl", "owner/set[train_prefs]"]


def test_a_wrong_key_of_a_section_that_may_be_left_out_is_told_which_there_are(load):
    message = problems(load, SMALLEST, "train.lora.dropout=0.1")
    assert "train.lora.dropout: there is no such key; known here: r, lora_alpha, target_modules, use_rslora" in message


def test_all_problems_are_shown_at_once_with_their_places(load):
    text = "reference:\n  modle: x\ndata:\n  train: a.jsonl\n  max_length: many\ntrain:\n  beta: 0\n"
    message = problems(load, text, "train.epochs=0", PIPELINE_TRAIN__LERNING_RATE="1")
    assert message.startswith("The configuration has 6 problems:")
    assert "c.yaml:2: reference.modle: there is no such key; did you mean model?" in message
    assert "reference.model: required, and not given (in the file, or as --set reference.model=...)" in message
    assert "c.yaml:5: data.max_length: input should be a valid integer" in message and "(got 'many')" in message
    assert "c.yaml:7: train.beta: input should be greater than 0 (got 0)" in message
    assert "--set train.epochs: train.epochs: input should be greater than or equal to 1 (got 0)" in message
    assert (
        "PIPELINE_TRAIN__LERNING_RATE: train.lerning_rate: there is no such key; did you mean learning_rate?" in message
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SMALLEST + "eval:\n  min: {accuracy: 0.6}\n",), "eval.min: no such metric: accuracy; did you mean reward"),
        ((SMALLEST + "  eval: b.jsonl\n  eval_fraction: 0.1\n",), "eval and eval_fraction both say what is held out"),
        ((SMALLEST, "data.eval_fraction=0.6", "data.dev_fraction=0.4"), "leave nothing to train on"),
        ((SMALLEST, "run=../x"), "'../x' is not a plain folder name"),
        ((SMALLEST, "train.objective=ipoo"), "train: there is no objective 'ipoo'; did you mean ipo?"),
        ((SMALLEST, "train.simpo_gamma=1"), "simpo_gamma has no effect on the objective sigmoid; remove it"),
        ((SMALLEST, "train.objective={sigmoid: 1, sftt: 1}"), "there is no objective 'sftt'; did you mean sft?"),
        (
            (SMALLEST, "data.train={path: a.jsonl, columns: {margin: gap}}", "train.objective=ipo"),
            "margins of the data have no effect on the objective ipo; sigmoid takes them",
        ),
        ((SMALLEST, "eval.point=true"), "eval: point has no effect without eval.min or eval.max; remove it"),
        (
            (SMALLEST, "eval.looks=365", "eval.min={reward_accuracy: 0.6}"),
            "eval: looks has no effect without eval.max_drop or eval.max_rise; remove it",
        ),
        (
            (SMALLEST, "eval.seed_sd={loss: 0.1}", "eval.min_overlap=0.5"),
            "eval: min_overlap and seed_sd have no effect without eval.baseline or eval.anchor; remove them",
        ),
        (
            (SMALLEST, "train.objective=simpo", "eval.min={reward_accuracy: 0.6}"),
            "eval.min: reward_accuracy cannot be had with the objective simpo, which reads no reference",
        ),
        ((SMALLEST, "train.label_smoothing=0.5"), "label_smoothing of sigmoid is 0.5; it has to be at least 0"),
        ((SMALLEST, "reference.dtype=float16"), "input should be 'float32' or 'bfloat16' (got 'float16')"),
        ((SMALLEST, "train.beta=.inf"), "finite"),
        ((SMALLEST, "train.beta"), "write it as --set key.subkey=value"),
        ((SMALLEST, "train.beta.x=1"), "--set train.beta.x: train.beta: input should be a valid number"),
        ((SMALLEST + "run: a\nrun: b\n",), "c.yaml:6: run is given twice, first in line 5"),
        (("a: [1\n",), "not valid YAML"),
        (("- a\n",), "holds no keys"),
        (("run: !foo 1\nworkdir: x\n",), "c.yaml:1: not valid YAML: could not determine a constructor"),
        (("run: !!int x\n",), "not valid YAML: ValueError: invalid literal for int"),
        (("? [a, b]\n: c\n",), "not valid YAML: found unhashable key"),
        (("run: &x [*x]\n",), "an anchor (&) stands inside itself"),
        ((SMALLEST, "train.beta=!!int x"), "--set train.beta: not valid YAML: ValueError"),
        (("reference: {model: m}\ndata: {train: [a.jsonl, {split: x}]}\n",), "data.train.1.path: required, and no"),
        (("reference: {model: m}\ndata: {train: a.jsonl, eval: []}\n",), "data.eval: value should have at least 1"),
    ],
)  # fmt: skip
def test_every_configuration_error_by_its_text(load, arguments, message):
    assert message in problems(load, *arguments)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        ConfigError, match=r"There is no configuration file .*none\.yaml\. Give its path with --config\."
    ):
        load_config(tmp_path / "none.yaml", (), {})


def test_every_field_is_documented():
    from pydantic import BaseModel

    from pipeline.config import PipelineConfig

    def undocumented(model: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += undocumented(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                found.append(prefix + name)
        return found

    assert undocumented(PipelineConfig, "") == []


def test_comparisons_share_one_rate_of_false_alarms_and_none_is_held_to_less_than_95_percent():
    def level(**settings):
        return EvalConfig.model_validate({"baseline": "passed", "max_drop": {"loss": 0.0}, **settings}).level

    assert level() == 0.95 == level(anchor="a")
    assert level(anchor="a", max_rise={"loss": 0.0}) == 1 - 2 * 0.05 / 4
    assert level(looks=365) == 1 - 2 * 0.05 / 365
