"""A refusal to score names what moved."""

import shutil

import pytest

from tests.tiny import example_rows, save_model, write_jsonl


def test_more_new_pairs_than_the_budget_are_refused_with_the_tokenizer_that_moved(work):
    work.run("precompute-ref", "store.max_new_pairs=40")
    write_jsonl(work.data, example_rows(41))
    assert work.run("precompute-ref", "store.max_new_pairs=1")["pairs_scored"] == 1
    shutil.copytree(work.model, work.folder / "moved")
    template = work.folder / "moved" / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ m['content'] }}", " {{ m['content'] }}"))
    settings = (f"reference.model={work.folder / 'moved'}", "store.max_new_pairs=5")
    before = len(work.stored_rows())
    message = work.run("precompute-ref", *settings, expect=4)["message"]
    assert "41 of 41 pairs have no reference log-probs under reference moved-float32" in message
    assert "more than store.max_new_pairs = 5 lets one job add. Nothing was scored." in message
    assert "tokenizer.chat_template.jinja:" in message and "--set store.max_new_pairs=null" in message
    assert len(work.stored_rows()) == before
    assert work.run("precompute-ref", settings[0])["pairs_scored"] == 41


def test_a_budget_names_the_dtype_or_the_revision_that_moved(work):
    work.run("precompute-ref")
    message = work.run("precompute-ref", "reference.dtype=bfloat16", "store.max_new_pairs=0", expect=4)["message"]
    assert "40 of them are stored under reference tiny-float32" in message
    assert 'compute_dtype: "float32" -> "bfloat16"' in message
    save_model(work.folder / "moved", seed=1)
    settings = (f"reference.model={work.folder / 'moved'}", "store.max_new_pairs=39")
    message = work.run("precompute-ref", *settings, expect=4)["message"]
    assert "weights:" in message and "reference.model:" in message
    assert work.run("precompute-ref", settings[0], "store.max_new_pairs=40")["pairs_scored"] == 40


def test_a_refusal_comes_before_any_model_is_loaded(work, monkeypatch):
    """Also where nothing is stored yet, so that only the model could say how it wants to be scored."""
    monkeypatch.setattr("stages.precompute_ref._load_scorer", lambda *_: pytest.fail("a model was loaded"))
    message = work.run("precompute-ref", "store.max_new_pairs=0", expect=4)["message"]
    assert message.startswith("40 of 40 pairs have no reference log-probs under reference tiny-float32")
    assert not (work.root / "store").exists() and not (work.root / "reference.lock").exists()
