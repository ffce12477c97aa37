"""Adapters on a loaded model: as peft computes them, never merged, only they are trained, and no dropout."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ConfigError
from stages.scoring.adapter import save_adapter as save
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer
from tests.families import naive_sum, random_responses
from tests.tiny import save_adapter, save_model


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, model_folder):
    return save_adapter(tmp_path_factory.mktemp("adapter") / "adapter", model_folder, lora_dropout=0.9)


def logps(model, responses=None):
    with torch.inference_mode():
        return Scorer(model, pack_tokens=256).logps(responses or random_responses(8, siblings=2))


def test_an_adapter_folder_scores_as_transformers_loads_it(adapter, model_folder):
    from transformers import AutoModelForCausalLM

    responses = random_responses(8, siblings=2)
    reads_it = AutoModelForCausalLM.from_pretrained(adapter).eval()
    theirs = np.array([naive_sum(reads_it, response).item() for response in responses])
    ours = logps(load_model(adapter, "float32"), responses).numpy()
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert np.abs(ours - logps(load_model(model_folder, "float32"), responses).numpy()).min() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_class_stays_and_only_the_adapter_requires_gradients(adapter, dtype):
    model = load_model(adapter, dtype)
    assert type(model).__name__ == "LlamaForCausalLM" and type(model.lm_head) is torch.nn.Linear
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if "lora_" in name} != set()
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_its_dropout_never_happens(adapter):
    scorer = Scorer(load_model(adapter, "float32"), pack_tokens=256)
    assert not any(module.training for module in scorer.model.modules())
    first = scorer.logps(random_responses(4))  # with gradients, as in training
    assert torch.equal(first.detach(), logps(load_model(adapter, "float32"), random_responses(4)))


def test_it_is_never_merged(adapter, model_folder):
    base = load_model(model_folder, "float32").state_dict()
    model = load_model(adapter, "float32")
    logps(model)
    held = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(held[name], tensor) for name, tensor in base.items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks under an old name
def test_the_output_layer_may_be_adapted_too(tmp_path):
    """As peft itself loads it: transformers' own loading forgets this layer in some versions."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_model(tmp_path / "base", tie_word_embeddings=False)
    folder = save_adapter(tmp_path / "adapter", base, target_modules=["lm_head", "q_proj"])
    reads_it = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    responses = random_responses(4)
    theirs = [naive_sum(reads_it, response).item() for response in responses]
    assert logps(load_model(folder, "float32"), responses).numpy() == pytest.approx(np.array(theirs), abs=1e-4)


def test_what_is_saved_is_what_was_loaded_and_in_the_same_bytes_each_time(adapter, model_folder, tmp_path):
    state = torch.get_rng_state()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        save(load_model(adapter, "float32"), folder, str(model_folder), "main")
    assert torch.equal(state, torch.get_rng_state())
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two and one.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, folders[0]))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    config = json.loads(one["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (str(model_folder), "main")
    assert config["target_modules"] == sorted(config["target_modules"])


def rewrite(folder, change):
    """The adapter's file, with every tensor changed."""
    tensors = load_file(folder / "adapter_model.safetensors")
    changed = dict(change(name, tensor) for name, tensor in tensors.items())
    save_file({name: tensor.contiguous() for name, tensor in changed.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, tensor: (name.replace("q_proj", "s_proj"), tensor),
         r"4 of its tensors are missing \(model.layers.0.self_attn.q_proj.lora_A.default.weight.*, 4 have no place in"),
        (lambda name, tensor: (name, tensor[:, :1]), r"cannot be put on the model that it changes: RuntimeError"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(adapter, tmp_path, change, message):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    rewrite(folder, change)
    with pytest.raises(ConfigError, match=message):
        load_model(folder, "float32")


def test_without_peft_the_error_says_what_to_install(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"need the package peft. Install it: pip install 'offline-.*\[lora\]'"):
        load_model(adapter, "float32")
