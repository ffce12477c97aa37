"""`pipeline init --from`: every key of another tool's file is taken over or named, and what is written loads."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.config import PipelineConfig, load_config
from pipeline.init.job import run_init, written
from pipeline.init.other_tools import translated
from pipeline.init.reasons import REASONS
from pipeline.init.written_file import as_file
from pipeline.keys import all_keys
from tests.tiny import ROOT

TRL = """
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
dataset_name: trl-lib/ultrafeedback_binarized
loss_type: [sigmoid, bco_pair, sft]
loss_weights: [0.8, 0.2, 1.0]
beta: 0.05
learning_rate: 5.0e-7
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
num_processes: 4
warmup_ratio: 0.1
lr_scheduler_type: cosine
use_peft: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
eval_strategy: steps
eval_steps: 50
logging_steps: 25
output_dir: Qwen-DPO
report_to: wandb
seed: 7
"""
AXOLOTL = """
base_model: meta-llama/Llama-3.2-1B
rl: dpo
load_in_4bit: true
adapter: qlora
lora_r: 64
lora_alpha: 32
lora_target_linear: true
datasets:
  - path: owner/pairs
    split: train_prefs
    revision: abc
    type: {field_prompt: question, field_chosen: better, prompt_format: "{prompt}"}
  - {path: json, data_files: [more.jsonl], type: chatml.intel}
val_set_size: 0.05
sequence_len: 2048
sample_packing: false
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: paged_adamw_8bit
learning_rate: 0.00002
rl_beta: 0.2
bf16: auto
gradient_checkpointing: true
wandb_project: dpo
wandb_name:
"""
LLAMA_FACTORY = """
model_name_or_path: Qwen/Qwen3-4B
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_loss: sigmoid
pref_beta: 0.1
pref_ftx: 0.5
dataset: mine, hub
dataset_dir: sets
template: qwen3
cutoff_len: 4096
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
bf16: true
plot_loss: true
save_steps: 500
"""
FILES = {"TRL": TRL, "axolotl": AXOLOTL, "LLaMA-Factory": LLAMA_FACTORY}
EXPECTED = {
    "TRL": {
        "reference.model": "Qwen/Qwen2.5-0.5B-Instruct",
        "data.train": "trl-lib/ultrafeedback_binarized",
        "data.eval": {"path": "trl-lib/ultrafeedback_binarized", "split": "test"},
        "train.objective": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0},
        "train.beta": 0.05,
        "train.learning_rate": 5e-7,
        "train.epochs": 1,
        "train.pairs_per_step": 64,
        "train.warmup_steps": 0.1,
        "train.lr_scheduler_type": "cosine",
        "train.lora.r": 32,
        "train.lora.lora_alpha": 16,
        "train.lora.target_modules": ["q_proj", "v_proj"],
        "train.gradient_checkpointing": True,  # its default
        "train.report_to": ["wandb"],
        "train.seed": 7,
        "workdir": "Qwen-DPO",
    },
    "axolotl": {
        "reference.model": "meta-llama/Llama-3.2-1B",
        "reference.dtype": "bfloat16",
        "reference.quantization": "nf4",
        "data.train": [
            {
                "path": "owner/pairs@abc",
                "split": "train_prefs",
                "columns": {"prompt": "question", "chosen": "better"},
            },
            "more.jsonl",
        ],
        "data.eval_fraction": 0.05,
        "data.max_length": 2048,
        "train.objective": "sigmoid",
        "train.beta": 0.2,
        "train.lora.r": 64,
        "train.lora.lora_alpha": 32,
        "train.lora.target_modules": "all-linear",
        "train.learning_rate": 2e-5,
        "train.optim": "adamw_8bit",
        "train.epochs": 3,
        "train.pairs_per_step": 8,
        "train.lr_scheduler_type": "cosine",  # its default
        "train.warmup_steps": 0.03,  # its default
        "train.gradient_checkpointing": True,
        "train.report_to": ["wandb"],
    },
    "LLaMA-Factory": {
        "reference.model": "Qwen/Qwen3-4B",
        "reference.dtype": "bfloat16",
        "data.train": [
            {"path": "{folder}/sets/mine.json", "columns": {"prompt": "talk", "chosen": "good"}},
            {"path": "owner/pairs", "split": "prefs"},
        ],
        "data.eval_fraction": 0.1,  # nothing is held out there
        "data.max_length": 4096,
        "train.objective": {"sigmoid": 1.0, "sft": 0.5},
        "train.beta": 0.1,
        "train.lora.r": 8,
        "train.lora.lora_alpha": 16,  # its default is twice the rank
        "train.lora.target_modules": "all-linear",
        "train.learning_rate": 5e-5,  # its default
        "train.epochs": 3,  # its default
        "train.pairs_per_step": 8,
        "train.gradient_checkpointing": True,  # its default
        "train.checkpoint_every": 500,
    },
}
INFO = """{"mine": {"file_name": "mine.json", "ranking": true, "columns":
           {"messages": "talk", "chosen": "good", "rejected": "rejected", "tools": "tools"}},
           "plain": {"file_name": "p.jsonl", "columns": {"prompt": "ask", "chosen": "yes", "rejected": "no"}},
           "odd": {"file_name": "o.jsonl", "columns": ["ask"]},
           "hub": {"hf_hub_url": "owner/pairs", "split": "prefs", "ranking": true}}"""


@pytest.fixture
def written_by(tmp_path):
    """The translation of a text, and of keys that are changed in it."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/dataset_info.json").write_text(INFO)

    def translate(text, **changed):
        given = yaml.safe_load(text) | changed
        (tmp_path / "theirs.yaml").write_text(
            yaml.safe_dump({name: value for name, value in given.items() if value != "ABSENT"})
        )
        return translated(tmp_path / "theirs.yaml")

    return translate


