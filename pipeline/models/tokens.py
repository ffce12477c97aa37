"""Whether the pairs' tokens are a model's own: otherwise its scores would be of texts that nobody wrote.

Pairs are tokenised once, by the reference's tokenizer and under its chat template. What counts is what a model's
tokenizer does to held-out texts, not the bytes of its files.
"""

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import ConfigError
from data.tokens.other_tokenizer import template_difference, token_difference
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import load_tokenizer
from pipeline.models.named import NamedModel
from stages.model_files import tokenizer_folder, weights_folder

_SAMPLE = 32  # pairs whose texts are encoded again
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")

logger = logging.getLogger(__name__)


class TokensOfPairs:
    """The tokens of held-out pairs, and the tokenizer that made them."""

    def __init__(self, pairs: TokenPairs, tokenizer: Path) -> None:
        self._pairs = pairs
        self._folder = tokenizer

    def check(self, model: NamedModel) -> None:
        """Refuse a model to which these are not the tokens of the same texts; tell where it speaks otherwise.

        Raises:
            ConfigError: its vocabulary is smaller, or its tokenizer another.
        """
        self._check_vocabulary(model)
        folder = tokenizer_folder(model.folder)
        if not any((folder / name).is_file() for name in _TOKENIZERS):
            logger.info("%s has no tokenizer of its own; only the size of its vocabulary was checked", model.name)
            return
        other = load_tokenizer(folder)
        sample = [self._pairs[i] for i in np.linspace(0, len(self._pairs) - 1, _SAMPLE).astype(int)]
        sides = {side.key: side for pair in sample for side in (pair.chosen, pair.rejected)}
        if (differs := token_difference(self._own, other, sides.values())) is not None:
            raise ConfigError(
                f"The model {model.name} has another tokenizer than reference.model, whose tokens the pairs are: "
                f"{differs}. Scored on these tokens, it would be judged on texts that it does not know. Evaluate it "
                "with a configuration of its own, whose reference.model has its tokenizer (eval.reference_free: true "
                "needs no scores of that reference)."
            )
        if (differs := template_difference(self._own, other)) is not None:
            logger.warning(
                "the chat template of %s %s: the pairs are scored under the template of reference.model, and a model "
                "that was trained under its own may do worse for that alone",
                model.name,
                differs,
            )
        if other.eos_token_id is not None and other.eos_token_id != self._own.eos_token_id:
            logger.warning(
                "%s ends its turns with %r, and the responses of the pairs end with %r, as those of reference.model",
                model.name,
                str(other.eos_token),
                str(self._own.eos_token),
            )

    def _check_vocabulary(self, model: NamedModel) -> None:
        config = json.loads((weights_folder(model.folder) / "config.json").read_bytes())
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        if size is not None and self._highest >= size:
            token = str(self._own.convert_ids_to_tokens(self._highest))
            raise ConfigError(
                f"The model {model.name} knows {size} tokens, and the held-out pairs have token {self._highest} "
                f"({token!r}), as reference.model's tokenizer makes it. It has another vocabulary; evaluate it with a "
                "configuration of its own, whose reference.model has its tokenizer (eval.reference_free: true needs no "
                "scores of that reference)."
            )

    @cached_property
    def _own(self) -> Any:
        return load_tokenizer(self._folder)

    @cached_property
    def _highest(self) -> int:
        return max(
            int(ids.max())
            for pair in self._pairs
            for ids in (pair.chosen.prompt_ids, pair.chosen.ids, pair.rejected.ids)
        )
