"""LoRA and QLoRA from end to end: one store with the base, exact resuming, and policies that are adapters."""

import json
import re
import shutil
from itertools import count

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import load_config
from pipeline.control import ProcessControl
from pipeline.inputs import Inputs
from stages.training import step_zero
from stages.training.lora import LoraSettings
from tests.families import naive_sum
from tests.tiny import ROOT, save_adapter

PAGE = ROOT / "docs" / "adapters.md"
LORA = ("train.lora.r=4", "train.learning_rate=0.01")
TIMES = ("seconds", "per_second", "memory", "mfu", "flops")


def run_of(work, document):
    return work.root / "runs" / document["run"]


def figures(run):
    """metrics.jsonl without what differs between two runs of the same thing."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not any(t in name for t in TIMES)} for line in lines]


@pytest.fixture
def step_0(monkeypatch):
    """What the step-0 checks of training find."""
    found, check = [], step_zero.check_step_zero
    monkeypatch.setattr(step_zero, "check_step_zero", lambda *what: found.append(check(*what)))
    return found


def reference_id(work, *settings):
    work.run("precompute-ref", *settings)
    return json.loads((work.root / "reference.lock").read_text())["reference_id"]


def test_an_adapter_is_trained_over_the_store_of_its_base_and_scored_on_it(work, model_folder, step_0):
    work.run("precompute-ref")
    whole = work.run("train")
    trained = work.run("train", *LORA)
    assert work.run("precompute-ref", *LORA)["status"] == "nothing_to_do"
    assert [figures["max_abs"] for figures in step_0] == [0, 0]
    assert trained["run"] != whole["run"] and figures(run_of(work, trained))[-1]["loss"] < 0.5
    policy = run_of(work, trained) / "policy"
    assert {path.name for path in policy.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((policy / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model_folder)
    document = work.run("eval", *LORA)
    assert document["metrics"]["reward_accuracy"] > 0.9
    assert work.run("train", *LORA)["status"] == work.run("eval", *LORA)["status"] == "nothing_to_do"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks under an old name
def test_any_tool_that_reads_the_policy_folder_scores_as_eval_does(work, monkeypatch):
    """transformers the folder as it is, and anything the model that the code on the page makes of it."""
    from transformers import AutoModelForCausalLM

    work.run("precompute-ref")
    run = run_of(work, work.run("train", *LORA))
    work.run("eval", *LORA)
    records = pl.read_parquet(run / "eval" / "pairs.parquet").sort("row")
    pairs = {pair.row: pair for pair in work.prepared().splits["eval"]}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(work.folder)
    exec(code, {})
    assert not list((work.folder / "merged").glob("adapter*")) and (work.folder / "merged" / "tokenizer.json").is_file()
    for folder in (run / "policy", work.folder / "merged"):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            sums = [naive_sum(model, pairs[row].chosen).item() for row in records["row"]]
        assert records["policy_chosen_logps"].to_numpy() == pytest.approx(np.array(sums), abs=1e-3)


@pytest.mark.parametrize("settings", [(), ("reference.dtype=bfloat16",), ("reference.quantization=nf4",)])
def test_an_interrupted_run_ends_as_if_it_never_was(make_work, monkeypatch, settings):
    straight, stopped = make_work(), make_work()
    for work in (straight, stopped):
        work.run("precompute-ref", *settings)
    golden = run_of(straight, straight.run("train", *LORA, *settings))
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 10)
        stopped.run("train", *LORA, *settings, expect=75)
    resumed = run_of(stopped, stopped.run("train", *LORA, *settings))
    assert figures(resumed) == figures(golden)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (resumed / "policy" / name).read_bytes() == (golden / "policy" / name).read_bytes()


def test_a_checkpoint_holds_the_adapter_alone(work):
    work.run("precompute-ref")
    run = run_of(work, work.run("train", *LORA, "train.checkpoint_every=5"))
    tensors = [load_file(path) for path in sorted(run.glob("checkpoints/step-*/*.safetensors"))]
    names = {name for part in tensors for name in part}
    assert names and all("lora_" in name for name in names if "." in name)


@pytest.mark.parametrize(("quantization", "dtype"), [("nf4", "bfloat16"), ("int8", "float32")])
def test_a_quantised_reference_is_one_of_its_own_and_step_0_is_it_to_the_last_bit(work, step_0, quantization, dtype):
    settings = (f"reference.quantization={quantization}", f"reference.dtype={dtype}")
    ids = {reference_id(work, f"reference.dtype={dtype}"), reference_id(work, *settings)}
    assert len(ids) == 2
    document = work.run("train", *settings, expect=2)
    assert f"reference.quantization: {quantization} leaves weights that cannot be trained" in document["message"]
    trained = work.run("train", *LORA, *settings)
    by_name = work.run("train", *LORA, *settings, f"train.model={work.model}")
    assert by_name["status"] == "nothing_to_do"  # its start is the reference, as quantised
    assert [(figures["max_abs"], figures["responses"] > 50) for figures in step_0] == [(0, True)]
    assert figures(run_of(work, trained))[-1]["loss"] < 0.5
    assert work.run("eval", *LORA, *settings)["metrics"]["reward_accuracy"] > 0.9


def test_the_policy_of_one_night_is_the_reference_of_the_next(work):
    """And what is trained from it is the same adapter, further."""
    before = reference_id(work)
    policy = run_of(work, work.run("train", *LORA)) / "policy"
    night = f"reference.model={policy}"
    after = reference_id(work, night)
    moved = shutil.copytree(policy, work.folder / "moved")
    assert work.run("precompute-ref", f"reference.model={moved}")["status"] == "nothing_to_do"
    assert reference_id(work, f"reference.model={moved}") == after != before
    document = work.run("train", night, "train.lora={r: 7}", expect=2)
    assert "train.lora asks for another adapter than the one that training starts from" in document["message"]
    further = run_of(work, work.run("train", night, *LORA)) / "policy"
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (policy, further)]
    assert configs[0] == configs[1]
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (policy, further)]
    assert weights[0].keys() == weights[1].keys()
    assert not any(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert work.run("eval", night, *LORA)["n_pairs"] > 0


def test_an_adapter_of_pefts_own_is_a_start_policy(work):
    start = save_adapter(work.folder / "adapter", work.model)
    work.run("precompute-ref")
    trained = work.run("train", f"train.model={start}")
    assert json.loads((run_of(work, trained) / "policy" / "adapter_config.json").read_text())["r"] == 4


def test_the_end_tokens_of_an_adapter_are_its_bases(work):
    edited = shutil.copytree(work.model, work.folder / "base")
    (edited / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    adapter = save_adapter(work.folder / "adapter", edited)
    inputs = Inputs(load_config(work.config), ProcessControl(quiet=True))
    of_base, of_adapter = inputs.tokenization(edited), inputs.tokenization(adapter)
    assert of_adapter == of_base and of_base["generation_eos"] == [2, 0]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(edited / name, adapter)
    assert inputs.tokenization(adapter)["generation_eos"] == [2, 0]


def test_a_base_that_is_gone_is_named(work):
    base = shutil.copytree(work.model, work.folder / "base")
    adapter = save_adapter(work.folder / "adapter", base)
    shutil.rmtree(base)
    document = work.run("precompute-ref", f"reference.model={adapter}", expect=2)
    assert f"{adapter / 'adapter_config.json'} calls it {base}" in document["message"]


def test_the_configuration_on_the_page_loads_and_has_the_defaults(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "pipeline.yaml").write_text(f"{block}data:\n  train: prefs.jsonl\n")
    config = load_config(tmp_path / "pipeline.yaml", (), {})
    assert config.train.lora == LoraSettings() and config.reference.quantization == "nf4"
