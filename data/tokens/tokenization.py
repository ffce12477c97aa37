"""Text to tokens: the only place where a prompt and its responses become ids and a mask.

With a chat template the prompt is rendered with the generation prompt, and its text must open the rendered
conversation. Prompt and response are tokenised together; where the prompt's own ids do not open the joint ids (a token
would straddle the seam) the two parts are tokenised apart, as generation sees them. What is scored runs up to and
including the first end token; what a template appends after it is dropped; where there is none, it is appended. Of a
response of several messages only what the assistant generates is scored, each turn up to its end token.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.errors import OWN_CODE, ConfigError, one_line, wants_its_own_code
from data.identity import Mask
from data.rows.bad_rows import BadRow
from data.schema import Message, PreferencePair, Rejection, Response, TokenPair
from data.tokens.chat_template import ChatTemplate, Span, limits, within_limits
from data.tokens.encoding import Encoded, Encoder, Ids

BATCH = 256  # rows handed to the tokenizer at once


class _Text(NamedTuple):
    """A response as text, behind its prompt; `spans`: what of it the assistant generates, None for all of it."""

    text: str
    spans: list[Span] | None


class _Rendered(NamedTuple):
    """A pair as three texts."""

    prompt: str
    chosen: _Text
    rejected: _Text


class PairTokenizer:
    """Turns pairs in normal form into token pairs with one tokenizer, one template and one `max_length`."""

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], max_length: int) -> None:
        """`tokenizer`: a transformers tokenizer. `end_ids`: tokens that end a turn, the one to append first."""
        self.tokenizer = tokenizer
        self._end_ids = list(end_ids)
        self._max_length = max_length
        self._template = ChatTemplate(tokenizer)
        self._encoder = Encoder(tokenizer)
        specials = sorted({t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content})
        self._special = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        # A template writes the start token itself; plain text gets the one that the tokenizer would add.
        self._start_ids = [] if self._template.present else _start_ids(tokenizer)
        self.seams_split = 0
        """Responses tokenised apart from their prompt because a token straddled the seam."""

    def tokenize(self, pairs: Iterable[PreferencePair]) -> Iterator[tuple[PreferencePair, TokenPair | Rejection]]:
        """Each pair, in order, with its token pair or its rejection.

        Raises:
            DataError: the chat template did not come to an end.
        """
        pairs = iter(pairs)
        while batch := list(islice(pairs, BATCH)):
            yield from zip(batch, self._tokenize_batch(batch), strict=True)

    def _tokenize_batch(self, batch: list[PreferencePair]) -> Iterator[TokenPair | Rejection]:
        with limits():
            rendered = [self._try_render(pair) for pair in batch]
        good = [each for each in rendered if isinstance(each, _Rendered)]
        encoded = iter(self._encoder.conversations([(r.prompt, (r.chosen.text, r.rejected.text)) for r in good]))
        for pair, found in zip(batch, rendered, strict=True):
            try:
                if isinstance(found, BadRow):
                    raise found
                yield self._token_pair(pair, found, *next(encoded))
            except BadRow as bad:
                yield bad.rejection(pair.row, pair.location)

    def _try_render(self, pair: PreferencePair) -> _Rendered | BadRow:
        try:
            with within_limits(pair.location):
                return self._render(pair)
        except BadRow as bad:
            return bad

    def _render(self, pair: PreferencePair) -> _Rendered:
        for message in (*pair.prompt, *pair.chosen, *pair.rejected):
            for text in _texts(message):
                if smuggled := self._special.search(text):
                    detail = f"the {message.role}'s text contains the special token {smuggled[0]}"
                    raise BadRow("special_tokens_in_text", detail)
        if not self._template.present:
            if len(pair.prompt) > 1 or len(pair.chosen) > 1 or len(pair.rejected) > 1 or pair.arguments:
                raise BadRow("template_failed", "the tokenizer has no chat template for several messages or tools")
            sides = _Text(pair.chosen[0].content, None), _Text(pair.rejected[0].content, None)
            return _Rendered(pair.prompt[0].content, *sides)
        prompt = self._template.render(pair.prompt, pair.arguments, open_turn=True)
        return _Rendered(prompt, *(self._render_side(pair, prompt, name) for name in ("chosen", "rejected")))

    def _render_side(self, pair: PreferencePair, prompt: str, name: str) -> _Text:
        response: tuple[Message, ...] = getattr(pair, name)
        messages = (*pair.prompt, *response)
        if len(response) == 1:
            text = self._template.render(messages, pair.arguments, open_turn=False)
            return _Text(_after(prompt, text, f"the rendered {name} conversation"), None)
        text, spans = self._template.generated(messages, pair.arguments)
        after = _after(prompt, text, f"the rendered {name} conversation")
        if spans is None:
            spans = [self._turn(pair, response, place, text) for place in _said(response)]
        start = len(prompt)
        inside = [(max(0, begin - start), end - start) for begin, end in spans if end > start]
        if not inside:
            raise BadRow("template_failed", f"the chat template marks nothing of {name} as generated")
        return _Text(after, inside)

    def _turn(self, pair: PreferencePair, response: tuple[Message, ...], place: int, text: str) -> Span:
        """Where the assistant's message at `place` of the response stands in the rendered text."""
        before, to = (*pair.prompt, *response[:place]), (*pair.prompt, *response[: place + 1])
        opened = self._template.render(before, pair.arguments, open_turn=True)
        closed = self._template.render(to, pair.arguments, open_turn=False)
        for part in (opened, closed):
            _after(part, text, f"the rendered conversation, at message {place} of a response")
        return len(opened), len(closed)

    def _token_pair(self, pair: PreferencePair, texts: _Rendered, prompt: Ids, sides: Sequence[Encoded]) -> TokenPair:
        room = self._max_length - len(self._start_ids) - len(prompt)
        if room <= 0:
            length = self._max_length - room
            raise BadRow("prompt_too_long", f"the prompt alone has {length} tokens; max_length is {self._max_length}")
        prompt_ids = np.fromiter(self._start_ids + prompt, np.int32)
        responses, cut = [], 0
        for side, encoded in zip((texts.chosen, texts.rejected), sides, strict=True):
            self._check_seam(side, encoded)
            ids, mask = self._scored(texts.prompt, side, encoded)
            responses.append(Response(prompt_ids, np.fromiter(ids[:room], np.int32), mask[:room]))
            cut += max(0, len(ids) - room)
        chosen, rejected = responses
        if chosen.ids.tobytes() == rejected.ids.tobytes():
            raise BadRow("identical_after_truncation", f"the first {room} tokens of both completions are the same")
        return TokenPair(pair.row, pair.location, chosen, rejected, cut, pair.margin, pair.weight)

    def _check_seam(self, side: _Text, encoded: Encoded) -> None:
        if encoded.joined:
            return
        if self.tokenizer.decode(encoded.ids, clean_up_tokenization_spaces=False) != side.text:
            # some tokenizers open every text with a space: apart, another response would be scored
            raise BadRow("seam_inside_a_token", "a token straddles prompt and response, and apart the text changes")
        self.seams_split += 1

    def _scored(self, prompt: str, side: _Text, encoded: Encoded) -> tuple[Ids, Mask]:
        """The response's tokens up to and including the end token of its last turn, and which of them are scored."""
        if side.spans is None:
            ids = self._to_end(encoded.ids)
            return ids, np.ones(len(ids), dtype=np.bool_)
        _, offsets = self._encoder.with_offsets(prompt, side.text)
        if offsets is None:
            raise BadRow("template_failed", "a response of several messages needs a tokenizer that knows offsets")
        ids, mask = [], []
        for begin, end in side.spans:
            first, behind = (sum(start < edge for start, _ in offsets) for edge in (begin, end))
            turn = self._to_end(encoded.ids[first:behind], last=end == side.spans[-1][1])
            mask += [False] * (first - len(ids)) + [True] * len(turn)
            ids += encoded.ids[len(ids) : first] + turn
        return ids, np.array(mask, dtype=np.bool_)

    def _to_end(self, ids: Ids, *, last: bool = True) -> Ids:
        """A turn up to and including its first end token; the last turn of a response gets one if it has none."""
        ends = [ids.index(token) for token in self._end_ids if token in ids]
        if ends:
            return ids[: min(ends) + 1]
        return ids + self._end_ids[:1] if last else ids


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model's folder.

    Raises:
        ConfigError: there is none, or it needs remote code.
    """
    from transformers import AutoTokenizer  # a second of import, for jobs that tokenise

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and its backends' own classes
        if wants_its_own_code(error):
            raise ConfigError(f"The tokenizer in {folder} {OWN_CODE}") from error
        raise _no_tokenizer(folder, one_line(error)) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # of some models transformers makes one without any file
        raise _no_tokenizer(folder, f"an empty {type(tokenizer).__name__} is all that its config.json gives.")
    return tokenizer


def _no_tokenizer(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"The folder {folder} has no tokenizer that loads: {why} Put the model's tokenizer files beside its weights."
    )


def end_ids(tokenizer: Any, generation_eos: int | list[int] | None) -> list[int]:
    """Tokens that end a turn: the tokenizer's, then the generation configuration's."""
    more = generation_eos if isinstance(generation_eos, list) else [generation_eos]
    found = [token for token in (tokenizer.eos_token_id, *more) if token is not None]
    return list(dict.fromkeys(found))


def _after(opening: str, text: str, what: str) -> str:
    """What follows the opening."""
    if not text.startswith(opening):
        raise BadRow("prompt_not_a_prefix", f"the rendered prompt does not open {what}")
    return text[len(opening) :]


def _said(response: Sequence[Message]) -> list[int]:
    return [place for place, message in enumerate(response) if message.role == "assistant"]


def _texts(message: Message) -> Iterator[str]:
    """Every text of a message."""
    open_ends: list[Any] = [message.content, *message.more.values()]
    while open_ends:
        value = open_ends.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            open_ends += [*value, *value.values()]
        elif isinstance(value, list):
            open_ends += value


def _start_ids(tokenizer: Any) -> Ids:
    opening = tokenizer("a")["input_ids"][:1]
    return opening if opening == [tokenizer.bos_token_id] else []
