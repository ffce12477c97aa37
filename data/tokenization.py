"""Text to tokens: the only place where a prompt and its responses become ids and a mask.

With a chat template the prompt is rendered with the generation prompt, and its text must open the rendered
conversation. Prompt and response are tokenised together; where the prompt's own ids do not open the joint ids (a token
would straddle the seam) the two parts are tokenised apart, as generation sees them. What is scored runs up to and
including the first end token; what a template appends after it is dropped; where there is none, it is appended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.canonical import BadRow
from data.errors import ConfigError, one_line
from data.identity import Mask, TokenIds
from data.schema import Message, PreferencePair, Rejection, Response, TokenPair

BATCH = 256  # rows handed to the tokenizer at once: its threads work on a batch


@dataclass(frozen=True)
class _Rendered:
    """A pair as three texts: the prompt, and the prompt with either response."""

    prompt: str
    chosen: str
    rejected: str


class PairTokenizer:
    """Turns pairs in normal form into token pairs with one tokenizer, one template and one `max_length`."""

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], max_length: int) -> None:
        """`tokenizer`: a transformers tokenizer. `end_ids`: tokens that end a turn, the one to append first."""
        self._tokenizer = tokenizer
        self._end_ids = list(end_ids)
        self._max_length = max_length
        self._has_template = bool(tokenizer.chat_template)
        self._specials = sorted({t.content for t in tokenizer.added_tokens_decoder.values() if t.special})
        # A template writes the start token itself; plain text gets the one that the tokenizer would add.
        self._start_ids = [] if self._has_template else _start_ids(tokenizer)
        self.seams_split = 0
        """Responses tokenised apart from their prompt because a token straddled the seam."""

    def tokenize(self, pairs: Iterator[PreferencePair]) -> Iterator[tuple[PreferencePair, TokenPair | Rejection]]:
        """Each pair, in order, with its token pair or its rejection."""
        while batch := list(islice(pairs, BATCH)):
            yield from zip(batch, self._tokenize_batch(batch), strict=True)

    def _tokenize_batch(self, batch: list[PreferencePair]) -> Iterator[TokenPair | Rejection]:
        rendered: list[_Rendered | BadRow] = [self._try_render(pair) for pair in batch]
        good = [texts for texts in rendered if isinstance(texts, _Rendered)]
        ids = iter(self._encode([text for texts in good for text in (texts.prompt, texts.chosen, texts.rejected)]))
        for pair, texts in zip(batch, rendered, strict=True):
            if isinstance(texts, BadRow):
                yield texts.rejection(pair.row, pair.location)
                continue
            try:
                yield self._token_pair(pair, texts, next(ids), next(ids), next(ids))
            except BadRow as bad:
                yield bad.rejection(pair.row, pair.location)

    def _try_render(self, pair: PreferencePair) -> _Rendered | BadRow:
        try:
            return self._render(pair)
        except BadRow as bad:
            return bad

    def _render(self, pair: PreferencePair) -> _Rendered:
        for message in (*pair.prompt, *pair.chosen, *pair.rejected):
            smuggled = next((s for s in self._specials if s in message.content), None)
            if smuggled is not None:
                raise BadRow(
                    "special_tokens_in_text", f"the {message.role}'s text contains the special token {smuggled}"
                )
        if not self._has_template:
            if len(pair.prompt) > 1:
                raise BadRow("template_failed", "the tokenizer has no chat template for a prompt of several messages")
            prompt = pair.prompt[0].content
            return _Rendered(prompt, prompt + pair.chosen[0].content, prompt + pair.rejected[0].content)
        prompt = self._template(pair.prompt, add_generation_prompt=True)
        chosen = self._template((*pair.prompt, *pair.chosen), add_generation_prompt=False)
        rejected = self._template((*pair.prompt, *pair.rejected), add_generation_prompt=False)
        for name, text in (("chosen", chosen), ("rejected", rejected)):
            if not text.startswith(prompt):
                raise BadRow(
                    "prompt_not_a_prefix", f"the rendered prompt does not open the rendered {name} conversation"
                )
        return _Rendered(prompt, chosen, rejected)

    def _template(self, messages: tuple[Message, ...], *, add_generation_prompt: bool) -> str:
        try:
            return cast(
                str,
                self._tokenizer.apply_chat_template(
                    [message._asdict() for message in messages],
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                ),
            )
        except Exception as error:  # a template raises whatever its author chose
            raise BadRow("template_failed", f"the chat template refused the row: {one_line(error)}") from error

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return cast(list[list[int]], self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])

    def _token_pair(
        self, pair: PreferencePair, texts: _Rendered, prompt: list[int], chosen: list[int], rejected: list[int]
    ) -> TokenPair:
        room = self._max_length - len(self._start_ids) - len(prompt)
        if room <= 0:
            length = self._max_length - room
            raise BadRow("prompt_too_long", f"the prompt alone has {length} tokens; max_length is {self._max_length}")
        prompt_ids = np.array(self._start_ids + prompt, dtype=np.int32)
        sides = []
        for joint, text in ((chosen, texts.chosen), (rejected, texts.rejected)):
            ids = self._response_ids(prompt, joint, text[len(texts.prompt) :])
            sides.append((ids[:room], max(0, len(ids) - room)))
        (chosen_ids, chosen_cut), (rejected_ids, rejected_cut) = sides
        if chosen_ids == rejected_ids:
            raise BadRow("identical_after_truncation", f"the first {room} tokens of both completions are the same")
        return TokenPair(
            pair.row,
            pair.location,
            _response(prompt_ids, chosen_ids),
            _response(prompt_ids, rejected_ids),
            chosen_cut + rejected_cut,
        )

    def _response_ids(self, prompt: list[int], joint: list[int], response_text: str) -> list[int]:
        """The response's tokens up to and including its first end token."""
        if joint[: len(prompt)] == prompt:
            ids = joint[len(prompt) :]
        else:
            ids = self._encode([response_text])[0]
            if self._tokenizer.decode(ids, clean_up_tokenization_spaces=False) != response_text:
                # some tokenizers open every text with a space: apart, another response would be scored
                raise BadRow("seam_inside_a_token", "a token straddles prompt and response, and apart the text changes")
            self.seams_split += 1
        end = next((i for i, token in enumerate(ids) if token in self._end_ids), None)
        return ids + self._end_ids[:1] if end is None else ids[: end + 1]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model's folder.

    Raises:
        ConfigError: there is none, or it needs remote code.
    """
    from transformers import AutoTokenizer  # a second of import, for jobs that tokenise

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and its backends' own classes
        raise ConfigError(
            f"The folder {folder} has no tokenizer that loads: {one_line(error)} Put the model's "
            "tokenizer files beside its weights."
        ) from error


def end_ids(tokenizer: Any, generation_eos: int | list[int] | None) -> list[int]:
    """Tokens that end a turn: the tokenizer's, then the generation configuration's."""
    more = generation_eos if isinstance(generation_eos, list) else [generation_eos]
    found = [token for token in (tokenizer.eos_token_id, *more) if token is not None]
    return list(dict.fromkeys(found))


def _start_ids(tokenizer: Any) -> list[int]:
    opening = tokenizer("a")["input_ids"][:1]
    return opening if opening == [tokenizer.bos_token_id] else []


def _response(prompt_ids: TokenIds, ids: list[int]) -> Response:
    mask: Mask = np.ones(len(ids), dtype=np.bool_)
    return Response(prompt_ids, np.array(ids, dtype=np.int32), mask)
