"""Tokens as text again, with what is scored visibly marked: what a person checks a data set by."""

from itertools import groupby
from typing import Any

import numpy as np

from data.schema import Response, TokenPair

OPEN, CLOSE = "\u27e6", "\u27e7"


def marked_pair(pair: TokenPair, tokenizer: Any) -> dict[str, str]:
    """The prompt and both responses as the model reads them, and where the pair stands."""
    return {
        "location": pair.location,
        "prompt": _text(tokenizer, pair.chosen.prompt_ids),
        "chosen": marked(pair.chosen, tokenizer),
        "rejected": marked(pair.rejected, tokenizer),
    }


def marked(response: Response, tokenizer: Any) -> str:
    """The response's text, what is scored of it between \u27e6 and \u27e7."""
    places = range(len(response.ids))
    runs = [(scored, list(run)) for scored, run in groupby(places, key=lambda place: bool(response.mask[place]))]
    texts = [(scored, _text(tokenizer, response.ids[run])) for scored, run in runs]
    return "".join(f"{OPEN}{text}{CLOSE}" if scored else text for scored, text in texts)


def token_by_token(pair: TokenPair, tokenizer: Any) -> dict[str, Any]:
    """Where the pair stands, its numbers of tokens, and each of its tokens as marked_tokens shows them."""
    prompt, chosen = marked_tokens(pair.chosen, tokenizer)
    return {
        "location": pair.location,
        "key": pair.key,
        "n_prompt": len(pair.chosen.prompt_ids),
        "n_chosen": pair.chosen.n_scored,
        "n_rejected": pair.rejected.n_scored,
        "truncated": pair.truncated,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": marked_tokens(pair.rejected, tokenizer)[1],
    }


def marked_tokens(response: Response, tokenizer: Any) -> tuple[str, str]:
    """The tokens of the prompt and of the response, each as «read» or \u27e6scored\u27e7; a line break is \u21b5."""
    prompt = "".join(f"«{text}»" for text in _token_texts(response.prompt_ids, tokenizer))
    texts = _token_texts(response.ids, tokenizer)
    scored = zip(texts, response.mask, strict=True)
    return prompt, "".join(f"{OPEN}{text}{CLOSE}" if yes else f"«{text}»" for text, yes in scored)


def _token_texts(ids: Any, tokenizer: Any) -> list[str]:
    return [_text(tokenizer, [token]).replace("\n", "\u21b5") for token in ids]


def _text(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode(
        np.asarray(ids).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text
