"""Conversations in the ways people write them down, as lists of messages {role, content}.

What is of no such way is handed on as it is: the judge of rows (canonical.py) says what is wrong with it.
"""

import re
from itertools import count
from typing import Any

from data.rows.bad_rows import BadRow

Chat = list[Any]

_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "prompter": "user",
    "function_call": "assistant",
    "observation": "tool",
}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_LAST_TURN = "\n\nAssistant:"


def as_chat(value: Any) -> Chat | None:
    """Messages as {role, content}, from these or from {from, value}; None for what is no list of objects."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return None
    return [_message(item) for item in value]


def is_whole(value: Any) -> bool:
    """Whether this is a conversation from its beginning: messages of which the first is not the assistant's."""
    chat = as_chat(value)
    return chat is not None and len(chat) > 1 and chat[0].get("role") != "assistant"


def is_transcript(value: Any) -> bool:
    r"""Whether this is a text of turns: "\n\nHuman: ... \n\nAssistant: ..."."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "Assistant:" in value


def split_conversations(chosen: Chat, rejected: Chat) -> tuple[Chat, Chat, Chat]:
    """Two whole conversations as their prompt and either response.

    The response is the assistant's last turn; where the two part earlier, over tools, all that the assistant and the
    tools say from there on.
    """
    for name, chat in (("chosen", chosen), ("rejected", rejected)):
        if chat[-1].get("role") != "assistant":
            raise BadRow("no_assistant_turn", f"{name} does not end with an assistant's turn")
    if same_words(chosen[:-1], rejected[:-1]):
        return chosen[:-1], chosen[-1:], rejected[-1:]
    shared = next(i for i in count() if not same_words(chosen[i : i + 1], rejected[i : i + 1]))
    while shared and chosen[shared - 1].get("role") == "assistant":
        shared -= 1
    if any(message.get("role") not in ("assistant", "tool") for message in (*chosen[shared:], *rejected[shared:])):
        raise BadRow("prompt_mismatch", "chosen and rejected have other turns before the last one")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def split_transcript(text: str, name: str) -> tuple[Chat, str]:
    """A text of turns as the messages before the assistant's last turn, and the text of that turn.

    A response may hold "Human:"; only a marker behind an empty line begins a turn.
    """
    before, marker, response = ("\n\n" + text.lstrip()).rpartition(_LAST_TURN)
    if not marker:
        raise BadRow("no_assistant_turn", f"{name} has no turn that begins with 'Assistant:' behind an empty line")
    return transcript_messages(before), response.strip()


def transcript_messages(text: str) -> Chat:
    """The turns of a text, in order."""
    pieces = _TURN.split("\n\n" + text.strip())
    speakers, texts = pieces[1::2], pieces[2::2]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": what.strip()} for who, what in zip(speakers, texts, strict=True)]


def prompt_messages(value: Any) -> Any:
    """A prompt that ends in an open turn of the assistant's ("\\n\\nAssistant:") as messages; any other as it is."""
    if is_transcript(value) and value.rstrip().endswith(_LAST_TURN):
        return transcript_messages(value.rstrip().removesuffix(_LAST_TURN))
    chat = as_chat(value)
    return value if chat is None else chat


def same_words(one: Any, other: Any) -> bool:
    """Whether two texts or two conversations say the same, white space at their ends aside."""
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    one, other = as_chat(one), as_chat(other)
    if one is None or other is None or len(one) != len(other):
        return False
    return all(_same_message(a, b) for a, b in zip(one, other, strict=True))


def _same_message(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.get("role") != other.get("role") or (one.get("tool_calls") or None) != (other.get("tool_calls") or None):
        return False
    said, said_there = one.get("content"), other.get("content")
    if isinstance(said, str) and isinstance(said_there, str):
        return said.strip() == said_there.strip()
    return bool(said == said_there)


def _message(item: dict[str, Any]) -> dict[str, Any]:
    if "role" in item or "from" not in item:
        return item
    speaker = item["from"]
    role = _SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {"role": role, "content": item.get("value")}
