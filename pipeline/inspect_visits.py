"""`pipeline inspect --step` and `--worst`: which rows made a step's loss, and which stand out of the run."""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

import polars as pl

from data.errors import ConfigError, StoreError
from data.pairs.preparation import PreparedPairs
from data.schema import TokenPair
from data.tokens.marked_text import token_by_token
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from pipeline.start import start_policy
from stages.metrics.worst import visits_of_step, worst_pairs
from stages.reference import BoundReference
from stages.run_folder import RunFolder
from stages.training.visits import read_visits

T = TypeVar("T")


def run_of(inputs: Inputs, bound: BoundReference, prepared: PreparedPairs) -> RunFolder:
    """The run that the configuration stands for, under way or whole.

    Raises:
        StoreError: no visits are recorded in it.
    """
    start = start_policy(inputs, bound, prepared.splits, download=False)
    run, _ = inputs.run(bound, prepared.splits, start.policy_id)
    if not _asked(run, _extent)["visits"]:
        raise StoreError(_nothing_recorded(inputs, run))
    return run


def worst_first(
    run: RunFolder, pairs: TokenPairs, step: int | None, limit: int, load_tokenizer: Callable[[], Any]
) -> dict[str, Any]:
    """The first `limit` of the pairs of a step, or without one of all, as the job's document shows them.

    Raises:
        ConfigError: nothing is recorded of this step.
    """
    recorded = _asked(run, _extent)
    if step is None:
        rows = _asked(run, worst_pairs)
    elif recorded["first"] <= step <= recorded["last"]:
        rows = _asked(run, partial(visits_of_step, step=step))
    else:
        raise ConfigError(_no_such_step(run, step, recorded))
    worst = [_finite(row) for row in rows.head(limit).iter_rows(named=True)]
    by_key = _by_key(pairs, {row["pair_key"] for row in worst})
    tokenizer = load_tokenizer() if by_key else None
    shown = [_shown(row, by_key.get(row["pair_key"]), tokenizer) for row in worst]
    summary = {} if step is None else {"step": {"step": step, **_losses(rows)}}
    return {"found": rows.height, "rejected": [], "shown": shown, "recorded": recorded, **summary}


def _shown(row: dict[str, Any], pair: TokenPair | None, tokenizer: Any) -> dict[str, Any]:
    """A pair and its visit; without its text where it is no longer among the prepared pairs."""
    place = {"location": f"{row.pop('source')}:{row.pop('line')}", "split": "train", "key": row.pop("pair_key")}
    return {**({} if pair is None else token_by_token(pair, tokenizer)), **place, "visit": row}


def _asked(run: RunFolder, question: Callable[[pl.LazyFrame], T]) -> T:
    try:
        return question(read_visits(run.path))
    except FileNotFoundError:  # the run ended at this very moment, and its parts were joined
        return question(read_visits(run.path))


def _extent(visits: pl.LazyFrame) -> dict[str, Any]:
    step = pl.col("step")
    asked = visits.select(first=step.min(), last=step.max(), visits=pl.len())
    return asked.collect().row(0, named=True)


def _losses(rows: pl.DataFrame) -> dict[str, Any]:
    losses = rows["loss"]
    return {"pairs": rows.height, **_finite({"loss": losses.mean(), "least": losses.min(), "most": losses.max()})}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """What is not finite becomes null, as JSON has no such number."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _by_key(pairs: TokenPairs, keys: Collection[str]) -> dict[str, TokenPair]:
    places = pairs.select(pl.col("pair_key").is_in(list(keys)).alias("wanted"))["wanted"].arg_true()
    return {pair.key: pair for pair in pairs.take(places)}


def _nothing_recorded(inputs: Inputs, run: RunFolder) -> str:
    others = [path.parent for path in inputs.workspace.runs.glob("*/run.json")]
    others = [path for path in others if path != run.path and _asked(RunFolder(path), _extent)["visits"]]
    others.sort(key=lambda path: (path / "run.json").stat().st_mtime_ns, reverse=True)
    hint = (
        f"Runs with visits, the youngest first: {', '.join(path.name for path in others[:10])}; --set run=NAME looks "
        "at one of them."
        if others
        else "`pipeline train` writes them, the first within a minute; runs of earlier versions have none."
    )
    return f"No visits are recorded in {run.path}, where the run that this configuration stands for belongs. {hint}"


def _no_such_step(run: RunFolder, step: int, recorded: dict[str, Any]) -> str:
    later = (
        "The run is complete."
        if run.is_trained
        else "A run under way writes its visits once a minute and with each checkpoint, so later ones may follow."
    )
    return (
        f"--step {step}: the visits of run {run.path.name} are those of steps {recorded['first']} to "
        f"{recorded['last']}. {later}"
    )
