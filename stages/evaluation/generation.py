"""What policy and reference answer to held-out prompts: a policy can rank pairs well and babble.

Responses are greedy. Each is kept under the identity of the model that gave it, so that none is ever made twice:

    work/generations/<model_id>/<max_new_tokens>-<digest of the end tokens>.parquet      prompt_key, ids
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from data.durable import write_bytes
from data.errors import ConfigError, Interrupted, one_line
from data.identity import document_key
from data.parquet import parquet_bytes
from data.settings import Settings
from data.tokens.encoding import Ids
from data.tokens.token_pairs import TokenPairs
from stages.evaluation.responses import Speech, generation_metrics, response_columns
from stages.job import Control, Laps
from stages.model_files import weights_folder
from stages.scoring.config import Numerics

logger = logging.getLogger(__name__)

GENERATION_VERSION = 1  # raised by hand when the same model and prompt get another response

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
    speech: Speech
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
    answers: dict[str, list[Ids] | None] = {"policy": _answers(policy, prompts, job), "reference": None}
    if reference is not None:
        answers["reference"] = _answers(reference, prompts, job, needed=False)
    texts = [job.speech.text(ids, special=True) for ids in prompts["ids"].to_list()]
    frame = prompts.select("prompt_key", "location", pl.Series("prompt", texts, pl.String))
    for side, given in answers.items():
        frame = frame.hstack(response_columns(side, given, len(prompts), job.speech))
    metrics = generation_metrics(frame, "policy")
    if answers["reference"] is not None:
        metrics |= {f"ref_{name}": value for name, value in generation_metrics(frame, "reference").items()}
    return metrics, frame


def _choose(pairs: TokenPairs, config: GenerateConfig, folders: Sequence[Path | None]) -> pl.DataFrame:
    """The prompts with the smallest keys: prompt_key, location, prompt, ids.

    Keys are digests, so this is a drawing by lot in which data that grow or move change as little as can be.
    """
    limits = [limit for folder in folders if folder is not None and (limit := _positions(folder)) is not None]
    distinct = pairs.select("prompt_key", "n_prompt").with_row_index("place").unique("prompt_key", keep="first")
    fitting = distinct.filter(pl.col("n_prompt") + config.max_new_tokens <= min(limits)) if limits else distinct
    if fitting.is_empty():
        shortest = distinct["n_prompt"].to_numpy().min()
        raise ConfigError(
            f"eval.generate: no held-out prompt leaves room for {config.max_new_tokens} new tokens in the {min(limits)}"
            f" that the model can read: the shortest prompt has {shortest}. Lower eval.generate.max_new_tokens."
        )
    if left_out := distinct.height - fitting.height:
        logger.info("%d held-out prompts are too long to be answered and are left out of the choice", left_out)
    chosen = pairs.take(fitting.sort("prompt_key")["place"].head(config.prompts).to_numpy())
    return pl.DataFrame(
        {
            "prompt_key": [pair.prompt_key for pair in chosen],
            "location": [pair.location for pair in chosen],
            "ids": [pair.chosen.prompt_ids.tolist() for pair in chosen],
        },
        schema={"prompt_key": pl.String, "location": pl.String, "ids": pl.List(pl.Int32)},
    )


def _positions(folder: Path) -> int | None:
    """How many tokens the model in this folder can read, if it says so."""
    config = json.loads((weights_folder(folder) / "config.json").read_bytes())
    config = config.get("text_config") or config  # of a model that sees or hears, too
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    return limit if isinstance(limit, int) else None


def _answers(speaker: Speaker, prompts: pl.DataFrame, job: Generation, *, needed: bool = True) -> list[Ids] | None:
    """The model's responses in the order of the prompts; None where it cannot be asked and need not be."""
    path = _kept_path(speaker, job)
    kept = _read_kept(path)
    missing = prompts.filter(~pl.col("prompt_key").is_in(list(kept)))
    if len(missing) and speaker.folder is None and not needed:
        logger.warning(
            "the reference is out of reach, so what it would answer to %d prompts is not known: the metrics "
            "ref_generation_* are left out",
            len(missing),
        )
        return None
    if len(missing):
        assert speaker.folder is not None
        _generate(speaker.folder, missing, job, path, kept)
    return [kept[key] for key in prompts["prompt_key"]]


def _generate(folder: Path, missing: pl.DataFrame, job: Generation, path: Path, kept: dict[str, Ids]) -> None:
    """Ask the model; what it answers is added to `kept`, and to the file after each batch."""
    from stages.evaluation.greedy import Decoding, greedy_responses

    keys, prompts = missing["prompt_key"].to_list(), missing["ids"].to_list()
    decoding = Decoding(job.config.max_new_tokens, list(job.speech.end_ids), job.control.stop_requested)
    laps = Laps()
    with job.control.bar("generating", len(keys)) as bar:
        for batch in greedy_responses(folder, job.numerics, prompts, decoding):
            kept |= {keys[place]: ids for place, ids in batch.items()}
            write_bytes(path, parquet_bytes(pa.table([list(kept), list(kept.values())], schema=_CACHED)))
            tokens = sum(map(len, batch.values()))
            job.control.worked("evaluation", laps.lap(), tokens)
            bar.advance(len(batch), tokens)
    if job.control.stop_requested():
        raise Interrupted(
            f"Stopped by a signal while responses were generated; {len(kept)} of them are kept in {path}. Run the same "
            "command again."
        )


def _kept_path(speaker: Speaker, job: Generation) -> Path:
    digest = document_key({"version": GENERATION_VERSION, "end_ids": sorted(job.speech.end_ids)})[:12]
    return job.kept / speaker.model_id / f"{job.config.max_new_tokens}-{digest}.parquet"


def _read_kept(path: Path) -> dict[str, Ids]:
    try:
        table = pq.read_table(path, schema=_CACHED)
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, OSError) as error:
        logger.warning("%s cannot be read (%s); its responses are generated again", path, one_line(error))
        return {}
    rows = zip(table["prompt_key"].to_pylist(), table["ids"].to_pylist(), strict=True)
    return {key: ids for key, ids in rows if ids}
