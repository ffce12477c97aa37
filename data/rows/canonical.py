"""Brings a row of `prompt`, `chosen` and `rejected` into normal form, or says why it cannot be used.

Each of the three is text or a list of messages `{role, content}`; forms.py makes these of whatever a source has.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from data.rows.bad_rows import BadRow, Reason
from data.schema import Message, PreferencePair, SourceRow

_FIELDS = ("prompt", "chosen", "rejected")
ARGUMENTS = ("tools", "chat_template_kwargs")
"""Columns that a chat template is given beside the messages."""
NUMBERS = {"margin": "margin", "pair_weight": "weight"}
"""Columns of numbers, read only where a source names them, and the field of a pair that each fills."""
_ROLES = ("system", "user", "assistant", "tool")
_MORE = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_TEMPLATES_OWN = {"messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message"}


def canonical_pair(source: SourceRow, group_by: str | None = None, columns: Mapping[str, str] = {}) -> PreferencePair:
    """The row in normal form; the column `group_by` is what the held-out split is cut by.

    `columns` tells which of NUMBERS are to be read, and what the source calls them.

    Raises:
        BadRow: with the reason it is counted under.
    """
    if source.problem is not None:
        raise BadRow("unreadable_row", source.problem)
    if not isinstance(source.content, dict):
        raise BadRow("wrong_type", f"the row is a {_kind(source.content)}, not an object")
    missing = [name for name in _FIELDS if name not in source.content]
    if missing:
        present = ", ".join(sorted(str(key) for key in source.content)) or "none"
        raise BadRow("missing_field", f"no field {', '.join(missing)}; the fields are: {present}")
    prompt = _messages(source.content["prompt"], "prompt", text_role="user")
    chosen = _messages(source.content["chosen"], "chosen", text_role="assistant")
    rejected = _messages(source.content["rejected"], "rejected", text_role="assistant")
    _check_prompt(prompt)
    _check_completion(chosen, "chosen")
    _check_completion(rejected, "rejected")
    if chosen == rejected:
        raise BadRow("identical_completions", "chosen and rejected are the same")
    arguments = _arguments(source.content)
    group = None if group_by is None else _group(source.content, group_by)
    own = {NUMBERS[name]: _number(source.content, name, column) for name, column in columns.items() if name in NUMBERS}
    return PreferencePair(source.number, source.location, prompt, chosen, rejected, arguments, group, **own)


def _messages(value: object, name: str, text_role: str) -> tuple[Message, ...]:
    """A text as one message of `text_role`; a list of messages as it is."""
    if isinstance(value, str):
        return (Message(text_role, _clean(value, name)),)
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"{name} is a {_kind(value)}, neither text nor a list of messages")
    return tuple(_message(item, f"{name}[{i}]") for i, item in enumerate(value))


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow("wrong_type", f"{name} is a {_kind(item)}, not a message with role and content")
    more = {key: item[key] for key in _MORE if item.get(key) not in (None, [], "")}
    role, content = item.get("role"), _content(item.get("content"), name)
    if content is None and "tool_calls" in more:
        content = ""  # a message that only calls tools says nothing
    if not isinstance(role, str) or content is None:
        kinds = _kind(role), _kind(item.get("content"))
        raise BadRow("wrong_type", f"{name} has role of type {kinds[0]} and content of type {kinds[1]}")
    if role not in _ROLES:
        raise BadRow("unknown_role", f"{name} has the role {role!r}; known: {', '.join(_ROLES)}")
    return Message(role, _clean(content, name), _clean_all(more, name))


def _content(content: object, name: str) -> str | None:
    """A text, or the texts of a list of parts {type: text, text}; None for anything else."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        kinds = sorted({str(part.get("type")) for part in content if isinstance(part, dict)} - {"text"})
        raise BadRow("wrong_type", f"{name} has parts that are no text ({', '.join(kinds) or 'of no type'})")
    return "".join(map(str, texts))


def _clean(text: str, name: str) -> str:
    """The text itself; a lone surrogate (half of a character) cannot be encoded, and NUL ends a text elsewhere."""
    if ("\0" in text or not text.isascii()) and (found := _NO_TEXT.search(text)):
        what = "NUL character" if found[0] == "\0" else "lone surrogate, half of a character"
        raise BadRow("wrong_type", f"{name} holds a {what}")
    return text


def _clean_all(value: Any, name: str) -> Any:
    """The same of all texts in a document."""
    if isinstance(value, str):
        return _clean(value, name)
    if isinstance(value, list):
        return [_clean_all(item, name) for item in value]
    if isinstance(value, dict):
        return {_clean(str(key), name): _clean_all(item, name) for key, item in value.items()}
    return value


def _check_prompt(prompt: tuple[Message, ...]) -> None:
    if not prompt or not any(message.content.strip() for message in prompt):
        raise BadRow("empty_prompt", "the prompt has no text")
    if prompt[-1].role == "assistant":
        raise BadRow("prompt_ends_with_assistant", "the last message of the prompt is the assistant's")


def _check_completion(completion: tuple[Message, ...], name: str) -> None:
    """From the assistant to the assistant: a response, with what tools answered to it in between."""
    roles = [message.role for message in completion]
    if not roles or roles[0] != "assistant" or roles[-1] != "assistant" or "system" in roles:
        found = ", ".join(roles) or "nothing"
        raise BadRow("no_assistant_turn", f"{name} is {found}; it has to begin and end with an assistant's message")
    if not all(m.content.strip() or "tool_calls" in m.more for m in completion if m.role == "assistant"):
        raise BadRow("empty_completion", f"{name} is empty")


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the row gives to the chat template; both columns may be JSON in a text, as they often are in Parquet."""
    if content.get("tools") is None and content.get("chat_template_kwargs") is None:
        return {}
    tools, own = (_document(content.get(name), name) for name in ARGUMENTS)
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise BadRow("wrong_type", "tools is no list of objects")
    if own is not None and not isinstance(own, dict):
        raise BadRow("wrong_type", f"chat_template_kwargs is a {_kind(own)}, not an object")
    if taken := sorted(_TEMPLATES_OWN & set(own or {})):
        raise BadRow("wrong_type", f"chat_template_kwargs sets {', '.join(taken)}, which the row itself says")
    given = {name: value for name, value in (own or {}).items() if value is not None}
    return ({"tools": tools} if tools else {}) | given


def _document(value: Any, name: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError as error:
            raise BadRow("wrong_type", f"{name} is a text that is no JSON ({error})") from error
    return _clean_all(value, name)


def _group(content: Mapping[str, Any], column: str) -> str:
    value = content.get(column)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise BadRow("missing_field", f"the column {column} of data.group_by is a {_kind(value)}, not text or a number")
    return str(value)


def _number(content: Mapping[str, Any], name: str, column: str) -> float:
    """The number that a row gives to its pairs; in CSV it is a text."""
    value = content.get(name)
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # a text of no number, an integer beyond any float
        number = math.nan
    least = 0.0 if name == "pair_weight" else -math.inf
    if math.isfinite(number) and number >= least:
        return number
    found = reprlib.repr(value) if value is not None else "null" if name in content else "absent"
    wanted = "a finite number" if least < 0 else "a finite number of at least 0"
    reason: Reason = "missing_field" if value is None else "wrong_type"
    raise BadRow(reason, f"the column {column} of columns.{name} is {found}, not {wanted}")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
