"""The records that travel through the pipeline, stated once.

source row   {"prompt": ..., "chosen": ..., "rejected": ...}       text or messages, any file
  |  canonical.py
PreferencePair   prompt, chosen, rejected as messages              one meaning, whatever the source's form
                 margin, weight                                    where the source names columns of them, else 0 and 1
  |  tokenization.py
TokenPair        prompt_ids  [P]        what the model reads
                 chosen      [L+] ids + mask   what it is scored on (mask: which of these tokens count)
                 rejected    [L-] ids + mask
                 margin, weight         what its loss is moved and multiplied by; no part of a key
                 pair_key = sha256(chosen_key, rejected_key)       joined by key, never by position
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from data.identity import Mask, TokenIds, pair_key, prompt_key, response_key

_ENCODER = json.JSONEncoder(sort_keys=True)
_quoted = json.encoder.encode_basestring_ascii


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str
    more: Mapping[str, Any] = {}
    """What else a template may read: tool calls, the name of a tool, reasoning."""

    def document(self) -> dict[str, Any]:
        """As chat templates read it."""
        return {"role": self.role, "content": self.content, **self.more}

    def json(self) -> str:
        """The document as JSON, its keys in order."""
        if self.more:
            return _ENCODER.encode(self.document())
        return f'{{"content": {_quoted(self.content)}, "role": {_quoted(self.role)}}}'  # what the encoder gives, faster


@dataclass(frozen=True)
class SourceRow:
    """A row as read, and where it was read: `location` is `file:line` (or `file:row` where there are no lines)."""

    number: int
    location: str
    content: object
    problem: str | None = None


@dataclass(frozen=True)
class PreferencePair:
    """A pair in its one normal form. Rows that came as plain text have one user and one assistant message."""

    row: int
    location: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    """From the assistant's message to the assistant's message; tools may answer in between."""
    rejected: tuple[Message, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is given beside the messages: tools, and the row's own arguments."""
    own_group: str | None = None
    """The value of `data.group_by`, if there is such a column."""
    margin: float = 0.0
    """By how much chosen is better, in units of rewards (beta times nats): the offset of ODPO, arXiv 2402.10571."""
    weight: float = 1.0
    """What the loss of the pair is multiplied by, at least 0."""

    @property
    def group(self) -> str:
        """What the held-out split is cut by: one question never stands on both sides of it."""
        if self.own_group is not None:
            return self.own_group
        return next((m.content for m in self.prompt if m.role == "user"), self.prompt[0].content)

    def texts(self) -> tuple[str, str, str]:
        """What a template is given for the prompt and either response, as JSON: the same text is the same pair."""
        prompt, chosen, rejected = (
            [message.json() for message in side] for side in (self.prompt, self.chosen, self.rejected)
        )
        prompt.append(_ENCODER.encode(dict(self.arguments)))
        return f"[{', '.join(prompt)}]", f"[{', '.join(chosen)}]", f"[{', '.join(rejected)}]"


@dataclass(frozen=True)
class Rejection:
    """A row that is not used, why, and where it stands in the source."""

    row: int
    location: str
    reason: str
    detail: str


@dataclass(frozen=True, eq=False)  # compared by key, not array by array
class Response:
    """A response to a prompt in tokens: the unit that is scored, and scored once."""

    prompt_ids: TokenIds
    ids: TokenIds
    mask: Mask

    @cached_property
    def key(self) -> str:
        """Identity of this response under its prompt."""
        return response_key(self.prompt_ids, self.ids, self.mask)

    @property
    def n_scored(self) -> int:
        """Number of scored tokens, L."""
        return int(np.count_nonzero(self.mask))

    def __len__(self) -> int:
        """Tokens the model reads: prompt and response."""
        return len(self.prompt_ids) + len(self.ids)


@dataclass(frozen=True, eq=False)
class TokenPair:
    """A pair ready to be scored: two responses to one prompt."""

    row: int
    location: str
    chosen: Response
    rejected: Response
    truncated: int = field(default=0)
    """Tokens that truncation took off the two sides together."""
    margin: float = 0.0
    """PreferencePair's, in units of rewards; no part of a key."""
    weight: float = 1.0
    """PreferencePair's, at least 0; no part of a key."""

    @cached_property
    def prompt_key(self) -> str:
        """Identity of the prompt's tokens."""
        return prompt_key(self.chosen.prompt_ids)

    @cached_property
    def key(self) -> str:
        """Identity of the pair."""
        return pair_key(self.chosen.key, self.rejected.key)


def both_sides(pairs: Iterable[TokenPair]) -> Iterator[Response]:
    """The responses of these pairs, one after the other."""
    return (side for pair in pairs for side in (pair.chosen, pair.rejected))


def unique_responses(pairs: Iterable[TokenPair]) -> list[Response]:
    """The responses of these pairs, once each, in the order of their first appearance."""
    unique: dict[str, Response] = {}
    for response in both_sides(pairs):
        unique.setdefault(response.key, response)
    return list(unique.values())
