"""Which rows are of which form, and what of them is prompt, chosen and rejected; forms.py has the table.

`fits_*` say whether a row is of a form and never raise; `read_*` may raise BadRow for a row, or yield it for one of its
pairs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data.rows.bad_rows import BadRow
from data.rows.conversations import (
    as_chat,
    is_transcript,
    is_whole,
    prompt_messages,
    same_words,
    split_conversations,
    split_transcript,
)
from data.rows.rankings import Rule, answers_of, preferences, ranked_replies

Row = Mapping[str, Any]
Fields = dict[str, Any]

PROMPTS = ("prompt", "question", "instruction", "conversations")


def _column(row: Row, *names: str) -> Any:
    """The value of the first of these columns that is there.

    Raises:
        BadRow: none is.
    """
    for name in names:
        if name in row:
            return row[name]
    present = ", ".join(sorted(str(key) for key in row)) or "none"
    raise BadRow("missing_field", f"no field {' or '.join(names)}; the fields are: {present}")


def _reply(value: Any) -> Any:
    """A response: one object of a conversation counts as a list of one."""
    return as_chat([value] if isinstance(value, dict) else value) or value


def _is_reply(value: Any) -> bool:
    return isinstance(value, str | list | dict) and not is_whole(value)


def _sides(row: Row) -> tuple[Any, Any]:
    return _column(row, "chosen", "chosen_response"), _column(row, "rejected", "rejected_response")


def _with_system(row: Row, prompt: Any) -> Any:
    """The prompt behind the system message of its row, if there is one."""
    system = row.get("system", row.get("system_prompt"))
    if not isinstance(system, str) or not system.strip():
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list) or any(isinstance(m, dict) and m.get("role") == "system" for m in messages):
        raise BadRow("wrong_type", "there is a system message in its own column and one in the prompt")
    return [{"role": "system", "content": system}, *messages]


def fits_plain(row: Row) -> bool:
    """A prompt of its own, and replies."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if row.get("prompt") is None or not (_is_reply(chosen) and _is_reply(rejected)):
        return False
    return not _repeats(row["prompt"], chosen, rejected)


def read_plain(row: Row, _: Rule) -> Iterator[Fields]:
    """As it is; an open transcript as messages."""
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in row]
    if missing:
        _column(row, ", ".join(missing))
    prompt = _with_system(row, prompt_messages(row["prompt"]))
    yield {"prompt": prompt, "chosen": _reply(row["chosen"]), "rejected": _reply(row["rejected"])}


def _repeats(prompt: Any, chosen: Any, rejected: Any) -> bool:
    """Whether both completions open with the very text of the prompt."""
    texts = all(isinstance(text, str) for text in (prompt, chosen, rejected))
    return texts and bool(prompt.strip()) and chosen.startswith(prompt) and rejected.startswith(prompt)


def fits_repeated(row: Row) -> bool:
    """Both completions open with the text of the prompt."""
    return _repeats(row.get("prompt"), row.get("chosen"), row.get("rejected"))


def read_repeated(row: Row, _: Rule) -> Iterator[Fields]:
    """The prompt once."""
    prompt, chosen, rejected = (_column(row, name) for name in ("prompt", "chosen", "rejected"))
    if not _repeats(prompt, chosen, rejected):
        raise BadRow("prompt_mismatch", "unlike in other rows, chosen or rejected does not open with the prompt")
    sides = {"chosen": chosen.removeprefix(prompt).lstrip(), "rejected": rejected.removeprefix(prompt).lstrip()}
    yield {"prompt": _with_system(row, prompt_messages(prompt)), **sides}


def fits_transcripts(row: Row) -> bool:
    """No prompt; both sides are texts of turns."""
    return row.get("prompt") is None and is_transcript(row.get("chosen")) and is_transcript(row.get("rejected"))


def read_transcripts(row: Row, _: Rule) -> Iterator[Fields]:
    """Cut at the assistant's last turn."""
    sides = {}
    for name in ("chosen", "rejected"):
        text = _column(row, name)
        if not isinstance(text, str) or not text.lstrip().startswith("Human:"):
            raise BadRow("wrong_type", f"{name} is no text that opens with 'Human:', unlike in other rows")
        sides[name] = split_transcript(text, name)
    (prompt, chosen), (other_prompt, rejected) = sides["chosen"], sides["rejected"]
    if not same_words(prompt, other_prompt):
        raise BadRow("prompt_mismatch", "chosen and rejected have other turns before the last one")
    yield {"prompt": _with_system(row, prompt), "chosen": chosen, "rejected": rejected}


