"""Every row has one normal form or one reason why it has none."""

import json
import math

import pytest

from data.rows.bad_rows import BadRow
from data.rows.canonical import canonical_pair
from data.schema import Message, Rejection, SourceRow

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
RESULT = {"role": "tool", "name": "clock", "content": "12:00"}
ENDS = "it has to begin and end with an assistant's message"
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
        ("no_assistant_turn", GOOD | {"chosen": []}, f"chosen is nothing; {ENDS}"),
        ("no_assistant_turn", GOOD | {"rejected": [USER]}, f"rejected is user; {ENDS}"),
        ("no_assistant_turn", GOOD | {"chosen": [USER, ANSWER]}, f"chosen is user, assistant; {ENDS}"),
        ("no_assistant_turn", GOOD | {"chosen": [ANSWER, USER]}, f"chosen is assistant, user; {ENDS}"),
        (
            "no_assistant_turn",
            GOOD | {"chosen": [ANSWER, SYSTEM, ANSWER]},
            f"chosen is assistant, system, assistant; {ENDS}",
        ),
        ("empty_completion", GOOD | {"chosen": [CALL, RESULT, ANSWER | {"content": " "}]}, "chosen is empty"),
        (
            "wrong_type",
            GOOD | {"tools": "["},
            "tools is a text that is no JSON (Expecting value: line 1 column 2 (char 1))",
        ),
        ("wrong_type", GOOD | {"tools": {"name": "clock"}}, "tools is no list of objects"),
        ("wrong_type", GOOD | {"tools": ["clock"]}, "tools is no list of objects"),
        ("wrong_type", GOOD | {"tools": [{"name": "\ud800"}]}, "tools holds a lone surrogate, half of a character"),
        ("wrong_type", GOOD | {"chat_template_kwargs": [1]}, "chat_template_kwargs is a list, not an object"),
        (
            "wrong_type",
            GOOD | {"chat_template_kwargs": {"messages": [], "tools": []}},
            "chat_template_kwargs sets messages, tools, which the row itself says",
        ),
        (
            "wrong_type",
            GOOD | {"prompt": [USER | {"content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]},
            "prompt[0] has parts that are no text (image)",
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


def test_a_response_may_call_tools_and_reason():
    thoughtful = ANSWER | {"reasoning_content": "Let me see.", "weight": 1, "tool_calls": None}
    pair = canonical_pair(source(GOOD | {"chosen": [CALL, RESULT, thoughtful]}))
    assert pair.chosen == (
        Message("assistant", "", {"tool_calls": CALL["tool_calls"]}),
        Message("tool", "12:00", {"name": "clock"}),
        Message("assistant", "Because.", {"reasoning_content": "Let me see."}),
    )
    assert pair.chosen[0].document() == CALL | {"content": ""}


def test_parts_of_text_are_a_text():
    parts = [{"type": "text", "text": "Be"}, {"text": "cause."}]
    assert canonical_pair(source(GOOD | {"chosen": [ANSWER | {"content": parts}]})) == canonical_pair(source(GOOD))


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_arguments_go_to_the_template(as_text):
    tools, more = [{"name": "clock", "parameters": None}], {"enable_thinking": False, "unset": None}
    columns = {
        "tools": json.dumps(tools) if as_text else tools,
        "chat_template_kwargs": json.dumps(more) if as_text else more,
    }
    assert canonical_pair(source(GOOD | columns)).arguments == {"tools": tools, "enable_thinking": False}
    assert canonical_pair(source(GOOD | {"tools": "" if as_text else None, "chat_template_kwargs": {}})).arguments == {}


@pytest.mark.parametrize(("value", "group"), [("tree", "tree"), (7, "7"), ("", "")])
def test_a_column_says_what_is_held_out_together(value, group):
    assert canonical_pair(source(GOOD | {"tree_id": value}), "tree_id").group == group
    assert canonical_pair(source(GOOD | {"tree_id": value})).group == "Why?"


@pytest.mark.parametrize("value", [None, True, 0.5, ["tree"]])
def test_a_row_without_its_group_is_refused(value):
    with pytest.raises(
        BadRow, match=r"missing_field: the column tree_id of data.group_by is a \w+, not text or a number"
    ):
        canonical_pair(source(GOOD | {"tree_id": value}), "tree_id")


NAMED = {"margin": "score gap", "pair_weight": "sure"}


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), (0.25, 0.25), ("0.25", 0.25), (" 3 ", 3.0), ("1e-3", 0.001), (0, 0.0), ("0", 0.0), (2**60, 2.0**60)],
)
def test_a_named_number_is_the_pairs_own(value, number):
    """Either column for itself; the other keeps what a pair has without it."""
    margin, weight = (canonical_pair(source(GOOD | {name: value}), None, {name: NAMED[name]}) for name in NAMED)
    assert (margin.margin, margin.weight, weight.margin, weight.weight) == (number, 1.0, 0.0, number)
    assert {type(each) for each in (margin.margin, weight.weight)} == {float}


@pytest.mark.parametrize(
    ("value", "reason", "found"),
    [
        (None, "missing_field", "null"),
        (True, "wrong_type", "True"),
        ("", "wrong_type", "''"),
        ("much", "wrong_type", "'much'"),
        ("0,5", "wrong_type", "'0,5'"),
        ("\ud800", "wrong_type", r"'\ud800'"),
        ("x" * 99, "wrong_type", f"'{'x' * 12}...{'x' * 13}'"),
        ("nan", "wrong_type", "'nan'"),
        ("-Infinity", "wrong_type", "'-Infinity'"),
        (math.nan, "wrong_type", "nan"),
        (math.inf, "wrong_type", "inf"),
        (10**400, "wrong_type", f"1{'0' * 17}...{'0' * 19}"),
        ("1e999", "wrong_type", "'1e999'"),
        ([0.5], "wrong_type", "[0.5]"),
        ({"gap": 0.5}, "wrong_type", "{'gap': 0.5}"),
    ],
)
@pytest.mark.parametrize(
    ("name", "wanted"), [("margin", "a finite number"), ("pair_weight", "a finite number of at least 0")]
)
def test_a_named_column_without_a_number_refuses_its_row(value, reason, found, name, wanted):
    with pytest.raises(BadRow) as caught:
        canonical_pair(source(GOOD | {name: value}), None, {name: NAMED[name]})
    detail = f"the column {NAMED[name]} of columns.{name} is {found}, not {wanted}"
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_column_that_is_absent_refuses_its_row(name):
    with pytest.raises(
        BadRow, match=rf"missing_field: the column {NAMED[name]} of columns.{name} is absent, not a fin"
    ):
        canonical_pair(source(GOOD), None, {name: NAMED[name]})


@pytest.mark.parametrize("value", [-1, -0.001, "-2"])
def test_a_margin_may_be_below_nothing_and_a_weight_may_not(value):
    row = source(GOOD | {"margin": value, "pair_weight": value})
    assert canonical_pair(row, None, {"margin": "gap"}).margin == float(value)
    with pytest.raises(BadRow) as caught:
        canonical_pair(row, None, {"pair_weight": "sure"})
    detail = f"the column sure of columns.pair_weight is {value!r}, not a finite number of at least 0"
    assert (caught.value.reason, caught.value.detail) == ("wrong_type", detail)


@pytest.mark.parametrize("columns", [{}, {"prompt": "query"}])
def test_numbers_that_are_not_named_are_not_read(columns):
    pair = canonical_pair(source(GOOD | {"margin": 2, "pair_weight": "never"}), None, columns)
    assert pair == canonical_pair(source(GOOD))
    assert (pair.margin, pair.weight) == (0.0, 1.0)


def test_numbers_are_no_part_of_what_a_pair_says():
    pair = canonical_pair(source(GOOD | {"margin": 2, "pair_weight": 3}), None, NAMED)
    assert pair != canonical_pair(source(GOOD)) and pair.margin == 2.0
    assert pair.texts() == canonical_pair(source(GOOD)).texts()
