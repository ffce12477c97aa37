"""What is known of held-out pairs, against the rows themselves; and what training shares with them."""

import gzip
import json
import random

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.config import DataConfig
from data.errors import ConfigError, DataError
from data.identity import file_digest
from data.pairs.coverage import Coverage
from data.pairs.folder import PairsFolder
from data.pairs.part_maker import PartMaker
from data.pairs.preparation import prepare
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import PairTokenizer
from stages.evaluation.pair_facts import leakage, pair_facts, with_facts
from stages.metrics.slices import slices
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


def files(tmp_path, rows):
    """The same rows in every way that they may lie there."""
    (tmp_path / "plain.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=7)
    (tmp_path / "folder").mkdir()
    write_jsonl(tmp_path / "folder" / "one.jsonl", rows[:11])
    write_jsonl(tmp_path / "folder" / "two.jsonl", rows[11:])
    return [str(tmp_path / name) for name in ("plain.jsonl.gz", "list.json", "rows.parquet", "folder")]


@pytest.mark.parametrize("place", range(4))
def test_columns_are_found_in_any_kind_of_source(prepared_of, tmp_path, place):
    rows = [row(i, topic=f"t{i}", level=i) for i in range(30)]
    path = files(tmp_path, rows)[place]
    config, prepared = prepared_of(train=str(write_jsonl(tmp_path / "train.jsonl", rows[:2])), eval=path)
    facts = facts_of(config, prepared, "level", "topic")
    assert facts["slice:topic"].to_list() == [f"t{i}" for i in range(30)]
    assert facts["slice:level"].to_list() == list(range(30)) and facts["slice:level"].dtype == pl.Int64
    assert set(facts["source"]) == {path}
    assert facts["turns"].to_list() == [i % 3 + 1 for i in range(30)]


def test_columns_are_found_in_a_csv_whose_rows_take_several_lines(prepared_of, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,topic\n" + "".join(f'"Why\n{i}?",Yes.,No.,t{i}\n' for i in range(9)))
    config, prepared = prepared_of(train=str(write_jsonl(tmp_path / "train.jsonl", [row(0)])), eval=str(path))
    assert facts_of(config, prepared, "topic")["slice:topic"].to_list() == [f"t{i}" for i in range(9)]


def test_columns_are_found_on_the_hub(prepared_of, tmp_path, monkeypatch):
    rows = [{"prompt": f"Why {i}?", "chosen": "Yes.", "rejected": "No.", "topic": f"t{i}"} for i in range(6)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    config, prepared = prepared_of(train=str(write_jsonl(tmp_path / "train.jsonl", [row(0)])), eval="owner/name")
    facts = facts_of(config, prepared, "topic")
    assert facts["slice:topic"].to_list() == [f"t{i}" for i in range(6)] and set(facts["source"]) == {"owner/name"}


def test_several_pairs_of_a_row_and_rows_that_stand_twice_have_their_rows_columns(prepared_of, tmp_path):
    def rated(i):
        answers = [{"text": f"Answer {i} {j}.", "score": j} for j in range(4)]
        return {"prompt": f"Why {i}?", "answers": answers, "topic": f"t{i}"}

    rows = [rated(0), rated(1), rated(0) | {"topic": "again"}]
    path = str(write_jsonl(tmp_path / "rated.jsonl", rows))
    train = str(write_jsonl(tmp_path / "train.jsonl", [row(0)]))
    config, prepared = prepared_of(train=train, eval={"path": path, "pairs": "adjacent"})
    facts = facts_of(config, prepared, "topic")
    assert facts["slice:topic"].to_list() == ["t0"] * 3 + ["t1"] * 3 + ["again"] * 3
    assert facts["row"].to_list() == list(range(1, 10))  # train has the first
    assert facts["pair_key"].n_unique() == 6


def test_a_file_that_is_two_sources_is_read_for_both(prepared_of, tmp_path):
    path = str(write_jsonl(tmp_path / "rows.jsonl", [row(i, topic=f"t{i}") for i in range(4)]))
    config, prepared = prepared_of(train=path, eval=[path, {"path": path, "columns": {"rejected": "rejected"}}])
    assert facts_of(config, prepared, "topic")["slice:topic"].to_list() == [f"t{i}" for i in range(4)] * 2


def test_facts_are_those_of_pairs_that_were_loaded(prepared_of, tmp_path, tokenizer):
    path = str(write_jsonl(tmp_path / "rows.jsonl", [row(i, topic=f"t{i}") for i in range(8)]))
    config = DataConfig(train=path, eval_fraction=0.5, max_length=128)
    folder = PairsFolder(tmp_path / "pairs")
    maker = PartMaker(lambda: PairTokenizer(tokenizer, [2], 128), [folder.parts], 1, file_digest)
    made = prepare(config, maker, {}, lambda _: None)
    folder.write(made, {}, tokenizer)
    assert facts_of(config, folder.load({}, config), "topic").equals(facts_of(config, made, "topic"))


HOSTILE = [
    ("\u202ereversed", "\u202ereversed"),
    ("x" * 100_000, "x" * 100_000),
    ("half \ud83d", "half ?"),
    ("nul \0", "nul \0"),
    ("", ""),
    (None, None),
    (float("nan"), None),
    (True, "true"),
    (7, "7"),
    (10**400, str(10**400)),
    ({"b": [1, None], "a": "é"}, '{"a": "é", "b": [1, null]}'),
]


def test_values_of_any_kind_are_kept_as_texts(prepared_of, tmp_path):
    rows = [row(i, odd=value) for i, (value, _) in enumerate(HOSTILE)] + [row(99)]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    config, prepared = prepared_of(train=str(write_jsonl(tmp_path / "train.jsonl", rows[:1])), eval=path)
    facts = facts_of(config, prepared, "odd")
    assert facts["slice:odd"].to_list() == [kept for _, kept in HOSTILE] + [None]
    scores = dict.fromkeys(("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "margin"), 0.0)
    scored = facts.with_columns(n_chosen=1, prompt_key="pair_key", ref_rejected_logps=0.0, **scores)
    assert sum(found["n"] for found in slices(scored)["odd"]) == len(rows)


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([1, 2, None], pl.Int64, [1, 2, None]),
        ([1, 0.5, float("nan")], pl.Float64, [1.0, 0.5, None]),
        ([1, "2", None], pl.String, ["1", "2", None]),
        ([1, True, None], pl.String, ["1", "true", None]),
        ([1, 2**63, None], pl.String, ["1", str(2**63), None]),
        ([None, None, None], pl.String, [None, None, None]),
    ],
)
def test_a_column_is_one_of_numbers_only_where_all_of_it_is(prepared_of, tmp_path, values, kind, kept):
    rows = [row(i, level=value) for i, value in enumerate(values)]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    config, prepared = prepared_of(train=path, eval=path)
    column = facts_of(config, prepared, "level")["slice:level"]
    assert (column.dtype, column.to_list()) == (kind, kept)


@pytest.fixture
def two_columns(prepared_of, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [row(i, topic="a", **{"\u202e" * 50: 1}) for i in range(3)])
    return *prepared_of(train=str(path), eval=str(path)), path


def test_a_column_that_no_row_has_is_named_with_those_that_there_are(two_columns):
    config, prepared, _ = two_columns
    with pytest.raises(ConfigError) as error:
        facts_of(config, prepared, "topic", "topik")
    assert str(error.value) == (
        "eval.slices names the column topik, and no row of the held-out pairs has it; did you mean topic? Their "
        "columns are: chosen, prompt, rejected, topic, " + "\u202e" * 40 + ". Correct the name, or take it out."
    )


def test_a_source_that_changed_meanwhile_is_named(two_columns):
    config, prepared, path = two_columns
    write_jsonl(path, [row(0)])
    with pytest.raises(DataError, match=r"rows\.jsonl:2 is not there any more: .*rows\.jsonl has changed since"):
        facts_of(config, prepared, "topic")


def test_without_columns_no_source_is_read(two_columns):
    config, prepared, path = two_columns
    path.unlink()
    assert facts_of(config, prepared).height == 3


def test_a_column_that_is_named_twice_is_one(two_columns):
    config, prepared, _ = two_columns
    assert facts_of(config, prepared, "topic", "topic").columns[-2:] == ["score_gap", "slice:topic"]


def test_scores_get_their_facts_in_their_own_order_and_lose_those_of_before():
    scores = pl.DataFrame({"pair_key": ["a", "a", "b"], "row": [5, 1, 3], "margin": [0.1, 0.2, 0.3]})
    facts = pl.DataFrame(
        {"pair_key": ["b", "a", "a"], "row": [3, 1, 5], "turns": [3, 1, 5], "slice:x": ["3", "1", "5"]}
    )
    found = with_facts(scores, facts)
    assert found.to_dict(as_series=False) == scores.to_dict(as_series=False) | {
        "turns": [5, 1, 3], "slice:x": ["5", "1", "3"],
    }  # fmt: skip
    assert with_facts(found, facts.drop("slice:x")).columns == ["pair_key", "row", "margin", "turns"]
    assert with_facts(found, facts).equals(found)
    assert with_facts(scores, pl.DataFrame({"pair_key": []})).equals(scores)


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
