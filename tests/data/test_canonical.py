"""Every row has one normal form or one reason why it has none."""

import pytest

from data.canonical import BadRow, canonical_pair
from data.schema import Message, Rejection, SourceRow

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "Nobody knows."}


def source(content, problem=None):
    return SourceRow(7, "prefs.jsonl:8", content, problem)


@pytest.mark.parametrize(
    ("reason", "content", "detail"),
    [
        ("wrong_type", None, "the row is a null, not an object"),
        ("wrong_type", [GOOD], "the row is a list, not an object"),
        ("wrong_type", "Why?", "the row is a str, not an object"),
        ("missing_field", {}, "no field prompt, chosen, rejected; the fields are: none"),
        (
            "missing_field",
            {"question": "Why?", "chosen": "Because."},
            "no field prompt, rejected; the fields are: chosen, question",
        ),
        ("wrong_type", GOOD | {"prompt": None}, "prompt is a null, neither text nor a list of messages"),
        ("wrong_type", GOOD | {"chosen": 3}, "chosen is a int, neither text nor a list of messages"),
        ("wrong_type", GOOD | {"rejected": ANSWER}, "rejected is a dict, neither text nor a list of messages"),
        ("wrong_type", GOOD | {"prompt": ["Why?"]}, "prompt[0] is a str, not a message with role and content"),
        ("wrong_type", GOOD | {"prompt": [USER, None]}, "prompt[1] is a null, not a message with role and content"),
        (
            "wrong_type",
            GOOD | {"chosen": [{"role": "assistant"}]},
            "chosen[0] has role of type str and content of type null",
        ),
        (
            "wrong_type",
            GOOD | {"prompt": [USER | {"role": 1}]},
            "prompt[0] has role of type int and content of type str",
        ),
        ("wrong_type", GOOD | {"prompt": "Why\0"}, "prompt holds a NUL character"),
        ("wrong_type", GOOD | {"prompt": "half \ud83d"}, "prompt holds a lone surrogate, half of a character"),
        (
            "wrong_type",
            GOOD | {"rejected": [ANSWER | {"content": "\udc00"}]},
            "rejected[0] holds a lone surrogate, half of a character",
        ),
        (
            "unknown_role",
            GOOD | {"prompt": [USER | {"role": "human"}]},
            "prompt[0] has the role 'human'; known: system, user, assistant, tool",
        ),
        ("empty_prompt", GOOD | {"prompt": " \n\t"}, "the prompt has no text"),
        ("empty_prompt", GOOD | {"prompt": []}, "the prompt has no text"),
        ("empty_prompt", GOOD | {"prompt": [USER | {"content": ""}]}, "the prompt has no text"),
        (
            "prompt_ends_with_assistant",
            GOOD | {"prompt": [USER, ANSWER]},
            "the last message of the prompt is the assistant's",
        ),
        ("empty_completion", GOOD | {"chosen": ""}, "chosen is empty"),
        ("empty_completion", GOOD | {"rejected": [ANSWER | {"content": "\u00a0\n"}]}, "rejected is empty"),
        ("not_one_assistant_turn", GOOD | {"chosen": []}, "chosen is nothing; one assistant message is expected"),
        ("not_one_assistant_turn", GOOD | {"rejected": [USER]}, "rejected is user; one assistant message is expected"),
        (
            "not_one_assistant_turn",
            GOOD | {"chosen": [USER, ANSWER]},
            "chosen is user, assistant; one assistant message is expected",
        ),
        ("identical_completions", GOOD | {"rejected": "Because."}, "chosen and rejected are the same"),
        ("identical_completions", GOOD | {"rejected": [ANSWER]}, "chosen and rejected are the same"),
    ],
)
def test_bad_row_has_its_reason_and_its_place(reason, content, detail):
    with pytest.raises(BadRow) as caught:
        canonical_pair(source(content))
    assert caught.value.rejection(7, "prefs.jsonl:8") == Rejection(7, "prefs.jsonl:8", reason, detail)


def test_line_that_was_not_read_keeps_the_readers_words():
    with pytest.raises(BadRow, match="unreadable_row: not a line of JSON"):
        canonical_pair(source(None, problem="not a line of JSON (cut)"))


@pytest.mark.parametrize("prompt", ["Why?", [USER]], ids=["text", "messages"])
@pytest.mark.parametrize("chosen", ["Because.", [ANSWER]], ids=["text", "messages"])
def test_text_and_messages_have_one_normal_form(prompt, chosen):
    pair = canonical_pair(source({"prompt": prompt, "chosen": chosen, "rejected": "Nobody knows."}))
    assert (pair.row, pair.location) == (7, "prefs.jsonl:8")
    assert pair.prompt == (Message("user", "Why?"),)
    assert pair.chosen == (Message("assistant", "Because."),)
    assert pair.rejected == (Message("assistant", "Nobody knows."),)


def test_every_known_role_may_stand_in_a_prompt():
    roles = ["system", "user", "assistant", "tool"]
    pair = canonical_pair(source(GOOD | {"prompt": [{"role": role, "content": role} for role in roles]}))
    assert [message.role for message in pair.prompt] == roles


def test_text_is_not_touched():
    text = "  Why?\r\n\x01 e\u0301 \U0001f600 "
    pair = canonical_pair(source({"prompt": text, "chosen": text, "rejected": text + " "}))
    assert {message.content for message in (*pair.prompt, *pair.chosen)} == {text}


def test_other_fields_do_not_matter():
    assert canonical_pair(source(GOOD | {"id": 1, "score": None})) == canonical_pair(source(GOOD))
