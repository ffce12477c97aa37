"""Whether another tokenizer gives the same tokens: by what it does to texts, not by its files.

Programs that train a model write its tokenizer anew: other bytes, and the same tokens.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.rows.bad_rows import BadRow
from data.schema import Message, Response
from data.tokens.chat_template import ChatTemplate, limits, within_limits

_SHOWN = 60  # characters of a text
_BEFORE = 16  # of these, ahead of the first difference
_CONVERSATION = (
    Message("user", "Which one?"),
    Message("assistant", "This one."),
    Message("user", " Why? "),
    Message("assistant", "It is better."),
)


def token_difference(own: Any, other: Any, responses: Iterable[Response]) -> str | None:
    """Where these texts, special tokens and all, are not the same tokens to `other` as to `own`; None: nowhere.

    Said by the first example, as the end of a sentence.
    """
    for response in responses:
        ids = np.concatenate([response.prompt_ids, response.ids]).tolist()
        text, read = _text(own, ids), _text(other, ids)
        if read != text:
            return f"it reads the tokens of {_from_first(text, read)} as {_from_first(read, text)}"
        expected, found = (each.encode(text, add_special_tokens=False) for each in (own, other))
        if found != expected:
            at = _first_difference(expected, found)
            return (
                f"it makes the tokens {found[at : at + 4]} of {_shortened(_text(other, found[at : at + 4]))} where "
                f"{expected[at : at + 4]} are expected"
            )
    return None


def template_difference(own: Any, other: Any) -> str | None:
    """How `other` renders a small conversation otherwise than `own`, as the end of a sentence; None: it does not."""
    if not ChatTemplate(own).present:
        return None
    if not ChatTemplate(other).present:
        return "has none"
    expected, found = _rendered(own), _rendered(other)
    if expected is None or found == expected:
        return None
    if found is None:
        return "does not render a small conversation"
    return f"writes {_from_first(found, expected)} where the other writes {_from_first(expected, found)}"


def _rendered(tokenizer: Any) -> str | None:
    """A conversation with its last turn open, and whole; None where the template refuses it."""
    template = ChatTemplate(tokenizer)
    try:
        with limits(), within_limits("a conversation of four messages"):
            opened = template.render(_CONVERSATION[:-1], {}, open_turn=True)
            return opened + template.render(_CONVERSATION, {}, open_turn=False)
    except (BadRow, DataError):
        return None


def _text(tokenizer: Any, ids: list[int]) -> str:
    """What the tokens read; nothing where one of them is not a token of it."""
    try:
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    except (IndexError, KeyError, TypeError, OverflowError):
        return ""


def _from_first(text: str, other: str) -> str:
    """A text from a little before where it first differs from another."""
    return _shortened(text[max(0, _first_difference(text, other) - _BEFORE) :])


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _shortened(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
