"""Each form is told by its rows and read as what it means; what can be read in two ways is refused."""

import random

import pytest

from data.errors import DataError
from data.pairs.reading import Reading
from data.rows.bad_rows import REASONS
from data.rows.forms import FORMS, tell_form
from data.schema import Message, PreferencePair, SourceRow

ASK, SAID, AGAIN = (
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "It scatters light."},
    {"role": "user", "content": "And at dusk?"},
)
GOOD, BAD = {"role": "assistant", "content": "Blue light is lost."}, {"role": "assistant", "content": "No idea."}
SYSTEM = {"role": "system", "content": "Be brief."}
REPLIES = {"chosen": "Blue light is lost.", "rejected": "No idea."}


def user(text):
    return (Message("user", text),)


SHORT = user("And at dusk?")
LONG = tuple(Message(**message) for message in (ASK, SAID, AGAIN))
BRIEF = (Message("system", "Be brief."), *SHORT)
TRANSCRIPT = "\n\nHuman: Why is the sky blue?\n\nAssistant: It scatters light.\n\nHuman: And at dusk?\n\nAssistant:"


def tree(*replies):
    return {"message_tree_id": "t", "prompt": {"text": "And at dusk?", "role": "prompter", "replies": list(replies)}}


def reply(text, rank, *replies):
    return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies)}


RATED = [{"response": "No idea.", "score": 1.5}, {"response": "Blue light is lost.", "score": 4}]

# name of the form, a row of it, the prompt it has
ROWS = [
    ("prompt and replies", {"prompt": "And at dusk?", **REPLIES, "id": 7}, SHORT),
    ("prompt and replies", {"prompt": [ASK, SAID, AGAIN], "chosen": [GOOD], "rejected": [BAD]}, LONG),
    ("prompt and replies", {"prompt": [AGAIN], "chosen": GOOD, "rejected": BAD}, SHORT),
    ("prompt and replies", {"prompt": "And at dusk?", "system": "Be brief.", **REPLIES}, BRIEF),
    ("prompt and replies", {"prompt": [AGAIN], "system": "Be brief.", **REPLIES}, BRIEF),
    ("prompt and replies", {"prompt": TRANSCRIPT, **REPLIES}, LONG),
    (
        "texts that repeat the prompt",
        {"prompt": "And at dusk?", **{side: f"And at dusk? {text}" for side, text in REPLIES.items()}},
        SHORT,
    ),
    (
        "texts that repeat the prompt",
        {"prompt": TRANSCRIPT, **{side: f"{TRANSCRIPT} {text}" for side, text in REPLIES.items()}},
        LONG,
    ),
    ("transcripts", {side: f"{TRANSCRIPT} {text}" for side, text in REPLIES.items()}, LONG),
    ("whole conversations", {"chosen": [ASK, SAID, AGAIN, GOOD], "rejected": [ASK, SAID, AGAIN, BAD]}, LONG),
    ("whole conversations", {"prompt": "And at dusk?", "chosen": [AGAIN, GOOD], "rejected": [AGAIN, BAD]}, SHORT),
    ("whole conversations", {"prompt": [AGAIN], "chosen": [AGAIN, GOOD], "rejected": [AGAIN, BAD]}, SHORT),
    (
        "whole conversations",
        {"prompt": "And at dusk?", "chosen": [SYSTEM, AGAIN, GOOD], "rejected": [SYSTEM, AGAIN, BAD]},
        BRIEF,
    ),
    (
        "whole conversations",
        {"prompt": [AGAIN], "chosen": [SYSTEM, AGAIN, GOOD], "rejected": [SYSTEM, AGAIN, BAD]},
        BRIEF,
    ),
    ("question", {"system": "Be brief.", "question": "And at dusk?", **REPLIES}, BRIEF),
    ("question", {"system": "", "question": "And at dusk?", **REPLIES}, SHORT),
    (
        "conversation and replies",
        {
            "conversations": [
                {"from": "human", "value": "Why is the sky blue?"},
                {"from": "gpt", "value": "It scatters light."},
                {"from": "human", "value": "And at dusk?"},
            ],
            "chosen": {"from": "gpt", "value": "Blue light is lost."},
            "rejected": {"from": "gpt", "value": "No idea."},
        },
        LONG,
    ),
    ("instruction", {"instruction": "And at dusk?", "input": "", "output": "x", **REPLIES}, SHORT),
    (
        "instruction",
        {"instruction": "Answer.", "input": "And at dusk?", **{f"{side}_response": v for side, v in REPLIES.items()}},
        user("Answer.\n\nAnd at dusk?"),
    ),
    ("rated answers", {"instruction": "And at dusk?", "completions": RATED}, SHORT),
    (
        "rated answers",
        {"prompt": TRANSCRIPT, "answers": [{"answer": text, "rank": i} for i, text in enumerate(REPLIES.values(), 1)]},
        LONG,
    ),
    ("rated answers", {"prompt": None, "instruction": "And at dusk?", "completions": RATED}, SHORT),
    ("message tree", tree(reply("No idea.", 1), reply("Blue light is lost.", 0)), SHORT),
]