def fits_conversations(row: Row) -> bool:
    """Both sides are conversations from the first message on."""
    return is_whole(row.get("chosen")) and is_whole(row.get("rejected"))


def read_conversations(row: Row, _: Rule) -> Iterator[Fields]:
    """Cut at the assistant's last turn; a prompt beside them has to be what they open with."""
    chats = []
    for name in ("chosen", "rejected"):
        value = _column(row, name)
        if not is_whole(value):
            raise BadRow("wrong_type", f"{name} is no whole conversation, unlike in other rows")
        chats.append(as_chat(value) or [])
    prompt, chosen, rejected = split_conversations(*chats)
    fields = {"prompt": _with_system(row, prompt), "chosen": chosen, "rejected": rejected}
    given = prompt_messages(row.get("prompt"))
    users = [message.get("content") for message in fields["prompt"] if message.get("role") == "user"]
    told = fields["prompt"], fields["prompt"][1:], users[-1:] and users[-1], users[:1] and users[0]
    if given is not None and not any(same_words(given, each) for each in told):
        raise BadRow("prompt_mismatch", "the prompt is not what the conversations open with")
    yield fields


def fits_question(row: Row) -> bool:
    """Texts; the prompt is called question."""
    return isinstance(row.get("question"), str) and all(isinstance(side, str) for side in _sides_or_none(row))


def read_question(row: Row, _: Rule) -> Iterator[Fields]:
    """Behind the system message, if there is one."""
    chosen, rejected = _sides(row)
    yield {"prompt": _with_system(row, _column(row, "question")), "chosen": chosen, "rejected": rejected}


def fits_conversations_column(row: Row) -> bool:
    """The prompt is called conversations, and is one."""
    return as_chat(row.get("conversations")) is not None and all(side is not None for side in _sides_or_none(row))


def read_conversations_column(row: Row, _: Rule) -> Iterator[Fields]:
    """{from, value} as {role, content}."""
    chosen, rejected = _sides(row)
    prompt = _with_system(row, prompt_messages(_column(row, "conversations")))
    yield {"prompt": prompt, "chosen": _reply(chosen), "rejected": _reply(rejected)}


def fits_instruction(row: Row) -> bool:
    """Texts; the prompt is called instruction."""
    return isinstance(row.get("instruction"), str) and all(isinstance(side, str) for side in _sides_or_none(row))


def read_instruction(row: Row, _: Rule) -> Iterator[Fields]:
    """With the input behind an empty line."""
    chosen, rejected = _sides(row)
    prompt, more = _column(row, "instruction"), row.get("input")
    if isinstance(prompt, str) and isinstance(more, str) and more.strip():
        prompt = f"{prompt}\n\n{more}"
    yield {"prompt": _with_system(row, prompt), "chosen": chosen, "rejected": rejected}


def _sides_or_none(row: Row) -> list[Any]:
    return [row.get(side, row.get(f"{side}_response")) for side in ("chosen", "rejected")]


def fits_answers(row: Row) -> bool:
    """A prompt, and a list of answers."""
    return answers_of(row) is not None and any(row.get(name) is not None for name in PROMPTS)


def read_answers(row: Row, rule: Rule) -> Iterator[Fields]:
    """Pairs by the rule."""
    named = [name for name in PROMPTS if row.get(name) is not None]
    prompt = _with_system(row, prompt_messages(_column(row, *named or PROMPTS)))
    answers = answers_of(row)
    if answers is None:
        raise BadRow("missing_field", "no list of answers, unlike in other rows")
    for chosen, rejected in preferences(answers, rule):
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def fits_tree(row: Row) -> bool:
    """A message with replies."""
    return isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]


def read_tree(row: Row, rule: Rule) -> Iterator[Fields | BadRow]:
    """Pairs by the rule, for every message with two ranked replies or more."""
    empty = True
    for conversation, replies in ranked_replies(row):
        empty = False
        try:
            for chosen, rejected in preferences(replies, rule):
                yield {"prompt": conversation, "chosen": chosen, "rejected": rejected}
        except BadRow as bad:
            yield bad
    if empty:
        raise BadRow("no_preference", "no message of the tree has two ranked replies")
