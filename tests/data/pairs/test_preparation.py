"""Every row that is read is used or rejected, and the account says which."""

import json
import logging
import random
from typing import get_args

import pytest
from pydantic import ValidationError

from data.config import DataConfig
from data.errors import DataError
from data.pairs.usable import check_usable
from data.rows.bad_rows import REASONS, Reason
from data.schema import Rejection

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "Nobody knows."}
TEMPLATE = (
    "{% if 'forbidden' in messages[0]['content'] %}{{ raise_exception('no such talk') }}{% endif %}"
    "{% if 'moody' in messages[0]['content'] %}{{ messages | length }}{% endif %}"
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
BAD = {
    "unreadable_row": '{"prompt": "torn',
    "missing_field": {"prompt": "Why?", "chosen": "Because."},
    "wrong_type": GOOD | {"chosen": None},
    "unknown_role": GOOD | {"prompt": [USER | {"role": "human"}]},
    "empty_prompt": GOOD | {"prompt": " "},
    "prompt_ends_with_assistant": GOOD | {"prompt": [USER, ANSWER]},
    "empty_completion": GOOD | {"rejected": "\n"},
    "no_assistant_turn": GOOD | {"chosen": [USER, ANSWER]},
    "identical_completions": GOOD | {"rejected": "Because."},
    "template_failed": GOOD | {"prompt": "forbidden"},
    "special_tokens_in_text": GOOD | {"chosen": "Because.<|im_end|>"},
    "prompt_not_a_prefix": GOOD | {"prompt": "moody"},
    "prompt_too_long": GOOD | {"prompt": "?" * 200},
    "identical_after_truncation": GOOD | {"chosen": "!" * 200 + "a", "rejected": "!" * 200 + "b"},
}


def answers(n, prompt="Question {}: why?"):
    return [GOOD | {"prompt": prompt.format(i)} for i in range(n)]


def test_every_reason_is_reached_and_names_its_line(prepare_rows, tokenizer_with):
    of_forms = {"prompt_mismatch", "no_preference"}  # test_forms.py
    of_a_tokenizer = {"seam_inside_a_token"}  # test_tokenization.py
    assert {*BAD} | of_forms | of_a_tokenizer == set(REASONS) == set(get_args(Reason))
    prepared = prepare_rows(GOOD, *BAD.values(), GOOD, using=tokenizer_with(TEMPLATE))
    found = [(r.row, r.location.rpartition("/")[2], r.reason) for r in prepared.rejections]
    assert found == [(i, f"rows.jsonl:{i + 1}", reason) for i, reason in enumerate(BAD, start=1)]
    assert prepared.coverage.rejected == dict.fromkeys(sorted(BAD), 1)
    assert [pair.row for pair in prepared.all] == [0, len(BAD) + 1]


def random_row(rng):
    """A good row, or garbage of some kind, or a good row with one field exchanged for garbage."""
    word = "".join(rng.choices("abc ?\n\té\u00a0\U0001f600", k=rng.choice([0, 1, 5, 40])))
    junk = [
        None,
        True,
        3,
        0.5,
        "",
        " ",
        word,
        word * 9,
        "<|im_end|>",
        "\ud800",
        [],
        {},
        [USER],
        [ANSWER],
        [USER, ANSWER],
    ]
    junk += [
        ["text"],
        [None],
        [[USER]],
        [{}],
        [{"role": word, "content": word}],
        [{"role": "tool", "content": word}],
        GOOD,
    ]
    good = {"prompt": word + "?", "chosen": word + "a", "rejected": [{"role": "assistant", "content": word + "b"}]}
    changed = good | {rng.choice(["prompt", "chosen", "rejected", "other"]): rng.choice(junk)}
    smaller = dict(rng.sample(sorted(good.items()), k=rng.randrange(3)))
    torn = json.dumps(good)[: rng.randrange(1, 40)]
    return rng.choice([good, good, good, changed, changed, smaller, torn, rng.choice(junk[:4]), [good]])


@pytest.mark.parametrize("seed", range(4))
def test_read_is_used_plus_rejected_and_no_row_is_lost(prepare_rows, rows_file, seed):
    rng = random.Random(seed)
    rows, more = ([random_row(rng) for _ in range(rng.choice([1, 255, 300, 600]))] for _ in range(2))
    lines = ["" if rng.random() < 0.1 else row for row in rows]
    sources = {"eval": str(rows_file(*more, name="more.jsonl")), "eval_fraction": None, "dev_fraction": 0.3}
    prepared = prepare_rows(*lines, max_length=60, **sources)
    coverage = prepared.coverage
    assert coverage.read == len(more) + sum(line != "" for line in lines)
    assert coverage.read == coverage.used + sum(coverage.rejected.values())
    assert coverage.used == len(prepared.all) == sum(coverage.splits.values())
    outcomes = sorted([*prepared.all, *prepared.rejections], key=lambda outcome: outcome.row)
    assert [outcome.row for outcome in outcomes] == list(range(coverage.read))
    assert prepared.rejections == [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    numbers = [i + 1 for i, line in enumerate(lines) if line != ""] + list(range(1, len(more) + 1))
    assert [int(outcome.location.rpartition(":")[2]) for outcome in outcomes] == numbers


def test_progress_is_told_of_every_row_read(prepare_rows):
    told = []
    assert prepare_rows(GOOD, "torn", "", GOOD, advance=told.append).coverage.read == sum(told) == 3


def test_rows_of_several_sources_are_numbered_through(prepare_rows, rows_file):
    one, two = str(rows_file(*answers(2), name="one.jsonl")), str(rows_file("torn", *answers(2), name="two.jsonl"))
    prepared = prepare_rows(train=[one, two])
    assert [(pair.row, pair.location) for pair in prepared.all] == [
        (0, f"{one}:1"),
        (1, f"{one}:2"),
        (3, f"{two}:2"),
        (4, f"{two}:3"),
    ]
    assert [(r.row, r.location) for r in prepared.rejections] == [(2, f"{two}:1")]


def test_question_stands_on_one_side_only(prepare_rows):
    rows = [GOOD | {"prompt": f" Why  {i % 20}? ", "chosen": f"Because {i}."} for i in range(60)]
    prepared = prepare_rows(*rows, eval_fraction=0.4, dev_fraction=0.2)
    sides = [{pair.prompt_key for pair in prepared.splits[split]} for split in ("train", "dev", "eval")]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    assert prepared.coverage.overlap == 0


def test_own_held_out_source_is_all_eval_and_its_overlap_is_counted(prepare_rows, rows_file):
    held_out = str(rows_file(*answers(3, " Question\n{}:  why?"), *answers(2, "Never asked {}"), name="eval.jsonl"))
    prepared = prepare_rows(*answers(8), eval=held_out, eval_fraction=None)
    assert prepared.coverage.splits == {"train": 8, "dev": 0, "eval": 5}
    assert prepared.coverage.overlap == 3


def test_truncation_and_seams_are_counted(prepare_rows, tokenizer_with):
    long = {"prompt": "o", "chosen": "ver", "rejected": "!" * 40}
    prepared = prepare_rows(GOOD, long, long, using=tokenizer_with(None), max_length=21)
    assert [pair.truncated for pair in prepared.all] == [0, 21, 21]
    assert (prepared.coverage.truncated, prepared.coverage.truncated_tokens) == (2, 42)
    assert prepared.coverage.seams_split == 2


def test_same_rows_give_the_same_pairs_in_the_same_order(prepare_rows):
    rows = answers(50)
    keys = [[pair.key for pair in prepare_rows(*rows, eval_fraction=0.3).all] for _ in range(2)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("n_good", "n_bad", "max_bad", "refused"),
    [
        (20, 5, 0.0, False),
        (20, 6, 0.0, True),
        (20, 6, 0.3, False),
        (14, 6, 0.3, False),
        (13, 6, 0.3, True),
        (6, 9, 1.0, False),
    ],
)
def test_too_many_bad_rows_are_refused(prepare_rows, n_good, n_bad, max_bad, refused):
    prepared = prepare_rows(*answers(n_good), *["torn"] * n_bad)
    if not refused:
        check_usable(prepared, max_bad)
        return
    with pytest.raises(
        DataError, match=rf"^{n_bad} of {n_good + n_bad} rows are rejected \({n_bad} unreadable_row\)"
    ) as e:
        check_usable(prepared, max_bad)
    assert f"more than data.max_bad = {max_bad:g} allows. The first: " in str(e.value)
    assert f"rows.jsonl:{n_good + 1} unreadable_row (not a line of JSON (" in str(e.value)
    assert "All of them stand in pairs/rejects.parquet" in str(e.value)


def test_nothing_to_train_on_is_refused_with_what_was_rejected(prepare_rows):
    with pytest.raises(
        DataError, match=r"^No training pairs are left of 2 rows read \(2 empty_completion\)\. Check"
    ) as e:
        check_usable(prepare_rows(BAD["empty_completion"], BAD["empty_completion"]), 1.0)
    assert "The first rejected: " in str(e.value)
    with pytest.raises(DataError, match=r"^No training pairs are left of 0 rows read \(none rejected\)\."):
        check_usable(prepare_rows(), 1.0)


def test_few_bad_rows_and_overlap_are_warned_of(prepare_rows, rows_file, caplog):
    held_out = str(rows_file(GOOD, name="eval.jsonl"))
    with caplog.at_level(logging.WARNING, logger="data.pairs.usable"):
        check_usable(prepare_rows(GOOD, "torn", eval=held_out, eval_fraction=None), 0.0)
    bad, overlap = caplog.messages
    assert bad.startswith("1 of 3 rows rejected (1 unreadable_row). The first: ")
    assert overlap == "1 held-out pairs share their first user turn with training pairs"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"train": []}, "at least 1 item"),
        ({"eval": "e.jsonl", "eval_fraction": 0.1}, "eval and eval_fraction both say what is held out"),
        ({"eval_fraction": 0.6, "dev_fraction": 0.4}, "together leave nothing to train on"),
        ({"dev_fraction": 0.95}, "together leave nothing to train on"),
        ({"eval_fraction": 1.0}, "less than 1"),
        ({"max_length": 1}, "greater than or equal to 2"),
        ({"max_bad": float("nan")}, "finite"),
        ({"evals": "e.jsonl"}, "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_configuration_that_cannot_be_meant_is_refused(config, problem):
    with pytest.raises(ValidationError, match=problem):
        DataConfig(**{"train": "t.jsonl"} | config)


def test_a_tenth_is_held_out_unless_something_else_is_said():
    assert DataConfig(train="t.jsonl").held_out_fraction == 0.1
    assert DataConfig(train="t.jsonl", eval_fraction=0).held_out_fraction == 0
    assert DataConfig(train="t.jsonl", eval="e.jsonl").held_out_fraction == 0


def test_rows_of_rated_answers_are_counted_by_pair(prepare_rows):
    answers = [{"text": "Because.", "rank": 1}, {"text": "Nobody knows.", "rank": 2}, {"text": "", "rank": 3}]
    rows = [{"prompt": f"Question {i}?", "answers": answers} for i in range(3)]
    prepared = prepare_rows(*rows, {"prompt": "?", "answers": answers[:1]}, source={"pairs": "all"})
    coverage = prepared.coverage
    assert (coverage.rows, coverage.read, coverage.used) == (4, 10, 3)
    assert coverage.rejected == {"empty_completion": 6, "no_preference": 1}
    numbers = [pair.row for pair in prepared.all] + [rejection.row for rejection in prepared.rejections]
    assert sorted(numbers) == list(range(10))
    assert [rejection.location.rpartition("/")[2] for rejection in prepared.rejections[-3:]] == [
        "rows.jsonl:3#2",
        "rows.jsonl:3#3",
        "rows.jsonl:4",
    ]


def test_columns_are_given_their_meaning(prepare_rows, tokenizer):
    """A column that is called prompt and is not said to be it is not it, also where the one that is it is missing."""
    rows = [{"q": f"Question {i}?", "prompt": "not this", "good": "Because.", "rejected": "So."} for i in range(3)]
    columns = {"columns": {"prompt": "q", "chosen": "good"}}
    prepared = prepare_rows(*rows, {"prompt": "no q", "good": "a", "rejected": "b"}, source=columns)
    assert prepared.coverage.used == 3 and prepared.coverage.rejected == {"missing_field": 1}
    assert all("Question" in tokenizer.decode(pair.chosen.prompt_ids) for pair in prepared.all)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (
            {"prompt": "instruction"},
            {"prompt": "a title", "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}]},
        ),
        ({"chosen": "better", "rejected": "worse"}, {"question": "Which?", "better": "a", "worse": "b"}),
        ({"prompt": "query"}, {"question": "not this", "chosen_response": "x", "chosen": "a", "rejected": "b"}),
    ],
)
def test_columns_that_are_not_named_keep_their_names(prepare_rows, tokenizer, columns, row):
    rows = [{"instruction": f"Question {i}?", "query": f"Question {i}?"} | row for i in range(3)]
    rows = [
        {name: value for name, value in each.items() if "question" not in row or name != "instruction"} for each in rows
    ]
    prepared = prepare_rows(*rows, source={"columns": columns})
    assert prepared.coverage.used == 3
    assert "not this" not in tokenizer.decode(prepared.all[0].chosen.prompt_ids)