def read(content, rule="best-worst"):
    row = SourceRow(3, "rows.jsonl:4", content)
    return read_as(tell_form("rows.jsonl", [row] * 3), row, rule)


def read_as(form, row, rule="best-worst"):
    """The pairs of a row, or its rejections."""
    return [outcome for _, outcome in Reading(form.name, {}, rule).pairs(row)]


@pytest.mark.parametrize(("form", "content", "prompt"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_form_is_told_and_read(form, content, prompt):
    assert tell_form("rows.jsonl", [SourceRow(0, "", content)]).name == form
    (pair,) = read(content)
    assert pair.prompt == prompt
    assert pair.chosen == (Message("assistant", "Blue light is lost."),)
    assert pair.rejected == (Message("assistant", "No idea."),)
    assert (pair.row, pair.location) == (3, "rows.jsonl:4")


def test_every_form_has_a_row_here_and_no_row_fits_two():
    assert {name for name, _, _ in ROWS} == {form.name for form in FORMS}
    for name, content, _ in ROWS:
        assert [form.name for form in FORMS if form.fits(content)] == [name]


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        ("\n\nHuman: Why?\n\nAssistant: It is.\n\nHuman: Really?\n\nAssistant: No.", "prompt_mismatch"),
        ("\n\nHuman: Where?\n\nAssistant: Here.", "prompt_mismatch"),
        ("\n\nHuman: Why? Assistant: inside a line", "no_assistant_turn"),
        ("\n\nHuman: Why?\n\nAssistant: ", "empty_completion"),
        (7, "wrong_type"),
        ("Note: do not read this.\n\nHuman: Why?\n\nAssistant: So.", "wrong_type"),
    ],
)
def test_transcripts_whose_sides_do_not_belong_together_are_rejected(rejected, reason):
    good = {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: So."}
    form = tell_form("t", [SourceRow(0, "", good)])
    (bad,) = read_as(form, SourceRow(0, "", good | {"rejected": rejected}))
    assert bad.reason == reason


def test_a_transcript_is_cut_at_the_last_turn_and_never_inside_a_word():
    words = "The Human: Assistant: protocol says so.\n\nHuman: is a marker too."
    (pair,) = read(
        {
            "chosen": f"\n\nHuman: What does NotAssistant: mean?\n\nAssistant: {words}",
            "rejected": "\n\nHuman: What does NotAssistant: mean?\n\nAssistant: Nothing.",
        }
    )
    assert pair.prompt == user("What does NotAssistant: mean?")
    assert pair.chosen == (Message("assistant", words),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": [ASK, BAD]}, "prompt_mismatch"),
        ({"rejected": [AGAIN, BAD, ASK]}, "no_assistant_turn"),
        ({"rejected": "No idea."}, "wrong_type"),
        ({"prompt": "Something else?"}, "prompt_mismatch"),
        ({"prompt": 7}, "prompt_mismatch"),
        ({"system": "Be brief.", "chosen": [SYSTEM, AGAIN, GOOD], "rejected": [SYSTEM, AGAIN, BAD]}, "wrong_type"),
    ],
)
def test_conversations_that_do_not_belong_together_are_rejected(change, reason):
    good = {"chosen": [AGAIN, GOOD], "rejected": [AGAIN, BAD]}
    form = tell_form("c", [SourceRow(0, "", good)])
    (bad,) = read_as(form, SourceRow(0, "", good | change))
    assert bad.reason == reason


def test_rows_of_two_forms_are_refused_with_how_to_say_which():
    two = [SourceRow(0, "", ROWS[0][1])] * 3 + [SourceRow(0, "", ROWS[8][1])] * 2
    with pytest.raises(DataError, match=r"3 as prompt and replies, 2 as transcripts.*files of their own"):
        tell_form("mixed.jsonl", two)


