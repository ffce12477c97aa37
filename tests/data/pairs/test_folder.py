"""Prepared pairs come back from disk exactly, and only as long as every file is the one that was written."""

import logging

import polars as pl
import pytest

from data.config import DataConfig
from data.identity import file_digest, pair_key, prompt_key, response_key
from data.pairs.folder import PairsFolder
from data.pairs.part_maker import PartMaker
from data.pairs.preparation import prepare
from data.pairs.splits import SPLITS
from data.tokens.tokenization import PairTokenizer, load_tokenizer

ORIGIN = {"sources": ["a" * 64], "max_length": 40, "note": "é"}
ROWS = [
    {"prompt": f"Why {i}?", "chosen": "a" * (i + 1), "rejected": "b" * (2 * i + 1), "gap": i / 7, "sure": i}
    for i in range(30)
]
COLUMNS = {"margin": "gap", "pair_weight": "sure"}


@pytest.fixture
def config(rows_file):
    """A few pairs in each split, cut and rejected rows among them."""
    path = str(rows_file(*ROWS, "torn", {"prompt": "é"}))
    source = {"path": path, "columns": COLUMNS}
    return DataConfig(train=source, eval_fraction=0.3, dev_fraction=0.2, max_length=40)


@pytest.fixture
def folder(tmp_path):
    return PairsFolder(tmp_path / "work" / "pairs")


def make(folder, config, tokenizer, **made_by):
    maker = PartMaker(lambda: PairTokenizer(tokenizer, [2], config.max_length), [folder.parts], 1, file_digest)
    prepared = prepare(config, maker, made_by, lambda _: None)
    folder.write(prepared, ORIGIN, tokenizer)
    return prepared


@pytest.fixture
def prepared(folder, config, tokenizer):
    return make(folder, config, tokenizer)


def files(folder):
    return sorted(path for path in folder.path.rglob("*") if path.is_file() and path.name not in ("pairs.json", "lock"))


def everything(pair):
    sides = [pair.chosen, pair.rejected]
    arrays = [array for side in sides for array in (side.prompt_ids, side.ids, side.mask)]
    numbers = [pair.row, pair.truncated, pair.margin, pair.weight]
    return [pair.location, numbers, pair.key, pair.prompt_key, [(a.dtype, a.tolist()) for a in arrays]]


def test_pairs_come_back_exactly(folder, prepared, config):
    assert folder.origin() == ORIGIN
    loaded = folder.load(ORIGIN, config)
    for split in SPLITS:
        assert prepared.splits[split]
        assert list(map(everything, loaded.splits[split])) == list(map(everything, prepared.splits[split]))
    assert list(map(everything, loaded.all)) == list(map(everything, prepared.all))
    assert loaded.rejections == prepared.rejections
    assert loaded.coverage == prepared.coverage
    assert loaded.coverage.truncated > 0
    assert {(pair.margin, pair.weight) for pair in loaded.all} == {(row["gap"], row["sure"]) for row in ROWS}


def test_nothing_comes_back_exactly(folder, config, rows_file, tokenizer):
    config = config.model_copy(
        update={"train": [config.train[0].model_copy(update={"path": str(rows_file(name="no.jsonl"))})]}
    )
    make(folder, config, tokenizer)
    loaded = folder.load(ORIGIN, config)
    assert list(loaded.all) == loaded.rejections == []


def test_stored_keys_are_the_keys_of_what_is_stored(folder, prepared, config):
    for pair in folder.load(ORIGIN, config).all:
        sides = [response_key(side.prompt_ids, side.ids, side.mask) for side in (pair.chosen, pair.rejected)]
        assert [pair.chosen.key, pair.rejected.key] == sides
        assert (pair.key, pair.prompt_key) == (pair_key(*sides), prompt_key(pair.chosen.prompt_ids))


def test_same_pairs_give_the_same_bytes(folder, prepared, tmp_path, config, tokenizer):
    again = PairsFolder(tmp_path / "again")
    make(again, config, tokenizer)
    for file in (*files(folder), folder.path / "pairs.json"):
        assert (again.path / file.relative_to(folder.path)).read_bytes() == file.read_bytes()


def test_pairs_made_from_something_else_are_not_loaded(folder, prepared, config):
    assert folder.load(ORIGIN | {"max_length": 41}, config) is None


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_any_file_that_is_not_as_it_was_written_makes_the_pairs_again(folder, prepared, config, caplog, damage):
    for file in files(folder):
        content = file.read_bytes()
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        file.write_bytes(changed) if damage == "changed" else file.unlink()
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="data.pairs.folder"):
            assert folder.load(ORIGIN, config) is None
        assert caplog.messages == [f"{file} is not as it was written; the pairs are made again"]
        file.write_bytes(content)
    assert len(files(folder)) > 3
    assert folder.load(ORIGIN, config) is not None


def test_a_damaged_part_is_made_again(folder, prepared, config, tokenizer, caplog):
    (part,) = folder.parts.glob("*.arrow")
    content = part.read_bytes()
    part.write_bytes(content[:-9])
    make(folder, config, tokenizer)
    assert f"{part} is not as it was written; it is made again" in caplog.messages
    assert part.read_bytes() == content


@pytest.mark.parametrize("text", [None, "", '{"origin": {', "{}", '{"files": {}}'])
def test_torn_account_makes_the_pairs_again(folder, prepared, config, text):
    (folder.path / "pairs.json").unlink()
    if text is not None:
        (folder.path / "pairs.json").write_text(text)
    assert folder.origin() is None
    assert folder.load(ORIGIN, config) is None


def test_writing_again_leaves_no_part_that_is_not_in_use(folder, prepared, config, tokenizer):
    before = set(folder.parts.iterdir())
    make(folder, config, tokenizer, version=2)
    assert len(before) == len(set(folder.parts.iterdir())) == 1
    assert not before & set(folder.parts.iterdir())


def test_rejects_can_be_read_by_anything(folder, prepared):
    rows = pl.read_parquet(folder.rejects).to_dicts()
    assert [(row["row"], row["location"], row["reason"]) for row in rows] == [
        (r.row, r.location, r.reason) for r in prepared.rejections
    ]
    assert [row["reason"] for row in rows] == ["unreadable_row", "missing_field"]


def test_reject_of_any_row_can_be_written(folder, config, rows_file, tokenizer):
    path = str(rows_file(ROWS[0], {"\ud800": "half a character"}, name="half.jsonl"))
    prepared = make(folder, DataConfig(train=path, eval_fraction=0), tokenizer)
    assert [bad.reason for bad in prepared.rejections] == ["missing_field"]


def test_tokenizer_travels_with_the_pairs(folder, prepared, tmp_path, tokenizer):
    policy = tmp_path / "policy"
    policy.mkdir()
    folder.copy_tokenizer(policy)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    for where in (folder.tokenizer, policy):
        loaded = load_tokenizer(where)
        assert loaded.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False) == text
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_tokenizer_of_several_templates_travels_too(folder, config, tmp_path, tokenizer_with):
    using = tokenizer_with({"default": tokenizer_with().chat_template, "tool_use": "{{ tools }}"})
    make(folder, config, using)
    assert folder.load(ORIGIN, config) is not None
    policy = tmp_path / "policy"
    policy.mkdir()
    folder.copy_tokenizer(policy)
    assert load_tokenizer(policy).chat_template == using.chat_template
