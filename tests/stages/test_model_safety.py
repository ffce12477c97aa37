"""A model's folder, from whoever it comes, runs no code and reads nothing that lies outside of it."""

import io
import json
import shutil
import sys

import pytest

from data.errors import ConfigError
from data.tokens.tokenization import load_tokenizer
from stages.scoring.model import load_model
from tests.tiny import save_adapter


def edit(file, **changes):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


@pytest.fixture
def model(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def marker(model, monkeypatch):
    """Code beside the model that leaves this file when it is run, and a person who says yes to every question."""
    marker = model.parent / "was-run"
    (model / "theirs.py").write_text(f"open({str(marker)!r}, 'w')\nclass Theirs: pass\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    return marker


def of_their_own(model):
    theirs = "theirs.Theirs"
    edit(
        model / "config.json", model_type="unheard-of", auto_map={"AutoConfig": theirs, "AutoModelForCausalLM": theirs}
    )
    edit(model / "tokenizer_config.json", tokenizer_class="Theirs", auto_map={"AutoTokenizer": [theirs, theirs]})


def test_code_that_comes_with_a_model_is_never_run_whatever_is_answered(model, marker):
    of_their_own(model)
    said = r"can only be loaded by code that comes with it \(auto_map\), and such code is never run. Take a model that"
    with pytest.raises(ConfigError, match=rf"The model .* {said}"):
        load_model(model, "float32")
    with pytest.raises(ConfigError, match=rf"The tokenizer in .* {said}"):
        load_tokenizer(model)
    assert not marker.exists()


def test_no_job_runs_it(work, model, marker):
    """The model that is scored, an adapter's base, the start of training, the model that is evaluated."""
    work.run("run", "train.epochs=1")
    adapter = save_adapter(model.parent / "adapter", model)
    of_their_own(model)
    jobs = (("precompute-ref", "reference.model"), ("train", "train.model"), ("eval", "eval.model"))
    for folder in (model, adapter):
        for job, key in jobs:
            message = work.run(job, f"{key}={folder}", "train.epochs=1", expect=2)["message"]
            assert f"{model} can only be loaded by code" in message
    assert not marker.exists()


def test_code_beside_a_model_that_is_known_is_passed_over(model, marker):
    edit(model / "config.json", auto_map={"AutoModelForCausalLM": "theirs.Theirs"})
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"]})
    assert type(load_model(model, "float32")).__name__ == "LlamaForCausalLM"
    assert load_tokenizer(model)("a")["input_ids"]
    assert not marker.exists()


@pytest.mark.parametrize("place", ["../other/model.safetensors", "inner/model.safetensors", "weights.bin", None])
def test_an_index_of_weights_names_safetensors_files_beside_it(model, place):
    tensor, weights = "model.norm.weight", (model / "model.safetensors").rename(model / "weights.safetensors")
    for other in ("../other/model.safetensors", "inner/model.safetensors", "weights.bin"):
        (model / other).parent.mkdir(exist_ok=True)
        shutil.copy(weights, model / other)
    index = model / "model.safetensors.index.json"
    edit(index, metadata={}, weight_map={tensor: place})
    with pytest.raises(ConfigError) as error:
        load_model(model, "float32")
    assert str(error.value).startswith(f"{index} names {place} as a file of weights. Only safetensors files that lie")


def test_a_configuration_names_no_other_file_of_weights(model):
    shutil.copytree(model, model.parent / "other")
    edit(model / "config.json", transformers_weights="../other/model.safetensors")
    with pytest.raises(ConfigError, match=r"config.json names ../other/model.safetensors as a file of weights"):
        load_model(model, "float32")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("wrap", [lambda kernel: kernel, lambda kernel: {"": kernel}])
def test_a_kernel_of_the_hub_is_code_too(model, key, wrap):
    edit(model / "config.json", inner={key: wrap("owner/kernel@main")})
    with pytest.raises(ConfigError, match=rf"config.json has {key}: owner/kernel@main, which is a kernel on the Hub"):
        load_model(model, "float32")


def test_an_index_of_shards_is_read(model):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for place in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == place}, model / place, {"format": "pt"})
    edit(model / "model.safetensors.index.json", metadata={"total_size": 1}, weight_map=places)
    assert dict(load_model(model, "float32").named_parameters())["model.norm.weight"].equal(
        tensors["model.norm.weight"]
    )
