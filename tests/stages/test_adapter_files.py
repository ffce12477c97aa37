"""Adapter folders: what of them belongs to a model's identity, where their base is, and which are refused."""

import json
import shutil

import pytest

from data.errors import ConfigError
from data.identity import DigestMemo, document_key
from stages.model_files import locate, model_identity, tokenizer_folder, weights_folder
from tests.tiny import save_adapter, save_model


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_folder):
    """An adapter to a base of its own, once."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(model_folder, folder / "base")
    save_adapter(folder / "adapter", folder / "base")
    return folder


@pytest.fixture
def base(made, tmp_path):
    return shutil.copytree(made / "base", tmp_path / "base")


@pytest.fixture
def adapter(made, base, tmp_path):
    folder = shutil.copytree(made / "adapter", tmp_path / "adapter")
    edit(folder, base_model_name_or_path=str(base))
    return folder


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def identity(folder, quantization=None):
    memo = DigestMemo(folder.parent / "digests.json")
    return document_key(model_identity(folder, "float32", "packs", memo, quantization))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_adapter_is_another_model_than_its_base_and_shares_what_is_the_bases(adapter, base, tmp_path):
    memo = DigestMemo(tmp_path / "digests.json")
    ours, bases = (model_identity(folder, "float32", "packs", memo) for folder in (adapter, base))
    assert bases["adapter"] is None and ours["adapter"] is not None
    assert ours | {"adapter": None} == bases


@pytest.mark.parametrize(
    "changes",
    [{"r": 8}, {"lora_alpha": 1}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj"]},
     {"rank_pattern": {"q_proj": 2}}, {"something_unheard_of": 1}],
)  # fmt: skip
def test_what_of_its_configuration_shapes_the_forward_pass_counts(adapter, changes):
    before = identity(adapter)
    edit(adapter, **changes)
    assert identity(adapter) != before


@pytest.mark.parametrize(
    "changes",
    [{"peft_version": "9"}, {"inference_mode": False}, {"task_type": None}, {"lora_dropout": 0.5}, {"revision": "main"},
     {"unheard_of_and_off": False}, {"unheard_of_and_unset": None}],
)  # fmt: skip
def test_what_cannot_does_not(adapter, changes):
    before = identity(adapter)
    edit(adapter, **changes)
    assert identity(adapter) == before


def test_the_order_of_its_layers_names_does_not_count(adapter):
    before = identity(adapter)
    modules = json.loads((adapter / "adapter_config.json").read_text())["target_modules"]
    edit(adapter, target_modules=modules[::-1])
    assert identity(adapter) == before


def test_places_do_not_count_and_weights_of_adapter_and_base_do(adapter, base, tmp_path):
    before = identity(adapter)
    shutil.move(base, tmp_path / "elsewhere")
    moved = shutil.move(adapter, tmp_path / "moved")
    edit(moved, base_model_name_or_path=str(tmp_path / "elsewhere"))
    assert identity(moved) == before
    flip(moved / "adapter_model.safetensors")
    changed = identity(moved)
    assert changed != before
    flip(moved / "adapter_model.safetensors")
    flip(tmp_path / "elsewhere" / "model.safetensors")
    assert identity(moved) not in (before, changed)


def test_quantisation_counts(base, adapter):
    assert len({identity(folder, bits) for folder in (base, adapter) for bits in (None, "nf4", "int8")}) == 6


def test_the_tokenizer_is_the_adapters_own_or_else_its_bases(adapter, base):
    assert weights_folder(adapter) == weights_folder(base) == base
    assert tokenizer_folder(adapter) == base
    shutil.copy(base / "tokenizer_config.json", adapter)
    assert tokenizer_folder(adapter) == adapter


@pytest.fixture
def hub(base, tmp_path, monkeypatch):
    """A local cache of the Hub that has the base as a/model, twice: its main revision has lost a file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--a--model"
    for name, commit in (("main", "1" * 40), ("v1", "2" * 40)):
        shutil.copytree(base, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    (repository / "snapshots" / ("1" * 40) / "generation_config.json").unlink()
    return repository / "snapshots"


def test_a_base_on_the_hub_is_that_of_the_revision_that_the_adapter_names(adapter, base, hub):
    before = identity(adapter)
    for revision, commit in ((None, "1" * 40), ("v1", "2" * 40)):
        edit(adapter, base_model_name_or_path="a/model", revision=revision)
        assert locate(str(adapter), None, download=False) == adapter
        assert weights_folder(adapter).samefile(hub / commit)
    shutil.rmtree(base)
    assert identity(adapter) == before


def test_a_base_out_of_reach_is_named_with_the_file_that_names_it(adapter, base):
    assert locate(str(adapter), None, download=False) == adapter
    shutil.rmtree(base)
    with pytest.raises(ConfigError) as error:
        locate(str(adapter), None, download=False)
    assert f"{adapter / 'adapter_config.json'} calls it {base}, which is neither a folder on this" in str(error.value)
    assert "Make it reachable, or correct base_model_name_or_path there." in str(error.value)


def test_an_adapter_to_an_adapter_is_refused(adapter, base, made, tmp_path):
    second = shutil.copytree(adapter, tmp_path / "second")
    edit(second, base_model_name_or_path=str(adapter))
    with pytest.raises(ConfigError, match=r"which is an adapter itself. Merge that one into its base with peft"):
        locate(str(second), None, download=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, r"adapter_config.json says peft_type: IA3. Of adapters only LORA can be used"),
        ({"base_model_name_or_path": None}, r"does not say which model the adapter changes. Put the base's Hub id"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(adapter, changes, message):
    edit(adapter, **changes)
    with pytest.raises(ConfigError, match=message):
        locate(str(adapter), None, download=False)


def test_pickled_weights_and_half_a_file_are_refused(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"holds an adapter but no adapter_model.safetensors. Only safetensors"):
        locate(str(adapter), None, download=False)
    (adapter / "adapter_config.json").write_text('{"r": 4')
    with pytest.raises(ConfigError, match=r"adapter_config.json is not a JSON object \(Expecting.*Copy the adapter"):
        locate(str(adapter), None, download=False)


def test_a_whole_model_and_an_adapter_in_one_folder_are_refused(adapter, tmp_path):
    save_model(adapter)
    with pytest.raises(ConfigError, match=r"holds config.json and adapter_config.json: a whole model and an adapter"):
        locate(str(adapter), None, download=False)