@pytest.mark.parametrize("replies", [REPLIES, {"chosen": [GOOD], "rejected": [BAD]}], ids=["texts", "messages"])
def test_two_columns_that_may_be_the_prompt_are_refused(replies):
    with pytest.raises(DataError, match=r"may hold the prompt are prompt, question.*`columns: \{prompt: question\}`"):
        tell_form("both.jsonl", [SourceRow(0, "", {"prompt": "Why?", "question": "Where?", **replies})])


def test_rows_with_the_usual_columns_and_nothing_in_them_are_rejected_one_by_one():
    row = SourceRow(0, "", {"prompt": "Why?", "chosen": None, "rejected": None})
    assert tell_form("empty.jsonl", [row] * 3).name == "prompt and replies"


def test_rows_of_no_form_are_refused_with_their_columns():
    with pytest.raises(DataError, match=r"columns are: better, query, worse\. Known are: prompt, chosen.*columns: \{"):
        tell_form("odd.jsonl", [SourceRow(0, "", {"query": "Why?", "better": "a", "worse": "b"})])


def test_a_column_with_any_name_can_be_printed():
    with pytest.raises(DataError) as caught:
        tell_form("odd.jsonl", [SourceRow(0, "", {"\ud800" * 1000: "half a character"})])
    assert f"columns are: {'?' * 40}. Known" in str(caught.value)


def test_a_few_rows_that_look_otherwise_do_not_change_the_form():
    coincidence = {"prompt": "Yes", "chosen": "Yes, it is.", "rejected": "Yes and no."}
    rows = [SourceRow(0, "", ROWS[0][1])] * 19 + [SourceRow(0, "", coincidence)]
    form = tell_form("rows.jsonl", rows)
    (pair,) = read_as(form, rows[-1])
    assert pair.chosen == (Message("assistant", "Yes, it is."),)


ANSWERS = [{"text": text, "rank": rank} for text, rank in (("c", 2), ("a", 0), ("b", 1), ("b too", 1))]


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [
        ("best-worst", ["ac"]),
        ("adjacent", ["ab", "b tooc"]),
        ("all", ["ab", "ab too", "ac", "bc", "b tooc"]),
    ],
)
def test_a_rule_says_which_pairs_of_ranked_answers_there_are(rule, pairs):
    found = read({"prompt": "Which?", "answers": ANSWERS}, rule)
    assert [pair.chosen[0].content + pair.rejected[0].content for pair in found] == pairs
    assert [pair.location for pair in found] == (
        ["rows.jsonl:4"] if len(pairs) == 1 else [f"rows.jsonl:4#{i}" for i in range(1, len(pairs) + 1)]
    )


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([{"text": "a", "score": 1}, {"text": "b", "score": 1.0}], "no_preference"),
        ([{"text": "a", "score": 1}], "no_preference"),
        ([{"text": "a", "score": 1}, {"text": "b"}], "missing_field"),
        ([{"text": "a", "score": 1}, {"score": 2}], "missing_field"),
        ([{"text": "a", "score": 1}, {"text": "b", "score": float("nan")}], "missing_field"),
        ([{"text": "a", "score": 1}, {"text": "b", "rank": True}], "missing_field"),
        ([{"text": "a", "score": 1}, {"text": "b", "score": 10**400}], "missing_field"),
        ([{"text": "a", "rank": -(10**400)}, {"text": "b", "rank": 1}], "missing_field"),
    ],
)
@pytest.mark.parametrize("rule", ["best-worst", "adjacent", "all"])
def test_answers_of_which_none_is_better_make_no_pair(answers, reason, rule):
    (bad,) = read({"prompt": "Which?", "answers": answers}, rule)
    assert bad.reason == reason


def test_a_tree_gives_pairs_wherever_replies_are_ranked():
    follow_up = {
        "text": "Why?",
        "role": "prompter",
        "replies": [reply("Dust.", 1), reply("Physics.", 0), {"text": "?", "role": "assistant", "rank": None}],
    }
    tied = {"text": "Sure?", "role": "prompter", "replies": [reply("Yes.", 0), reply("No.", 0)]}
    first, bad, second = read(tree(reply("Red.", 0, tied, follow_up), reply("Blue.", 1)), "all")
    assert (first.prompt, first.chosen[0].content) == (SHORT, "Red.")
    assert second.prompt == (*SHORT, Message("assistant", "Red."), Message("user", "Why?"))
    assert (second.chosen[0].content, second.rejected[0].content) == ("Physics.", "Dust.")
    assert bad.reason == "no_preference"
    (nothing,) = read(tree(reply("Red.", 0)))
    assert nothing.reason == "no_preference"


