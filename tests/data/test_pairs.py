"""Prepared pairs come back from disk exactly, and only as long as every file is the one that was written."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.identity import pair_key
from data.pairs import SPLITS, PairsFolder
from data.schema import Response
from data.tokenization import load_tokenizer

ORIGIN = {"sources": ["a" * 64], "max_length": 40, "note": "é"}
FILES = ["dev.parquet", "eval.parquet", "rejects.parquet", "train.parquet"]
VOUCHED = [*FILES, "tokenizer/tokenizer.json", "tokenizer/chat_template.jinja"]


@pytest.fixture
def prepared(prepare_rows):
    """A few pairs in each split, cut and rejected rows among them, and masks with holes."""
    rows = [{"prompt": f"Why {i}?", "chosen": "a" * (i + 1), "rejected": "b" * (2 * i + 1)} for i in range(30)]
    prepared = prepare_rows(*rows, "torn", {"prompt": "é"}, eval_fraction=0.3, dev_fraction=0.2, max_length=40)
    first = prepared.splits["train"][0]
    mask = np.arange(len(first.chosen.ids)) % 2 == 0
    holes = Response(first.chosen.prompt_ids, first.chosen.ids, mask)
    prepared.splits["train"][0] = replace(first, chosen=holes)
    return prepared


@pytest.fixture
def folder(tmp_path, prepared, tokenizer):
    folder = PairsFolder(tmp_path / "work" / "pairs")
    folder.write(prepared, ORIGIN, tokenizer)
    return folder


def everything(pair):
    sides = [pair.chosen, pair.rejected]
    arrays = [array for side in sides for array in (side.prompt_ids, side.ids, side.mask)]
    return [pair.row, pair.location, pair.truncated, pair.key, pair.prompt_key, [(a.dtype, a.tolist()) for a in arrays]]


def test_pairs_come_back_exactly(folder, prepared):
    assert folder.origin() == ORIGIN
    loaded = folder.load(ORIGIN)
    for split in SPLITS:
        assert prepared.splits[split]
        assert list(map(everything, loaded.splits[split])) == list(map(everything, prepared.splits[split]))
    assert loaded.rejections == prepared.rejections
    assert loaded.coverage == prepared.coverage
    assert loaded.coverage.truncated > 0


def test_nothing_comes_back_exactly(tmp_path, prepare_rows, tokenizer):
    folder = PairsFolder(tmp_path)
    folder.write(prepare_rows(), ORIGIN, tokenizer)
    loaded = folder.load(ORIGIN)
    assert loaded.all == loaded.rejections == []


def test_stored_key_is_the_key_of_what_is_stored(folder, prepared):
    keys = [key for split in SPLITS for key in pq.read_table(folder.path / f"{split}.parquet")["pair_key"].to_pylist()]
    pairs = folder.load(ORIGIN).all
    assert sorted(keys) == sorted(pair.key for pair in pairs)
    assert [pair.key for pair in pairs] == [pair_key(pair.chosen.key, pair.rejected.key) for pair in pairs]


def test_same_pairs_give_the_same_bytes(folder, tmp_path, prepared, tokenizer):
    again = PairsFolder(tmp_path / "again")
    again.write(folder.load(ORIGIN), ORIGIN, tokenizer)
    for file in (*FILES, "pairs.json"):
        assert (again.path / file).read_bytes() == (folder.path / file).read_bytes()


def test_pairs_made_from_something_else_are_not_loaded(folder):
    assert folder.load(ORIGIN | {"max_length": 41}) is None


@pytest.mark.parametrize("name", VOUCHED)
def test_one_changed_byte_makes_the_pairs_again(folder, caplog, name):
    content = bytearray((folder.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder.path / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="data.pairs"):
        assert folder.load(ORIGIN) is None
    assert caplog.messages == [f"{folder.path / name} is not as it was written; the pairs are made again"]


@pytest.mark.parametrize("name", VOUCHED)
def test_missing_file_makes_the_pairs_again(folder, caplog, name):
    (folder.path / name).unlink()
    with caplog.at_level(logging.WARNING, logger="data.pairs"):
        assert folder.load(ORIGIN) is None
    (message,) = caplog.messages
    assert str(folder.path / name) in message
    assert message.endswith("is not as it was written; the pairs are made again")


@pytest.mark.parametrize("text", [None, "", '{"origin": {', "{}", '{"files": {}}'])
def test_torn_account_makes_the_pairs_again(folder, text):
    (folder.path / "pairs.json").unlink()
    if text is not None:
        (folder.path / "pairs.json").write_text(text)
    assert folder.origin() is None
    assert folder.load(ORIGIN) is None


def test_writing_again_replaces_everything(folder, prepare_rows, tokenizer):
    folder.write(prepare_rows({"prompt": "Why?", "chosen": "a", "rejected": "b"}), {"other": 1}, tokenizer)
    assert folder.origin() == {"other": 1}
    loaded = folder.load({"other": 1})
    assert [len(loaded.splits[split]) for split in SPLITS] == [1, 0, 0]
    assert sorted(path.name for path in folder.path.iterdir()) == sorted([*FILES, "pairs.json", "tokenizer"])


def test_rejects_can_be_read_by_anything(folder, prepared):
    rows = pq.read_table(folder.rejects).to_pylist()
    assert [(row["row"], row["location"], row["reason"]) for row in rows] == [
        (r.row, r.location, r.reason) for r in prepared.rejections
    ]
    assert [row["reason"] for row in rows] == ["unreadable_row", "missing_field"]


def test_reject_of_any_row_can_be_written(tmp_path, prepare_rows, tokenizer):
    PairsFolder(tmp_path / "pairs").write(
        prepare_rows({"prompt": "Why?", "chosen": "a", "rejected": "b"}, {"\ud800": "half a character"}),
        ORIGIN,
        tokenizer,
    )


def test_tokenizer_travels_with_the_pairs(folder, tmp_path, tokenizer):
    policy = tmp_path / "policy"
    policy.mkdir()
    folder.copy_tokenizer(policy)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    for where in (folder.tokenizer, policy):
        loaded = load_tokenizer(where)
        assert loaded.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False) == text
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_tokenizer_of_several_templates_travels_too(tmp_path, prepare_rows, tokenizer_with):
    using = tokenizer_with({"default": tokenizer_with().chat_template, "tool_use": "{{ tools }}"})
    folder, policy = PairsFolder(tmp_path / "pairs"), tmp_path / "policy"
    folder.write(prepare_rows(using=using), ORIGIN, using)
    assert folder.load(ORIGIN) is not None
    policy.mkdir()
    folder.copy_tokenizer(policy)
    assert load_tokenizer(policy).chat_template == using.chat_template
