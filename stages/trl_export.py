"""Pairs and their stored log-probs as the data set that TRL's DPOTrainer trains on.

Texts are rendered, so that TRL makes the very tokens of them that were scored; a pair of which it would not is left out
and counted. (TRL 1.16 puts an end token behind a text that lacks it, and scores every token of a response.)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data.identity import TokenIds
from data.schema import Response, TokenPair
from stages.reference_rows import ReferenceLogps

TRL_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("ref_chosen_logps", pa.float32()),
        ("ref_rejected_logps", pa.float32()),
        ("pair_key", pa.string()),
    ]
)


def trl_table(
    pairs: Sequence[TokenPair], reference: Mapping[str, ReferenceLogps], tokenizer: Any
) -> tuple[pa.Table, dict[str, int]]:
    """The rows, and how many pairs were left out for which reason."""
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        texts = rendered(pair, tokenizer)
        if isinstance(texts, str):
            left_out[texts] += 1
            continue
        prompt, chosen, rejected = texts
        sums = reference[pair.key]
        rows.append(
            {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "ref_chosen_logps": sums.chosen,
                "ref_rejected_logps": sums.rejected,
                "pair_key": pair.key,
            }
        )
    return pa.Table.from_pylist(rows, schema=TRL_SCHEMA), dict(left_out)


def rendered(pair: TokenPair, tokenizer: Any) -> tuple[str, str, str] | str:
    """The three texts of a pair, or why TRL would make other tokens of them."""
    opening = _added_in_front(tokenizer)
    prompt = _text(tokenizer, pair.chosen.prompt_ids, opening)
    if _tokens(tokenizer, prompt) != pair.chosen.prompt_ids.tolist():
        return "prompt_reads_otherwise"
    texts = [prompt]
    for side in (pair.chosen, pair.rejected):
        if not side.mask.all():
            return "not_every_token_scored"
        text = _response_text(tokenizer, side, prompt, opening)
        if text is None:
            return "response_reads_otherwise"
        texts.append(text)
    return texts[0], texts[1], texts[2]


def _response_text(tokenizer: Any, side: Response, prompt: str, opening: list[int]) -> str | None:
    """The text behind the prompt's of which TRL makes the response's tokens."""
    ids = [*side.prompt_ids.tolist(), *side.ids.tolist()]
    whole = _text(tokenizer, ids, opening)
    if not whole.startswith(prompt):
        return None
    text = whole[len(prompt) :]
    ended = text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token
    return text if _tokens(tokenizer, prompt + ended) == ids else None


def _tokens(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer(text)["input_ids"]
    return tokens


def _text(tokenizer: Any, ids: TokenIds | list[int], opening: list[int]) -> str:
    """The text of tokens, without those that the tokenizer puts in front by itself."""
    ids = list(map(int, ids))
    if opening and ids[: len(opening)] == opening:
        ids = ids[len(opening) :]
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _added_in_front(tokenizer: Any) -> list[int]:
    bare: list[int] = tokenizer("x", add_special_tokens=False)["input_ids"]
    with_added = _tokens(tokenizer, "x")
    return with_added[: len(with_added) - len(bare)] if with_added[-len(bare) :] == bare else []
