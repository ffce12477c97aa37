"""Job one: score the frozen reference over every pair that the store does not have, once.

What is stored is per pair, what is scored is per response: a new pair of two known responses costs no forward pass.
Pairs are committed in units; a unit that was interrupted leaves nothing behind, and a rerun scores what is missing.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from data.errors import Interrupted
from data.schema import Response, TokenPair, unique_responses
from data.store import ROW_SCHEMA, ReferenceStore, missing_keys
from stages.job import Bar, Control, JobReport
from stages.reference import BoundReference, unreachable
from stages.scoring.config import Numerics

if TYPE_CHECKING:
    from stages.scoring.scorer import Scorer

ROW_BYTES = 200  # of a stored pair, nearly all of it its four keys

logger = logging.getLogger(__name__)


def precompute_ref(
    pairs: Sequence[TokenPair],
    store: ReferenceStore,
    bound: BoundReference,
    numerics: Numerics,
    unit_pairs: int,
    control: Control,
    scorer: "Scorer | None" = None,
) -> JobReport:
    """Bring the store to completeness for `pairs`; loads the model only if a response has never been scored.

    `scorer` is the reference's, where it had to be loaded before.
    """
    store.describe(bound.identity)
    missing, known = outstanding(pairs, store.rows(damaged="quarantine"))
    unknown = unknown_responses(missing, known)
    report = _report(pairs, missing, unknown)
    if not missing:
        report.status = "nothing_to_do"
        logger.info("all %d pairs have reference log-probs already; no model was loaded", report.pairs)
        return report
    logger.info("%d of %d pairs to add, %d responses to score", len(missing), report.pairs, len(unknown))
    if unknown and scorer is None:
        scorer = _load_scorer(bound, numerics, unknown)
    new = {response.key for response in unknown}
    with control.bar("reference", report.pairs, stored=report.pairs_stored_before) as bar:
        for unit in cut_units(missing, unit_pairs):
            started = time.perf_counter()
            responses = unknown_responses(unit, known)
            if scorer is not None and responses:
                report.tokens += _score(responses, len(unit), known, scorer, control, bar)
                report.seconds += time.perf_counter() - started
            else:
                bar.advance(len(unit), 0)
            reused = any(response.key not in new for response in unique_responses(unit))
            store.commit(_table(unit, known), _stack(scorer, reused))
    return report


def settle(
    bound: BoundReference, numerics: Numerics, pairs: Sequence[TokenPair]
) -> tuple[BoundReference, "Scorer | None"]:
    """The reference with the attention that its model turns out to want, and the scorer that was loaded to see it."""
    if bound.settled:
        return bound, None
    scorer = _load_scorer(bound, numerics, unique_responses(pairs))
    return bound.settle(scorer.attention), scorer


def plan_precompute(pairs: Sequence[TokenPair], store: ReferenceStore) -> JobReport:
    """What `precompute_ref` would do, without writing anything."""
    missing, known = outstanding(pairs, store.rows(damaged="skip"))
    unknown = unknown_responses(missing, known)
    report = _report(pairs, missing, unknown)
    report.status = "dry_run" if missing else "nothing_to_do"
    report.tokens = sum(len(response) for response in unknown)
    report.details = {"disk_bytes": ROW_BYTES * len(missing)}
    return report


def _report(pairs: Sequence[TokenPair], missing: Sequence[TokenPair], unknown: Sequence[Response]) -> JobReport:
    n_pairs = len({pair.key for pair in pairs})
    return JobReport(
        "precompute-ref",
        pairs=n_pairs,
        pairs_scored=len(missing),
        responses_scored=len(unknown),
        pairs_stored_before=n_pairs - len(missing),
    )


def _load_scorer(bound: BoundReference, numerics: Numerics, unknown: list[Response]) -> "Scorer":
    if bound.folder is None:
        raise unreachable("reference.model", bound.model)
    from stages.scoring.scorer import load_scorer

    return load_scorer(bound.folder, numerics, unknown)


def outstanding(pairs: Sequence[TokenPair], rows: pl.DataFrame) -> tuple[list[TokenPair], dict[str, float]]:
    """The pairs without a row, once each, in the order (prompt_key, pair_key); and the sums of known responses."""
    by_key = {pair.key: pair for pair in pairs}
    missing = [by_key[key] for key in missing_keys(list(by_key), rows)]
    known = dict(zip(rows["chosen_key"], rows["ref_chosen_logps"], strict=True))
    known.update(zip(rows["rejected_key"], rows["ref_rejected_logps"], strict=True))
    return sorted(missing, key=lambda pair: (pair.prompt_key, pair.key)), known


def unknown_responses(missing: Iterable[TokenPair], known: dict[str, float]) -> list[Response]:
    """The responses of these pairs that were never scored, once each."""
    return [response for response in unique_responses(missing) if response.key not in known]


def cut_units(missing: Sequence[TokenPair], unit_pairs: int) -> Iterator[list[TokenPair]]:
    """Units of about `unit_pairs` pairs, cut at prompt boundaries."""
    unit: list[TokenPair] = []
    for _, group in groupby(missing, key=lambda pair: pair.prompt_key):
        unit.extend(group)
        if len(unit) >= unit_pairs:
            yield unit
            unit = []
    if unit:
        yield unit


def _stack(scorer: "Scorer | None", reused: bool) -> dict[str, str]:
    """What scored a unit; values that were there before may have been scored by anything."""
    stack = {} if scorer is None else scorer.stack()
    return stack | {"reused": "some"} if reused else stack


def _score(
    responses: list[Response], n_pairs: int, known: dict[str, float], scorer: "Scorer", control: Control, bar: Bar
) -> int:
    """Score the responses of a unit of `n_pairs` pairs into `known`; returns the tokens read."""
    import torch

    with torch.inference_mode():
        for batch in scorer.plan([[response] for response in responses]):
            if control.stop_requested():
                raise Interrupted(
                    "Stopped by a signal: the units that were finished are stored, the one under way was dropped. Run "
                    "the same command again to score the rest."
                )
            sums = scorer.logps(batch.responses).tolist()
            known.update(zip((response.key for response in batch.responses), sums, strict=True))
            bar.advance(n_pairs * len(batch.responses) / len(responses), batch.n_tokens)
    return sum(len(response) for response in responses)


def _table(unit: Sequence[TokenPair], known: dict[str, float]) -> pa.Table:
    rows = [
        {
            "pair_key": pair.key,
            "prompt_key": pair.prompt_key,
            "chosen_key": pair.chosen.key,
            "rejected_key": pair.rejected.key,
            "n_prompt": len(pair.chosen.prompt_ids),
            "n_chosen": pair.chosen.n_scored,
            "n_rejected": pair.rejected.n_scored,
            "ref_chosen_logps": known[pair.chosen.key],
            "ref_rejected_logps": known[pair.rejected.key],
        }
        for pair in unit
    ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
