"""Lines that have been made into pairs once never are again, and parts are what their lines say."""

import json
import random
from itertools import pairwise

import pytest

from data.config import DataConfig
from data.identity import file_digest
from data.pairs import pair_parts
from data.pairs.pair_parts import RawPart, cut_parts, named_digest
from data.pairs.part_maker import PartMaker
from data.pairs.preparation import prepare
from data.sources.lines import Line
from data.tokens.tokenization import PairTokenizer
from tests.tiny import example_rows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of about ten lines."""
    for name, value in (("FEWEST", 4), ("USUAL", 10), ("MOST", 20)):
        monkeypatch.setattr(pair_parts, name, value)


def lines(texts, file="rows.jsonl"):
    return [Line(file, number, text.encode()) for number, text in enumerate(texts, 1)]


def cut(texts, file="rows.jsonl"):
    return [part.lines for part in cut_parts(lines(texts, file))]


TEXTS = [f"row {i}" for i in range(400)]


def test_every_line_is_in_one_part_in_order():
    assert [line for part in cut(TEXTS) for line in part] == lines(TEXTS)
    sizes = [len(part) for part in cut(TEXTS)]
    assert max(sizes) <= 20 and min(sizes[:-1]) >= 4 and 7 < sum(sizes) / len(sizes) < 13


def test_a_part_never_spans_two_files():
    both = [*lines(TEXTS[:30]), *lines(TEXTS[30:60], "more.jsonl")]
    for part in cut_parts(both):
        assert len({line.file for line in part.lines}) == 1


@pytest.mark.parametrize("place", [0, 57, 399])
def test_a_row_put_in_moves_no_other_part(place):
    changed = [*TEXTS[:place], "another row", *TEXTS[place:]]
    before, after = ({RawPart(part).key for part in cut(texts)} for texts in (TEXTS, changed))
    assert len(after - before) <= 3 and len(before - after) <= 3


def test_few_long_lines_make_a_part(monkeypatch):
    monkeypatch.setattr(pair_parts, "MOST_BYTES", 1000)
    assert [len(part) for part in cut(["x" * 999, "y", "z" * 3000, "w"])] == [2, 1, 1]


def test_the_key_of_a_part_is_what_its_lines_say_and_not_where():
    part = cut(TEXTS[:8])[0]
    moved = [line._replace(file="other.jsonl", number=line.number + 7) for line in part]
    assert RawPart(moved).key == RawPart(part).key
    changes = [
        part[:-1],
        part[::-1],
        [*part[:-1], part[-1]._replace(number=99)],
        [*part[:-1], part[-1]._replace(text=b"")],
    ]
    changes += [
        [*part[:-1], part[-1]._replace(problem="torn")],
        [part[0]._replace(text=part[0].text + part[1].text), *part[2:]],
    ]
    assert len({RawPart(each).key for each in (part, *changes)}) == 1 + len(changes)


@pytest.fixture
def made(tmp_path, tokenizer):
    """Prepares rows; tells how many it had to tokenise."""
    folder = tmp_path / "parts"

    def run(path, folders=(), recipe=None, workers=1, **config):
        tokenised = []

        class Counting(PairTokenizer):
            def tokenize(self, pairs):
                for pair, outcome in super().tokenize(pairs):
                    tokenised.append(pair.location)
                    yield pair, outcome

        settings = DataConfig(**{"train": str(path), "eval_fraction": 0, "max_length": 128} | config)
        recipe = recipe or (lambda: Counting(tokenizer, [2], settings.max_length))
        maker = PartMaker(recipe, [*folders, folder], workers, file_digest)
        told = []
        prepared = prepare(settings, maker, {"max_length": settings.max_length}, told.append)
        assert sum(told) == prepared.coverage.rows
        return prepared, tokenised

    return run


def test_a_grown_file_is_tokenised_in_its_last_part_only(made, rows_file):
    first, tokenised = made(rows_file(*example_rows(200)))
    assert len(tokenised) == 200
    second, tokenised = made(rows_file(*example_rows(210)))
    assert len(tokenised) <= 30
    assert second.all.keys.to_list()[:200] == first.all.keys.to_list()
    assert made(rows_file(*example_rows(210)))[1] == []


def test_pairs_that_were_made_elsewhere_stand_where_they_stand_now(made, rows_file):
    """Another name, another place in the file, another source before it: locations and numbers follow."""
    rows = [*example_rows(50), "torn", *example_rows(50, 50)]
    before, _ = made(rows_file(*rows))
    files = [rows_file("", *example_rows(3, 900), name="a.jsonl"), rows_file(*rows, name="b.jsonl")]
    after, tokenised = made(files[0], train=[str(file) for file in files])
    assert len(tokenised) == 3
    assert after.all.keys.to_list()[3:] == before.all.keys.to_list()
    assert [pair.location for pair in after.all] == [
        *(f"{files[0]}:{i}" for i in (2, 3, 4)),
        *(f"{files[1]}:{i + 1}" for i in range(101) if i != 50),
    ]
    assert [pair.row for pair in after.all] == [i for i in range(104) if i != 53]
    assert [(bad.row, bad.location) for bad in after.rejections] == [(53, f"{files[1]}:51")]


def test_what_pairs_depend_on_makes_other_parts_and_a_split_does_not(made, rows_file):
    path = rows_file(*example_rows(40))
    assert made(path)[1]
    for change in ({"eval_fraction": 0.5}, {"dev_fraction": 0.2}, {"train": {"path": str(path), "weight": 2.5}}):
        assert made(path, **change)[1] == []
    for change in (
        {"max_length": 64},
        {"train": {"path": str(path), "columns": {"chosen": "rejected", "rejected": "chosen"}}},
    ):
        assert len(made(path, **change)[1]) == 40


def test_the_same_lines_give_the_same_bytes(made, rows_file, tmp_path):
    prepared, _ = made(rows_file(*example_rows(60)))
    contents = {part.path.name: part.path.read_bytes() for part in prepared.parts}
    for part in prepared.parts:
        assert named_digest(part.path) == file_digest(part.path)
        part.path.unlink()
    again, _ = made(rows_file(*example_rows(60)))
    assert {part.path.name: part.path.read_bytes() for part in again.parts} == contents


def test_an_interrupted_preparation_goes_on_where_it_stopped(made, rows_file, tokenizer):
    path = rows_file(*example_rows(200))

    class Stops(PairTokenizer):
        left = 90

        def tokenize(self, pairs):
            for found in super().tokenize(pairs):
                Stops.left -= 1
                if not Stops.left:
                    raise KeyboardInterrupt
                yield found

    with pytest.raises(KeyboardInterrupt):
        made(path, recipe=lambda: Stops(tokenizer, [2], 128))
    prepared, tokenised = made(path)
    assert 110 <= len(tokenised) <= 130
    assert prepared.coverage.used == 200


def test_parts_of_another_folder_are_taken_and_none_is_written_there(made, rows_file, tmp_path):
    first, _ = made(rows_file(*example_rows(60)))
    here = first.parts[0].path.parent
    elsewhere = here.rename(tmp_path / "elsewhere")
    before = sorted(elsewhere.iterdir())
    _, tokenised = made(rows_file(*example_rows(62)), folders=[elsewhere])
    assert 0 < len(tokenised) <= 22
    assert sorted(elsewhere.iterdir()) == before and list(here.glob("*.arrow"))


@pytest.mark.parametrize("weight", [0.25, 1, 2, 2.5])
def test_a_source_is_visited_as_often_as_its_weight_says(made, rows_file, weight):
    more = str(rows_file(*example_rows(50, 1000), name="more.jsonl"))
    weighted = {"path": str(rows_file(*example_rows(400))), "weight": weight}
    prepared, _ = made(None, train=[weighted, more], eval_fraction=0.2)
    once = made(None, train=[weighted["path"], more], eval_fraction=0.2)[0]
    train = prepared.splits["train"].keys.to_list()
    counts = {pair.key: train.count(pair.key) for pair in once.splits["train"] if "more" not in pair.location}
    assert set(counts.values()) <= {int(weight), int(weight) + (weight % 1 > 0)}
    assert abs(sum(counts.values()) - weight * len(counts)) < 4 * (len(counts) * 0.25) ** 0.5
    assert prepared.coverage.splits == once.coverage.splits and prepared.coverage.used == 450
    assert prepared.splits["eval"].keys.to_list() == once.splits["eval"].keys.to_list()
    assert prepared.all.keys.to_list() == once.all.keys.to_list()
    n_more = sum("more" in pair.location for pair in once.splits["train"])
    expected = {} if weight == 1 else {weighted["path"]: sum(counts.values()), more: n_more}
    assert prepared.coverage.visits == expected
    assert len(prepared.splits["train"]) == sum(counts.values()) + n_more


def test_a_heavier_weight_keeps_the_visits_of_a_lighter_one(made, rows_file):
    path = str(rows_file(*example_rows(200)))
    visits = [set(made(None, train={"path": path, "weight": w})[0].splits["train"].keys) for w in (0.2, 0.3, 0.9, 1)]
    assert all(light < heavy for light, heavy in pairwise(visits))


def test_rows_in_any_order_are_the_same_pairs(made, rows_file):
    rows = example_rows(120)
    before, _ = made(rows_file(*rows))
    random.Random(1).shuffle(rows)
    after, _ = made(rows_file(*rows, name="shuffled.jsonl"))
    assert sorted(after.all.keys) == sorted(before.all.keys)


def test_the_account_of_a_part_is_plain_json(made, rows_file):
    from data.tokens.token_pairs import open_batch

    prepared, _ = made(rows_file(*example_rows(5), "torn", ""))
    account = json.loads(open_batch(prepared.parts[-1].path).schema.metadata[b"account"])
    assert account["rows"] >= 1 and set(account) == {"pairs", "rows", "read", "multi_turn", "seams_split", "rejections"}


def test_the_turns_of_the_user_are_counted_in_the_prompt_and_nowhere_else(made, rows_file):
    """Behind a system message, around the assistant's and a tool's, beside rows that are refused; a system's alone."""
    system, user, tool = ({"role": role, "content": f"A {role}."} for role in ("system", "user", "tool"))
    said = {"role": "assistant", "content": "So."}
    prompts = ["Why?", [system, user], [user, said, user], [user, said, tool, user, user], [system]]
    rows = [{"prompt": prompt, "chosen": "Yes.", "rejected": [said]} for prompt in prompts]
    prepared, _ = made(rows_file(rows[0], "torn", *rows[1:]))
    assert prepared.all.column("turns").to_list() == [1, 1, 2, 3, 0]