NUMBERS = {"columns": {"margin": "gap", "pair_weight": "sure"}}


def numbers(pairs):
    return {int(pair.location.rpartition(":")[2]): (pair.margin, pair.weight) for pair in pairs}


def test_numbers_of_rows_are_the_numbers_of_their_pairs_on_either_side(prepare_rows):
    rows = [row | {"gap": i / 4, "sure": i} for i, row in enumerate(answers(20), 1)]
    prepared = prepare_rows(*rows, source=NUMBERS, eval_fraction=0.4)
    train, held_out = (numbers(prepared.splits[split]) for split in ("train", "eval"))
    assert train and held_out
    assert train | held_out == {i: (i / 4, float(i)) for i in range(1, 21)}


def test_cells_of_a_table_may_be_numbers(prepare_rows, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,gap,sure\nWhy?,a,b,-0.5,2\nHow?,a,b,1e-1,\nWho?,a,b,0.5,0\n")
    prepared = prepare_rows(source=NUMBERS | {"path": str(path)})
    assert numbers(prepared.all) == {2: (-0.5, 2.0), 4: (0.5, 0.0)}
    (bad,) = prepared.rejections
    assert (bad.location, bad.reason) == (f"{path}:3", "wrong_type")
    assert bad.detail == "the column sure of columns.pair_weight is '', not a finite number of at least 0"


def test_numbers_move_no_key(prepare_rows):
    rows = [row | {"gap": 0.5, "sure": 3, "margin": 7, "pair_weight": 7} for row in answers(5)]
    named, plain = prepare_rows(*rows, source=NUMBERS), prepare_rows(*rows)
    assert (set(numbers(named.all).values()), set(numbers(plain.all).values())) == ({(0.5, 3.0)}, {(0.0, 1.0)})
    columns = ("pair_key", "prompt_key", "chosen_key", "rejected_key", "prompt_text", "chosen_text", "rejected_text")
    assert named.all.select(*columns).equals(plain.all.select(*columns))


def test_a_rule_for_pairs_of_rows_that_are_pairs_is_refused(prepare_rows):
    with pytest.raises(
        DataError, match=r"pairs: all has no effect on .*rows.jsonl, whose rows are of the form `prompt and"
    ):
        prepare_rows(GOOD, source={"pairs": "all"})


def test_the_form_is_told(prepare_rows, caplog):
    with caplog.at_level(logging.INFO):
        prepare_rows(GOOD)
    assert "rows.jsonl is read as: prompt and replies (prompt, chosen, rejected" in caplog.text


def test_duplicates_contradictions_and_length_are_counted_and_told(prepare_rows, caplog):
    flipped = GOOD | {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}
    prepared = prepare_rows(GOOD, GOOD, GOOD, flipped, *answers(4))
    coverage = prepared.coverage
    assert (coverage.used, coverage.duplicates, coverage.contradictions, coverage.chosen_longer) == (8, 2, 1, 0)
    with caplog.at_level(logging.WARNING):
        check_usable(prepared, max_bad=0.01)
    assert "2 pairs stand in the data more than once" in caplog.text
    assert "1 pairs stand in the data both ways round" in caplog.text and "length alone" not in caplog.text


@pytest.mark.parametrize(("n", "told"), [(19, False), (20, True)])
def test_data_whose_chosen_side_is_nearly_always_longer_are_told_of(prepare_rows, caplog, n, told):
    rows = [{"prompt": f"{i}?", "chosen": "A long answer, that goes on.", "rejected": "No."} for i in range(n)]
    rows[18] |= {"chosen": "No.", "rejected": "A long answer."}
    with caplog.at_level(logging.WARNING):
        check_usable(prepare_rows(*rows), max_bad=0.01)
    assert ("chosen is the longer one in 95 % of the pairs" in caplog.text) is told


def test_truncation_is_told(prepare_rows, caplog):
    with caplog.at_level(logging.WARNING):
        check_usable(prepare_rows(GOOD | {"chosen": "word " * 400}), max_bad=0.01)
    assert "1 pairs are cut to max_length, by " in caplog.text


def test_strict_allows_no_rejected_row(prepare_rows):
    check_usable(prepare_rows(GOOD, *answers(3)), 1.0, strict=True)
    prepared = prepare_rows(GOOD, "torn", *answers(3))
    check_usable(prepared, 0.01)
    with pytest.raises(
        DataError, match=r"1 of 5 rows are rejected \(1 unreadable_row\), and data.strict allows none.*false"
    ):
        check_usable(prepared, 1.0, strict=True)
