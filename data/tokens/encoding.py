"""Texts to token ids: prompt and response together, and no piece of text twice.

Tokenizers cut a text at its special tokens before they look at anything else, so that each piece from one special token
to the next gives the same ids alone as in its text. The first conversations of a tokenizer are encoded whole, too;
where that ever differs, all are.
"""

import copy
import logging
import os
import re
from collections.abc import Sequence
from itertools import chain
from operator import add
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

Ids = list[int]
Offsets = list[tuple[int, int]]
_PROBED = 16  # conversations that are encoded whole, too
_KEPT = 4096  # pieces whose ids are kept: system prompts, openings of turns, prompts of several pairs


class Encoded(NamedTuple):
    """A response in tokens, given the prompt's."""

    ids: Ids
    """Its tokens behind the prompt."""
    joined: bool
    """Whether prompt and response have a token edge where they meet; False: they were encoded apart."""


class Encoder:
    """Encodes conversations with a transformers tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = _backend(tokenizer)
        self._cuts = _cuts(tokenizer) if self._backend is not None else None
        self._probes = _PROBED
        self._known: dict[str, Ids] = {}

    def conversations(self, texts: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[Ids, list[Encoded]]]:
        """For each prompt and its responses the prompt's ids, and the responses' behind it."""
        if self._probes and self._cuts is not None:
            self._probe(texts[: self._probes])
        if len(self._known) > _KEPT:
            self._known = {}
        prompts = [self._pieces(prompt) for prompt, _ in texts]
        joints = [
            [self._pieces(pieces[-1] + response) for response in responses]
            for pieces, (_, responses) in zip(prompts, texts, strict=True)
        ]
        self._learn([*chain.from_iterable(prompts), *chain.from_iterable(chain.from_iterable(joints))])
        return [
            (
                self._joined(pieces),
                [self._behind(pieces[-1], each, text) for each, text in zip(joint, said, strict=True)],
            )
            for pieces, joint, (_, said) in zip(prompts, joints, texts, strict=True)
        ]

    def with_offsets(self, prompt: str, response: str) -> tuple[Encoded, Offsets | None]:
        """A response behind its prompt, and where each of its tokens begins and ends in it, in characters."""
        ((_, (encoded,)),) = self.conversations([(prompt, [response])])
        if self._backend is None:
            return encoded, None
        head = self._pieces(prompt)[-1] if encoded.joined else ""
        whole = self._backend.encode(head + response, add_special_tokens=False)
        skipped = len(whole.ids) - len(encoded.ids)
        assert whole.ids[skipped:] == encoded.ids
        return encoded, [(start - len(head), end - len(head)) for start, end in whole.offsets[skipped:]]

    def _pieces(self, text: str) -> list[str]:
        """The text from each special token to the next."""
        if self._cuts is None:
            return [text]
        before, *rest = self._cuts.split(text)  # special tokens, and what stands behind each
        pieces = [*map(add, rest[::2], rest[1::2])]
        return [before, *pieces] if before or not pieces else pieces

    def _joined(self, pieces: Sequence[str]) -> Ids:
        ids: Ids = []
        for piece in pieces:
            ids += self._known[piece]
        return ids

    def _behind(self, head: str, pieces: Sequence[str], response: str) -> Encoded:
        """The response's part of the ids of `head` and response together."""
        head_ids, ids = self._known[head], self._joined(pieces)
        if ids[: len(head_ids)] == head_ids:
            return Encoded(ids[len(head_ids) :], joined=True)
        apart = self._pieces(response)
        self._learn(apart)
        return Encoded(self._joined(apart), joined=False)

    def _learn(self, pieces: Sequence[str]) -> None:
        """Encode those of the pieces that are not known."""
        new = [piece for piece in dict.fromkeys(pieces) if piece not in self._known]
        if self._backend is not None:
            found = [each.ids for each in self._backend.encode_batch_fast(new, add_special_tokens=False)]
        else:
            found = self._tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"] if new else []
        self._known |= zip(new, found, strict=True)

    def _probe(self, texts: Sequence[tuple[str, Sequence[str]]]) -> None:
        """See whether whole texts give the ids of their pieces."""
        cuts, self._probes = self._cuts, 0
        pieces = self.conversations(texts)
        self._cuts = None
        if self.conversations(texts) == pieces:
            self._cuts, self._probes = cuts, _PROBED - len(texts)
        else:
            logger.info("this tokenizer does not cut texts at its special tokens: conversations are encoded whole")


def _cuts(tokenizer: Any) -> re.Pattern[str] | None:
    """What special tokens look like, bar those that take white space or words beside them into account."""
    cutting = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        # A normalised token is looked for in normalised text, not in the text as it stands.
        if token.special and token.content and not (token.normalized or token.lstrip or token.single_word)
    ]
    longest_first = sorted(cutting, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if cutting else None


def _backend(tokenizer: Any) -> Any:
    """A copy of the library's own tokenizer that neither cuts nor pads; None where there is no such thing."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return None
    own = copy.deepcopy(backend)
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = getattr(tokenizer, "split_special_tokens", False)
    return own


def one_thread() -> None:
    """Encode on one core in this process: as many processes as cores do so."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
