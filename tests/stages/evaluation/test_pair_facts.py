"""What is known of held-out pairs, against the rows themselves; and what training shares with them."""

import random

import pytest

from data.config import DataConfig
from data.identity import file_digest
from data.pairs.coverage import Coverage
from data.pairs.folder import PairsFolder
from data.pairs.part_maker import PartMaker
from data.pairs.preparation import prepare
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import PairTokenizer
from stages.evaluation.pair_facts import leakage, pair_facts
from tests.tiny import write_jsonl


def row(i, **more):
    """A row whose prompt has i % 3 + 1 turns of the user's."""
    turns = [{"role": "user", "content": f"Question {i}: why?"}]
    for j in range(i % 3):
        turns += [{"role": "assistant", "content": f"Say {j}."}, {"role": "user", "content": "And?"}]
    return {"prompt": turns, "chosen": f"Because {i}.", "rejected": "Nobody knows."} | more


@pytest.fixture
def prepared_of(tokenizer, tmp_path):
    """The data step over a configuration: the configuration and the pairs."""

    def run(**settings):
        config = DataConfig(**{"max_length": 128} | settings)
        maker = PartMaker(lambda: PairTokenizer(tokenizer, [2], config.max_length), [tmp_path], 1, file_digest)
        return config, prepare(config, maker, {}, lambda _: None)

    return run


def facts_of(config, prepared, *columns, split="eval"):
    return pair_facts(prepared.splits[split], prepared, config, columns)


def test_facts_of_several_sources_in_the_order_of_the_pairs(prepared_of, tmp_path):
    rows = {name: [row(i, topic=f"{name}{i}", gap=i / 4) for i in range(20)] for name in "ab"}
    paths = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", ["", "torn", *rows[name]])) for name in "ab"}
    train = [paths["a"], {"path": paths["b"], "columns": {"margin": "gap"}}]
    config, prepared = prepared_of(train=train, eval_fraction=0.5)
    pairs = prepared.splits["eval"]
    shuffled = pairs.take(random.Random(0).sample(range(len(pairs)), len(pairs)))
    facts = pair_facts(shuffled, prepared, config, ["topic"])
    assert 5 < facts.height == len(shuffled) and set(facts["source"]) == {*paths.values()}
    for pair, fact in zip(shuffled, facts.iter_rows(named=True), strict=True):
        file, _, line = pair.location.rpartition(":")
        name, i = ("a" if file == paths["a"] else "b"), int(line) - 3
        assert fact == {
            "pair_key": pair.key,
            "row": pair.row,
            "n_prompt": len(pair.chosen.prompt_ids),
            "turns": i % 3 + 1,
            "source": file,
            "score_gap": i / 4 if name == "b" else None,
            "slice:topic": f"{name}{i}",
        }


def test_facts_are_those_of_pairs_that_were_loaded(prepared_of, tmp_path, tokenizer):
    path = str(write_jsonl(tmp_path / "rows.jsonl", [row(i, topic=f"t{i}") for i in range(8)]))
    config = DataConfig(train=path, eval_fraction=0.5, max_length=128)
    folder = PairsFolder(tmp_path / "pairs")
    maker = PartMaker(lambda: PairTokenizer(tokenizer, [2], 128), [folder.parts], 1, file_digest)
    made = prepare(config, maker, {}, lambda _: None)
    folder.write(made, {}, tokenizer)
    assert facts_of(config, folder.load({}, config), "topic").equals(facts_of(config, made, "topic"))


def test_leakage_against_every_pair_of_pairs(prepared_of, tmp_path):
    """Held out are training pairs, other answers to their prompts, longer talks with their first turn, and new rows."""
    train = [row(i) for i in range(12)]
    held_out = train[:3] + [row(i) | {"chosen": "Other."} for i in range(2, 7)] + [row(20 + i) for i in range(4)]
    held_out += [row(0) | {"prompt": [*row(0)["prompt"], {"role": "assistant", "content": "So."}, row(0)["prompt"][0]]}]
    paths = [str(write_jsonl(tmp_path / name, rows)) for name, rows in (("t.jsonl", train), ("e.jsonl", held_out))]
    _, prepared = prepared_of(train={"path": paths[0], "weight": 2}, eval=paths[1])
    pairs, seen = prepared.splits["eval"], prepared.splits["train"]
    assert leakage(seen, pairs, prepared.coverage) == {
        "pairs": sum(pair.key in {each.key for each in seen} for pair in pairs),
        "prompts": sum(pair.prompt_key in {each.prompt_key for each in seen} for pair in pairs),
        "first_turns": prepared.coverage.overlap,
    }
    assert leakage(seen, pairs, prepared.coverage) == {"pairs": 3, "prompts": 8, "first_turns": 9}


def test_nothing_is_shared_with_nothing():
    nothing = TokenPairs([])
    assert leakage(nothing, nothing, Coverage()) == {"pairs": 0, "prompts": 0, "first_turns": 0}
