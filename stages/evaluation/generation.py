"""What policy and reference answer to held-out prompts: a policy can rank pairs well and babble.

Responses are greedy. Each is kept under the identity of the model that gave it, so that none is ever made twice:

    work/generations/<model_id>/<max_new_tokens>-<digest of the end tokens>.parquet      prompt_key, ids
"""

import json
import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic import Field

from data.durable import write_bytes
from data.errors import ConfigError, Interrupted
from data.identity import document_key
from data.parquet import parquet_bytes
from data.settings import Settings
from data.tokens.encoding import Ids
from data.tokens.token_pairs import TokenPairs
from stages.job import Control
from stages.metrics.intervals import wilson
from stages.model_files import weights_folder
from stages.scoring.config import Numerics

logger = logging.getLogger(__name__)

GENERATION_VERSION = 1  # raised by hand when the same model and prompt get another response
GRAM = 4  # tokens of what may be repeated
SHARES = ("ended", "repetition", "empty")

_CACHED = pa.schema([("prompt_key", pa.string()), ("ids", pa.list_(pa.int32()))])


class GenerateConfig(Settings):
    """Section `eval.generate`: greedy responses of policy and reference to held-out prompts."""

    prompts: int = Field(default=64, ge=1)
    """Distinct held-out prompts that are answered; all of them where there are fewer."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Most tokens of a response; one that has not ended by then is cut off."""


@dataclass(frozen=True)
class Speaker:
    """A model that answers."""

    model_id: str
    folder: Path | None
    """None where it is out of reach: then it has only the responses that are kept."""


@dataclass(frozen=True)
class Generation:
    """How prompts are answered."""

    config: GenerateConfig
    numerics: Numerics
    tokenizer: Any
    """The one that made the pairs."""
    end_ids: Sequence[int]
    """Tokens that end a turn, as data.tokens.tokenization has them."""
    kept: Path
    """Folder of responses that were given before."""
    control: Control


def generate_checks(
    pairs: TokenPairs, policy: Speaker, reference: Speaker | None, job: Generation
) -> tuple[dict[str, float], pl.DataFrame]:
    """Figures of what both models answer, and the answers side by side, a row for each prompt by its key.

    Without a reference, or where it is out of reach and something is missing, its columns are null and its figures
    absent.

    Raises:
        ConfigError: no prompt leaves room for a response, or the model generates nothing. Interrupted: by a signal.
    """
    prompts = _choose(pairs, job.config, [speaker.folder for speaker in (policy, reference) if speaker is not None])
    frame = prompts.drop("ids").with_columns(*_side("policy", _answers(policy, prompts, job), job))
    metrics = generation_metrics(frame, "policy")
    answers = None if reference is None else _answers(reference, prompts, job, needed=False)
    frame = frame.with_columns(*_side("reference", answers, job))
    if answers is not None:
        metrics |= {f"ref_{name}": value for name, value in generation_metrics(frame, "reference").items()}
    return metrics, frame


def generation_metrics(frame: pl.DataFrame, side: str) -> dict[str, float]:
    """Means over prompts of one side of the frame: generation_length, _ended, _repetition, _empty, with intervals."""
    raise NotImplementedError
