"""What was probably meant: by keys, values, variables, commands and options that do not exist."""

import pytest

from data.errors import ConfigError
from pipeline.config import ENVIRONMENT_PREFIX, PipelineConfig, load_config
from pipeline.keys import all_keys, field_at
from pipeline.suggestions import _BY_OTHER_NAME, _OTHER_TOOLS, _VALUES, variable_hint
from stages.objectives.catalogue import OBJECTIVES
from stages.objectives.terms import _OTHER_NAMES

SMALLEST = "reference:\n  model: some/model\ndata:\n  train: prefs.jsonl\n"


@pytest.fixture
def problem(tmp_path):
    def problem(*assignments: str, text: str = SMALLEST) -> str:
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "c.yaml", assignments, {})
        return str(caught.value)

    return problem


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("train.num_train_epochs=2", "train.num_train_epochs: there is no such key; it is called train.epochs here: v"),
        ("train.num_epochs=2", "it is called train.epochs here: visits of each training pair"),
        ("train.loss_type=ipo", "it is called train.objective here: the loss"),
        ("train.per_device_train_batch_size=4", "it is called train.pairs_per_step here: pairs of one optimiser step"),
        ("output_dir=x", "it is called workdir here: folder for everything that is written"),
        ("train.lora_r=8", "it is called train.lora.r here: rank"),
        ("reference.torch_dtype=bfloat16", "it is called reference.dtype here: compute dtype of reference"),
        ("train.max_length=512", "train.max_length: there is no such key; did you mean data.max_length?"),
        ("beta=0.2", "--set beta: beta: there is no such key; did you mean train.beta?"),
        ("dtype=float32", "did you mean reference.dtype?"),
        ("data.model=m", "did you mean reference.model, train.model or eval.model?"),
        ("data.columns={prompt: q}", "did you mean data.train.columns or data.eval.columns?"),
        ("train__beta=0.2", "did you mean train.beta?"),
        ("train.bata=0.2", "train.bata: there is no such key; did you mean beta?"),
        ("data.train={path: a, colums: {a: b}}", "data.train.0.colums: there is no such key; did you mean columns"),
        ("eval.external={judge: {timout: 3}}", "external.judge.timout: there is no such key; did you mean timeout?"),
        ("train.zzz=1", "train.zzz: there is no such key; known here: objective, beta,"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_exist_is_told_which_was_meant(problem, assignment, hint):
    assert hint in problem(assignment)


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("reference.dtype=bf16", "input should be 'float32' or 'bfloat16' (got 'bf16'); did you mean bfloat16?"),
        ("reference.dtype=fp32", "did you mean float32?"),
        ("reference.quantization=4bit", "did you mean nf4?"),
        ("train.report_to=tensorbord", "train.report_to.0: input should be"),
        ("train.report_to=tensorbord", "(got 'tensorbord'); did you mean tensorboard?"),
        ("train.optim=paged_adamw_8bit", "did you mean adamw_8bit?"),
        ("train.lr_scheduler_type=cosin", "did you mean cosine?"),
        ("scoring.backend=flex_attention", "did you mean flex?"),
        ("train.objective=dpo", "there is no objective 'dpo'; did you mean sigmoid?"),
        ("train.objective=ipoo", "there is no objective 'ipoo'; did you mean ipo?"),
        ("eval.min={reward_acuracy: 0.6}", "no such metric: reward_acuracy; did you mean reward_accuracy?"),
        ("train.metric_for_best_model=reward_acuracy", "no such metric: reward_acuracy; did you mean reward_accuracy?"),
    ],
)
def test_a_value_of_a_fixed_choice_is_told_which_was_meant(problem, assignment, hint):
    assert hint in problem(assignment)


def test_where_nothing_is_near_only_the_choices_are_shown(problem):
    assert problem("reference.dtype=qqq").endswith("input should be 'float32' or 'bfloat16' (got 'qqq')")


def test_other_tools_names_lead_to_keys_and_values_that_exist_and_are_none_of_ours():
    keys = all_keys(PipelineConfig)
    assert [key for key in _OTHER_TOOLS if field_at(PipelineConfig, key.split(".")) is None] == []
    own = {key.rpartition(".")[2] for key in keys}
    assert _BY_OTHER_NAME.keys() & own == set()
    assert len(_BY_OTHER_NAME) == sum(len(names.split()) for names in _OTHER_TOOLS.values())
    choices = " ".join(str(field.annotation) for field in keys.values())
    assert [value for value in {*_VALUES.values()} if f"'{value}'" not in choices] == []
    assert {*_OTHER_NAMES.values()} <= OBJECTIVES.keys() and not _OTHER_NAMES.keys() & OBJECTIVES.keys()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("PIPELINE_TRAIN_BETA", "PIPELINE_TRAIN__BETA"),
        ("PIPELINE_DATA_MAX_LENGHT", "PIPELINE_DATA__MAX_LENGTH"),
        ("PIPELINE_WORKDIRS", "PIPELINE_WORKDIR"),
        ("PIPELINE_WORKSPACE", None),
        ("PIPELINE_ID", None),
        ("PIPELINE_RUN_ID", None),
        ("PIPELINE_RESULT", None),
    ],
)
def test_a_variable_that_names_no_key_is_told_which_was_meant_and_others_are_left_alone(variable, meant):
    assert variable_hint(variable, ENVIRONMENT_PREFIX, PipelineConfig) == meant


def test_a_variable_with_one_underscore_is_passed_over_with_a_warning(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text(SMALLEST)
    environment = {"PIPELINE_TRAIN_BETA": "0.7", "PIPELINE_WORKSPACE": "/agent/1"}
    assert load_config(tmp_path / "c.yaml", (), environment).train.beta == 0.1
    assert caplog.messages == [
        "PIPELINE_TRAIN_BETA names no key and is passed over; did you mean PIPELINE_TRAIN__BETA?"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["precompute_ref"], "No such command 'precompute_ref'. Did you mean 'precompute-ref'?"),
        (["train", "--sett", "x"], "No such option: --sett"),
        (["train", "--confg", "x"], "No such option: --confg"),
        (["train", "--beta", "1"], "--beta. The configuration has such a key: --set train.beta=..."),
        (["train", "--train.beta", "1"], "--train.beta. The configuration has such a key: --set train.beta=..."),
        (["train", "--num-train-epochs", "1"], "has such a key: --set train.epochs=..."),
        (["eval", "--seed", "1"], "has such a key: --set train.seed=..."),
    ],
)
def test_a_command_or_option_that_does_not_exist_is_told_which_was_meant(arguments, said, capsys):
    from pipeline.cli import app

    with pytest.raises(SystemExit) as ended:
        app(arguments)
    shown = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and said in shown
    possible = {"--sett": "--set", "--confg": "--config"}.get(arguments[-2] if len(arguments) > 1 else "", "")
    assert possible in shown.split(said)[1]