def values(translation):
    return {key: setting.value for key, setting in translation.settings.items()}


def told(translation):
    """Their keys that are taken over or named."""
    taken = {name for setting in translation.settings.values() for name in setting.sources}
    return {name.partition(".")[0] for name in taken | translation.unmapped.keys()}


def loaded(translation, folder):
    (folder / "ours.yaml").write_text(as_file(translation))
    return load_config(folder / "ours.yaml", (), {})


@pytest.mark.parametrize("tool", FILES)
def test_a_whole_file_becomes_what_it_says(written_by, tmp_path, tool):
    translation = written_by(FILES[tool])
    expected = yaml.safe_load(yaml.safe_dump(EXPECTED[tool]).replace("{folder}", str(tmp_path)))
    assert translation.tool == tool
    assert values(translation) == expected
    assert told(translation) == set(yaml.safe_load(FILES[tool]))
    config = loaded(translation, tmp_path)
    assert config.train.pairs_per_step == expected["train.pairs_per_step"]


CASES = [
    ("TRL", {"loss_type": "ipo", "loss_weights": "ABSENT"}, {"train.objective": "ipo"}),
    ("TRL", {"loss_type": ["sigmoid"], "loss_weights": [0.5]}, {"train.objective": {"sigmoid": 0.5}}),
    ("TRL", {"loss_type": "sigmoid", "loss_weights": "ABSENT", "rpo_alpha": 2},
     {"train.objective": {"sigmoid": 1.0, "sft": 2.0}}),
    ("TRL", {"loss_type": "sigmoid", "loss_weights": "ABSENT", "reference_free": True}, {"train.objective": "naive"}),
    ("TRL", {"label_smoothing": 0.1}, {"train.label_smoothing": 0.1}),
    ("TRL", {"ld_alpha": 0.5, "use_weighting": True}, {"train.ld_alpha": 0.5, "train.use_weighting": True}),
    ("TRL", {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
     {"train.f_divergence_type": "alpha_divergence", "train.f_alpha_divergence_coef": 0.7}),
    ("TRL", {"learning_rate": "5e-6"}, {"train.learning_rate": 5e-6}),
    ("TRL", {"warmup_steps": 20}, {"train.warmup_steps": 20}),
    ("TRL", {"lr_scheduler_type": "constant_with_warmup"}, {"train.lr_scheduler_type": "constant"}),
    ("TRL", {"num_processes": "ABSENT"}, {"train.pairs_per_step": 16}),
    ("TRL", {"num_train_epochs": "ABSENT"}, {"train.epochs": 3}),
    ("TRL", {"per_device_train_batch_size": "ABSENT"}, {"train.pairs_per_step": 256}),
    ("TRL", {"bf16": False, "dtype": "float32"}, {"reference.dtype": "float32"}),
    ("TRL", {"load_in_8bit": True}, {"reference.quantization": "int8"}),
    ("TRL", {"weight_decay": 0.1, "max_grad_norm": 0.5}, {"train.weight_decay": 0.1, "train.max_grad_norm": 0.5}),
    ("TRL", {"lora_target_modules": "all-linear", "use_rslora": True},
     {"train.lora.target_modules": "all-linear", "train.lora.use_rslora": True}),
    ("TRL", {"model_revision": "v2", "max_length": 512}, {"reference.revision": "v2", "data.max_length": 512}),
    ("TRL", {"ref_model": "owner/other"},
     {"reference.model": "owner/other", "train.model": "Qwen/Qwen2.5-0.5B-Instruct"}),
    ("TRL", {"accelerate_config": "fsdp2"}, {"train.fsdp": True}),
    ("TRL", {"fsdp": "full_shard auto_wrap"}, {"train.fsdp": True}),
    ("TRL", {"gradient_checkpointing": False}, {"train.gradient_checkpointing": False}),
    ("axolotl", {"peft_use_rslora": True}, {"train.lora.use_rslora": True}),
    ("TRL", {"datasets": [{"path": "a/b"}, {"path": "c/d", "split": "x"}]},
     {"data.train": ["a/b", {"path": "c/d", "split": "x"}]}),
    ("axolotl", {"rl": "ipo"}, {"train.objective": "ipo"}),
    ("axolotl", {"rl": "simpo", "simpo_gamma": 1.0},
     {"train.objective": {"simpo": 1.0, "sft": 1.0}, "train.simpo_gamma": 1.0}),
    ("axolotl", {"rl": "simpo", "cpo_alpha": 0}, {"train.objective": "simpo"}),
    ("axolotl", {"dpo_loss_type": ["hinge"], "dpo_loss_weights": [0.5]}, {"train.objective": {"hinge": 0.5}}),
    ("axolotl", {"dpo_label_smoothing": 0.1}, {"train.label_smoothing": 0.1}),
    ("axolotl", {"rl_beta": "ABSENT", "trl": {"beta": 0.3}}, {"train.beta": 0.3}),
    ("axolotl", {"batch_size": 32}, {"train.pairs_per_step": 32}),
    ("axolotl", {"sequence_len": "ABSENT"}, {"data.max_length": 512}),
    ("axolotl", {"lora_model_dir": "old"}, {"train.model": "old"}),
    ("axolotl", {"test_datasets": [{"path": "held/out"}]}, {"data.eval": ["held/out"]}),
    ("LLaMA-Factory", {"pref_loss": "simpo", "pref_ftx": 0, "simpo_gamma": 0.7},
     {"train.objective": "simpo", "train.simpo_gamma": 0.7}),
    ("LLaMA-Factory", {"pref_bco_weight": 1.0, "pref_ftx": 0}, {"train.objective": {"sigmoid": 0.5, "bco_pair": 0.5}}),
    ("LLaMA-Factory", {"dpo_label_smoothing": 0.2}, {"train.label_smoothing": 0.2}),
    ("LLaMA-Factory", {"quantization_bit": 4}, {"reference.quantization": "nf4"}),
    ("LLaMA-Factory", {"lora_target": "q_proj,v_proj"}, {"train.lora.target_modules": ["q_proj", "v_proj"]}),
    ("LLaMA-Factory", {"adapter_name_or_path": "old"}, {"train.model": "old"}),
    ("LLaMA-Factory", {"bf16": "ABSENT"}, {"reference.dtype": "float32"}),
    ("LLaMA-Factory", {"dataset": "plain", "dataset_dir": "ABSENT"}, {"data.train": ["data/plain.json"]}),
    ("LLaMA-Factory", {"val_size": 0.2}, {"data.eval_fraction": 0.2}),
    ("LLaMA-Factory", {"disable_gradient_checkpointing": True}, {"train.gradient_checkpointing": False}),
    ("LLaMA-Factory", {"report_to": ["wandb", "mlflow"]}, {"train.report_to": ["wandb"]}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "changed", "expected"), CASES)
def test_a_key_lands_where_it_belongs(written_by, tmp_path, tool, changed, expected):
    translation = written_by(FILES[tool], **changed)
    found = values(translation)
    assert {key: found.get(key) for key in expected} == expected
    assert told(translation) >= {name for name, value in changed.items() if value != "ABSENT"}
    loaded(translation, tmp_path)


NAMED = [
    ("TRL", {"loss_type": "hinge", "loss_weights": "ABSENT", "label_smoothing": 0.1}, "label_smoothing",
     "no effect on hinge"),
    ("TRL", {"use_peft": False}, "lora_r", "no effect there without an adapter"),
    ("TRL", {"lr_scheduler_type": "constant"}, "warmup_ratio", "no effect there on lr_scheduler_type: constant"),
    ("TRL", {"optim": "lion_32bit"}, "optim", "lion_32bit is not there"),
    ("TRL", {"report_to": "mlflow"}, "report_to", "mlflow gets no figures"),
    ("TRL", {"max_length": None}, "max_length", "nothing is cut there"),
    ("TRL", {"mystery": 3}, "mystery", "no key that this program knows of TRL"),
    ("TRL", {"sync_ref_model": True}, "sync_ref_model", "no TR-DPO"),
    ("TRL", {"eval_strategy": "no", "dataset_test_split": "x"}, "dataset_test_split", "no evaluation is asked for"),
    ("TRL", {"accelerate_config": "fsdp2", "load_in_4bit": True}, "accelerate_config", "not with quantised weights"),
    ("axolotl", {}, "datasets.0.prompt_format", "chat template"),
    ("axolotl", {}, "datasets.1.type", "forms are told by their first rows"),
    ("axolotl", {}, "wandb_name", "holds nothing"),
    ("axolotl", {"rl": "ipo", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing", "no effect on ipo"),
    ("LLaMA-Factory", {"val_size": 200}, "val_size", "a number of rows there"),
    ("LLaMA-Factory", {"dataset": "unlisted"}, "dataset.unlisted", "does not say what it is"),
    ("LLaMA-Factory", {}, "dataset.mine.columns.tools", "no counterpart"),
    ("LLaMA-Factory", {"finetuning_type": "freeze"}, "finetuning_type", "freeze is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "changed", "name", "reason"), NAMED)
def test_what_is_not_taken_over_is_named_with_its_reason(written_by, tmp_path, tool, changed, name, reason):
    translation = written_by(FILES[tool], **changed)
    assert reason in translation.unmapped[name]
    head = as_file(translation).partition("\n\n")[0]
    assert name in head and reason in " ".join(head.replace("#", " ").split())
    loaded(translation, tmp_path)


def test_lists_of_data_sets_name_columns(written_by, tmp_path):
    plain, odd = values(written_by(LLAMA_FACTORY, dataset=["plain", "odd"]))["data.train"]
    assert plain["columns"] == {"prompt": "ask", "chosen": "yes", "rejected": "no"}
    assert odd == str(tmp_path / "sets/o.jsonl")
    (tmp_path / "sets/dataset_info.json").write_text("{")
    with pytest.raises(ConfigError, match=r"dataset_info\.json, which .*theirs\.yaml names, is not JSON"):
        written_by(LLAMA_FACTORY)


def test_what_is_changed_or_assumed_is_said(written_by):
    rounded = written_by(TRL, num_train_epochs=1.6).settings
    notes = {key: setting.note for key, setting in rounded.items()}
    assert rounded["train.epochs"].value == 2
    assert notes["train.epochs"] == "1.6 there; epochs are whole here"
    assert notes["train.pairs_per_step"] == "2 x 8 x 4"
    one = written_by(TRL, num_processes="ABSENT", lr_scheduler_type="cosine_with_min_lr").settings
    assert one["train.pairs_per_step"].note == "2 x 8, on one device: on N devices there it was N times that"
    assert one["train.lr_scheduler_type"].note == "the nearest to cosine_with_min_lr"
    assert one["train.gradient_checkpointing"].default and not one["train.beta"].default


@pytest.mark.parametrize("odd", ["two\nlines: 1", "\u2028reference: {}", "\x85a: b", "\x1b[31m", "# #"])
def test_a_comment_stays_a_comment_whatever_it_tells(written_by, tmp_path, odd):
    translation = written_by(TRL, optim=odd, lr_scheduler_type=odd)
    assert loaded(translation, tmp_path).train.seed == 7
    assert "\x1b" not in as_file(translation)


ANYTHING = st.sampled_from(
    [True, False, 0, 1, -1, 0.5, 2, "x", "a,b", "no", [], [1], ["sigmoid", "sft"], [0.5, 0.5], {"a": 1}, None, "5e-6",
     [{"path": "json", "data_files": "x.json"}], "simpo", "cosine", "\x07\u2028 # é", "3\n4"]
)  # fmt: skip
SOURCES = "".join(path.read_text() for path in Path(as_file.__code__.co_filename).parent.glob("*.py"))
KEYS = sorted({*re.findall(r'"([a-z_0-9]+)"', SOURCES), *REASONS, "a: b", "#"})


@settings(max_examples=40, deadline=None)
@given(tool=st.sampled_from(sorted(FILES)), changed=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4))
def test_nothing_is_dropped_in_silence_whatever_is_in_a_file(tmp_path_factory, tool, changed):
    folder = tmp_path_factory.mktemp("any")
    given = yaml.safe_load(FILES[tool]) | changed
    (folder / "theirs.yaml").write_text(yaml.safe_dump(given))
    try:
        translation = translated(folder / "theirs.yaml")
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).endswith(".")
        return
    assert told(translation) == {name.partition(".")[0] for name in given}
    loaded(translation, folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "is of no tool that is known"),
        ("reference: {model: a/b}\ndata: {train: x.jsonl}\n", "is a configuration of this program already"),
        ("a: [\n", r"theirs\.yaml:2: not valid YAML"),
        ("- a\n", "holds no keys"),
        (AXOLOTL.replace("rl: dpo", "rl: grpo"), "axolotl's, with rl: 'grpo': that is not offline preference training"),
        (AXOLOTL.replace("rl: dpo", ""), "axolotl's, with no rl"),
        (LLAMA_FACTORY.replace("stage: dpo", "stage: sft"), "LLaMA-Factory's, with stage: 'sft': that is not"),
        (LLAMA_FACTORY.replace("stage: dpo", ""), r"with no stage \(it is sft then\)"),
        (LLAMA_FACTORY.replace("pref_loss: sigmoid", "pref_loss: orpo"), "the loss 'orpo' of LLaMA-Factory"),
        ("model_name_or_path: a\ndataset_name: b\nnum_train_epochs: 1\npacking: true\n", r"for SFT \(packing\)"),
        (TRL.replace("model_name_or_path", "other"), r"names no model\. Add model_name_or_path,"),
        (TRL.replace("dataset_name", "other"), r"names no data set\. Add dataset_name,"),
        (TRL.replace("beta: 0.05", "beta: high"), r"theirs\.yaml:6: beta is 'high', not a number"),
        (TRL.replace("beta: 0.05", "beta: -1"), r"theirs\.yaml:6: beta cannot become train\.beta: .*\(got -1\)"),
        (TRL.replace("[0.8, 0.2, 1.0]", "[1.0]"), "loss_weights has other weights than the 3 losses"),
    ],
)  # fmt: skip
def test_what_cannot_be_translated_is_one_paragraph_and_nothing_is_written(tmp_path, text, said):
    (tmp_path / "theirs.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        run_init(None, (), out=tmp_path / "ours.yaml", other=tmp_path / "theirs.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours.yaml").exists()


def test_the_table_of_the_documentation_names_keys_that_are_taken_over():
    page = (ROOT / "docs/starting.md").read_text().partition("| here |")[2]
    rows = [row.split("|")[1:-1] for row in page.splitlines() if row.startswith("| `")]
    names = [[re.findall(r"`([\w.]+)`", cell) for cell in row] for row in rows]
    ours, *theirs = zip(*names, strict=True)
    assert len(rows) > 12 and all(map(all, names))
    assert {key for cell in ours for key in cell} <= set(all_keys(PipelineConfig))
    assert {key for column in theirs for cell in column for key in cell} - {"dataset_info.json"} <= {*KEYS} - {*REASONS}


def test_from_takes_a_file_that_is_there_and_no_options_of_a_task(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no file a\.yaml to translate\. Correct the path behind --from"):
        run_init(None, (), out=tmp_path / "c.yaml", other=Path("a.yaml"))
    with pytest.raises(ConfigError, match=r"--from takes all of a\.yaml: leave out --task, --model and --data"):
        run_init(None, (), out=tmp_path / "c.yaml", other=Path("a.yaml"), task="full")


def test_the_job_writes_the_file_and_tells_of_both_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(TRL)
    document = run_init(None, (), out=Path("ours.yaml"), other=Path("theirs.yaml")).document()
    assert load_config(Path("ours.yaml"), (), {}).train.seed == 7
    text = written(document)
    assert text.startswith("ours.yaml: translated from theirs.yaml, which is TRL's\n  reference.model: Qwen/")
    assert "  train.gradient_checkpointing: true".ljust(56) + "  TRL's default, which is not ours" in text
    assert "not taken over:\n" in text and "  lora_dropout: dropout is off in all jobs\n" in text
    assert text.endswith("  pipeline run --config ours.yaml")
