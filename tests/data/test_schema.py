"""What a pair says, as JSON: the digests of days are compared by it."""

import json

import pytest

from data.schema import Message, PreferencePair

TEXTS = ["Why?", "", 'a "quote" and a \\', "a\ttab\n\x1f\x7f", "é\u2028\U0001f600"]
CALL = {"tool_calls": [{"function": {"name": "clock", "arguments": {"z": 1, "a": None}}}], "name": "é"}


@pytest.mark.parametrize("arguments", [{}, {"tools": [{"name": "clock"}], "enable_thinking": False}])
@pytest.mark.parametrize("text", TEXTS)
def test_the_texts_of_a_pair_are_its_messages_with_sorted_keys(text, arguments):
    prompt = (Message("system", text), Message("user", "And?"))
    chosen, rejected = (Message("assistant", text, CALL), Message("tool", text), Message("assistant", "!")), ()
    pair = PreferencePair(0, "rows.jsonl:1", prompt, chosen, rejected, arguments)
    sides = [[message.document() for message in side] for side in (prompt, chosen, rejected)]
    sides[0].append(arguments)
    assert pair.texts() == tuple(json.dumps(side, sort_keys=True) for side in sides)
