"""What the identity of a reference is made of, and what it is not."""

import json
import shutil

import pytest

from data.errors import ConfigError, StoreError
from data.identity import DigestMemo, document_key
from data.store.references import StoredReference, describe
from data.store.storage import LocalStorage
from stages.model_files import locate, model_identity
from stages.reference import ReferenceConfig, bind, write_lock


@pytest.fixture
def folder(tmp_path, model_folder):
    return shutil.copytree(model_folder, tmp_path / "model")


def identity(folder, dtype="float32", attention="packs"):
    return document_key(model_identity(folder, dtype, attention, DigestMemo(folder.parent / "digests.json")))


@pytest.fixture
def bound_to(folder, tmp_path):
    """Binds the folder's model, with a store and a lock in tmp_path."""
    memo = DigestMemo(tmp_path / "digests.json")

    def bind_it(backend="auto", dtype="float32", held=False, **more):
        config = ReferenceConfig(model=str(folder), dtype=dtype, **more)
        return bind(
            config,
            backend,
            LocalStorage(tmp_path / "store"),
            tmp_path / "reference.lock",
            memo,
            download=False,
            hold_to_lock=held,
        )

    return bind_it


def stored(tmp_path, bound):
    """Its reference.json, as a scoring job writes it."""
    reference = StoredReference(bound.reference_id, bound.name, bound.identity, bound.source)
    describe(LocalStorage(tmp_path / "store"), reference)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [{"rms_norm_eps": 1e-3}, {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, {"hidden_act": "gelu"},
     {"something_unheard_of": 1}, {"sliding_window": 8}],
)  # fmt: skip
def test_what_may_shape_the_forward_pass_counts(folder, changes):
    before = identity(folder)
    edit_config(folder, **changes)
    assert identity(folder) != before


@pytest.mark.parametrize(
    "changes",
    [{"_name_or_path": "x"}, {"transformers_version": "9"}, {"dtype": "bfloat16"}, {"torch_dtype": "float16"},
     {"use_cache": False}, {"eos_token_id": 7}, {"pad_token_id": None}, {"output_attentions": True}],
)  # fmt: skip
def test_what_cannot_does_not(folder, changes):
    before = identity(folder)
    edit_config(folder, **changes)
    assert identity(folder) == before


def test_packs_and_rows_are_two_references(folder):
    assert identity(folder, attention="packs") != identity(folder, attention="rows")


@pytest.mark.parametrize(
    ("backend", "attention"), [("segments", "packs"), ("varlen", "packs"), ("flex", "packs"), ("rows", "rows")]
)
def test_a_named_back_end_decides_between_packs_and_rows(bound_to, folder, backend, attention):
    bound = bound_to(backend)
    assert bound.settled and bound.attention == attention
    assert bound.reference_id == identity(folder, attention=attention)


def test_left_open_and_nothing_stored_the_model_has_to_show_it(bound_to, folder):
    bound = bound_to()
    assert not bound.settled
    for attention in ("packs", "rows"):
        settled = bound.settle(attention)
        assert settled.settled and settled.attention == attention
        assert settled.reference_id == document_key(settled.identity) == identity(folder, attention=attention)


@pytest.mark.parametrize("attention", ["packs", "rows"])
def test_left_open_a_stored_reference_says_how_it_is_scored(bound_to, folder, tmp_path, attention):
    stored(tmp_path, bound_to().settle(attention))
    bound = bound_to()
    assert bound.settled and bound.attention == attention
    assert not bound_to(dtype="bfloat16").settled


def test_of_two_stored_references_the_lock_decides(bound_to, folder, tmp_path):
    for attention in ("packs", "rows"):
        bound = bound_to().settle(attention)
        stored(tmp_path, bound)
    assert bound_to().attention == "packs"
    config = ReferenceConfig(model=str(folder), dtype="float32")
    write_lock(tmp_path / "reference.lock", config, bound_to("rows"))
    assert bound_to(held=True).attention == "rows"
    with pytest.raises(StoreError, match=r'attention: "rows" -> "packs".*Run `pipeline precompute-ref`'):
        bound_to("segments", held=True)


def test_dtype_and_weights_count_and_names_of_files_do_not(folder):
    before = identity(folder)
    assert identity(folder, "bfloat16") != before
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert identity(folder) == before
    with (folder / "model-00001-of-00001.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert identity(folder) != before


def test_another_place_and_other_files_do_not_count(folder, tmp_path):
    (folder / "README.md").write_text("about this model")
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert identity(folder) == identity(tmp_path / "elsewhere")


def test_the_lock_vouches_only_for_the_section_it_was_written_for(folder, tmp_path, bound_to):
    bound = bound_to().settle("rows")
    write_lock(tmp_path / "reference.lock", ReferenceConfig(model=str(folder), dtype="float32"), bound)
    shutil.rmtree(folder)
    found = bound_to(held=True)
    assert found.reference_id == bound.reference_id and found.folder is None and found.attention == "rows"
    with pytest.raises(ConfigError, match="is neither a folder on this machine nor a model that the Hub"):
        bound_to(dtype="bfloat16", held=True)


def test_locks_from_before_models_could_be_quantised_stay_good(folder, tmp_path, bound_to):
    bound = bound_to("segments")
    write_lock(tmp_path / "reference.lock", bound.config, bound)
    section = json.loads((tmp_path / "reference.lock").read_text())["section"]
    assert section == {"model": str(folder), "revision": None, "id": None, "dtype": "float32"}
    shutil.rmtree(folder)
    assert bound_to(held=True).reference_id == bound.reference_id
    with pytest.raises(ConfigError, match="is neither a folder on this machine nor a model that the Hub"):
        bound_to(held=True, quantization="nf4")


def test_a_quantised_reference_is_another_and_says_so_in_its_name(bound_to, tmp_path):
    bound = bound_to("segments")
    write_lock(tmp_path / "reference.lock", bound.config, bound)
    small = bound_to("segments", quantization="nf4")
    assert small.reference_id != bound.reference_id and small.name == "model-float32-nf4"
    assert small.identity == bound.identity | {"quantization": "nf4"}


def test_a_hub_id_that_is_not_cached_is_out_of_reach_offline():
    assert locate("nobody/no-such-model", None, download=False) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "holds no config.json"), (["config.json", "pytorch_model.bin"], r"holds no \*\.safetensors file")],
)
def test_a_folder_that_is_no_usable_model_is_refused(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=message):
        locate(str(tmp_path), None, download=False)


def test_a_reference_is_named_for_people_and_found_by_that_name(bound_to, tmp_path):
    bound = bound_to("rows")
    assert bound.name == "model-float32-rows" and bound_to("segments").name == "model-float32"
    stored(tmp_path, bound)
    for wanted in (bound.name, bound.reference_id[:8]):
        named = bound_to(dtype="bfloat16", id=wanted)
        assert (named.reference_id, named.identity, named.name) == (bound.reference_id, bound.identity, bound.name)
        assert not named.own
        assert bound_to(id=wanted).own
    with pytest.raises(StoreError, match=r"has no reference of the name or id other. It holds: model-float32-rows"):
        bound_to(id="other")
