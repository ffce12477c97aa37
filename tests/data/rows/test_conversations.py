"""Which values are conversations, and when two say the same."""

import pytest

from data.rows.conversations import as_chat, is_whole, prompt_messages, same_words

USER, TOOL = {"role": "user", "content": "Why?"}, {"role": "tool", "content": "42"}
ASSISTANT = {"role": "assistant", "content": "Because."}


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ([USER, ASSISTANT], True),
        ([{"role": "system", "content": "Be brief."}, USER, ASSISTANT], True),
        ([ASSISTANT, TOOL, ASSISTANT], False),
        ([USER], False),
        ([ASSISTANT], False),
        ([], False),
        ("Why?", False),
        ([USER, "Because."], False),
    ],
)
def test_a_whole_conversation_begins_before_the_assistant(value, whole):
    assert is_whole(value) is whole


def test_speakers_become_roles_and_strangers_stay_what_they_are():
    speakers = ["human", "gpt", "system", "observation", "function_call", "prompter", "stranger", 7]
    chat = as_chat([{"from": speaker, "value": "text"} for speaker in speakers])
    roles = ["user", "assistant", "system", "tool", "assistant", "user", "stranger", 7]
    assert chat == [{"role": role, "content": "text"} for role in roles]
    assert as_chat([USER]) == [USER] and as_chat(USER) is None


def test_only_a_transcript_that_ends_in_an_open_turn_is_a_prompt_of_messages():
    closed = "\n\nHuman: Why?\n\nAssistant: Because."
    assert prompt_messages(closed) == closed
    assert prompt_messages(closed + "\n\nHuman: So?\n\nAssistant:") == [
        USER,
        ASSISTANT,
        {"role": "user", "content": "So?"},
    ]


def test_white_space_at_the_ends_makes_no_difference_and_anything_else_does():
    assert same_words("Why?\n", " Why?") and same_words([USER], [{"role": "user", "content": "Why? "}])
    assert not same_words("Why?", "why?")
    assert not same_words([USER], [{**USER, "role": "tool"}])
    assert not same_words([USER], [USER, ASSISTANT])
    assert not same_words([USER], "Why?") and not same_words(None, None)