def test_no_row_is_ever_lost_whatever_stands_in_it():
    """Garbage in any column of any form gives a pair or a reason, never another exception."""
    chance = random.Random(5)
    junk = [
        None,
        True,
        7,
        "",
        "\n\nHuman: ",
        {},
        [],
        [{}],
        [[]],
        [None],
        {"role": 1},
        [{"from": [], "value": {}}],
        "x" * 50,
    ]
    for _ in range(3000):
        name, content, _ = chance.choice(ROWS)
        own = next(form for form in FORMS if form.name == name)
        form = chance.choice([own, own, *FORMS])
        broken = dict(content)
        for column in chance.sample(sorted(broken), k=min(len(broken), chance.choice([1, 2]))):
            if chance.random() < 0.3:
                del broken[column]
            else:
                broken[column] = chance.choice(junk)
        for each in FORMS:
            each.fits(broken)
        found = read_as(form, SourceRow(0, "", broken), chance.choice(["best-worst", "adjacent", "all"]))
        assert found
        for outcome in found:
            assert isinstance(outcome, PreferencePair) or outcome.reason in REASONS


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
OTHER_CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "calendar", "arguments": {}}}]}
RESULT = {"role": "tool", "content": "12:00"}


def roles(messages):
    return [message.role for message in messages]


@pytest.mark.parametrize(
    ("chosen", "rejected", "n_prompt", "n_chosen", "n_rejected"),
    [
        ([CALL, RESULT, GOOD], [CALL, RESULT, BAD], 3, 1, 1),
        ([CALL, RESULT, GOOD], [OTHER_CALL, RESULT, BAD], 1, 3, 3),
        ([CALL, RESULT, GOOD], [BAD], 1, 3, 1),
        ([CALL, RESULT, CALL, RESULT, GOOD], [CALL, RESULT, BAD], 3, 3, 1),
        ([CALL, RESULT | {"content": "13:00"}, GOOD], [CALL, RESULT, BAD], 1, 3, 3),
    ],
)
def test_conversations_that_part_over_tools_are_compared_from_there_on(
    chosen, rejected, n_prompt, n_chosen, n_rejected
):
    """The prompt ends before an assistant's turn, so that the whole turn is what is compared."""
    (pair,) = read({"chosen": [AGAIN, *chosen], "rejected": [AGAIN, *rejected]})
    assert (len(pair.prompt), len(pair.chosen), len(pair.rejected)) == (n_prompt, n_chosen, n_rejected)
    assert roles(pair.prompt)[-1] in ("user", "tool")
    assert roles(pair.chosen)[0] == roles(pair.rejected)[0] == "assistant"


def test_conversations_that_part_before_a_users_turn_do_not_belong_together():
    (bad,) = read({"chosen": [AGAIN, CALL, RESULT, GOOD], "rejected": [AGAIN, BAD, AGAIN, BAD]})
    assert bad.reason == "prompt_mismatch"


@pytest.mark.parametrize(
    ("column", "kind"),
    [("image", "images"), ("images", "images"), ("audio", "sound"), ("video", "videos"), ("videos", "videos")],
)
@pytest.mark.parametrize("value", ["a.png", ["a.png"], {"bytes": {"bytes": 9}, "path": None}, [None, {"path": "a"}]])
def test_rows_of_more_than_text_are_refused(column, kind, value):
    rows = [SourceRow(i, "", {"prompt": "Why?", **REPLIES, column: None}) for i in range(3)]
    assert tell_form("seen.jsonl", rows).name == "prompt and replies"
    with pytest.raises(DataError) as caught:
        tell_form("seen.jsonl", [*rows, SourceRow(3, "", {"prompt": "Why?", **REPLIES, column: value})])
    assert str(caught.value) == (
        f"The rows of seen.jsonl hold {kind} (column {column}); only text models are aligned here. Take data that can "
        "be judged by their text alone, and remove or empty that column."
    )


@pytest.mark.parametrize("value", [None, "", [], {}, [None], {"bytes": None, "path": None}, [{"path": ""}]])
def test_an_image_column_with_nothing_in_it_does_no_harm(value):
    row = SourceRow(0, "", {"prompt": "Why?", **REPLIES, "images": value})
    assert tell_form("text.jsonl", [row]).name == "prompt and replies"
