"""Job one: score the frozen reference over every pair that the store does not have, once.

What is stored is per pair, what is scored is per response: a new pair of two known responses costs no forward pass.
Pairs are committed in units; a unit that was interrupted leaves nothing behind, and a rerun scores what is missing.
"""

import logging
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data.errors import PipelineError, StoreError
from data.schema import Response, TokenPair, both_sides, unique_responses
from data.store.parts import BadLogps
from data.store.reference_store import ReferenceStore, StoreConfig, TokenLogps
from data.store.references import StoredReference, describe
from data.tokens.token_pairs import TokenPairs
from stages.causes import why_missing
from stages.costs import seconds_spared
from stages.drift import check_drift
from stages.job import Bar, Control, JobReport
from stages.model_files import unreachable
from stages.reference import BoundReference
from stages.scoring.config import Numerics
from stages.units import Outstanding, Shard, cut_units, outstanding, pair_table, response_table, unknown_responses

if TYPE_CHECKING:
    from stages.scoring.scorer import Scorer

ROW_BYTES = 200  # of a stored pair, nearly all of it its four keys
TOKEN_BYTES = 4  # of a stored log-prob of a token
_SHOWN = 10  # rows that a message names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precomputation:
    """What one worker is to bring the store to completeness for, and how."""

    pairs: TokenPairs
    store: ReferenceStore
    bound: BoundReference
    numerics: Numerics
    config: StoreConfig
    shard: Shard
    origin: dict[str, Any]
    """What makes tokens of text, kept with the cost: a later job can then name what moved."""
    accept_drift: bool = False


def find_work(job: Precomputation) -> Outstanding:
    """What there is to do; damaged parts are set aside.

    Raises:
        StoreError: it is more than `store.max_new_pairs`.
    """
    todo = outstanding(job.pairs, job.store, job.shard, damaged="quarantine")
    _check_budget(job, todo)
    return todo


def precompute_ref(
    job: Precomputation, todo: Outstanding, control: Control, scorer: "Scorer | None" = None
) -> JobReport:
    """Do it; loads the model only if a response has never been scored.

    `scorer` is the reference's, where it had to be loaded before.

    Raises:
        StoreError: this machine scores otherwise than those that the store has values of.
        PipelineError: the reference gives values that are no log-probs. Interrupted: a signal; finished units stay.
    """
    store, bound, began = job.store, job.bound, datetime.now(UTC)
    report = _report(job, todo)
    if not len(todo.missing):
        report.status = "nothing_to_do"
        logger.info("all %d pairs have reference log-probs already; no model was loaded", report.pairs)
        return report
    store.sweep()
    describe(store.storage, StoredReference(bound.reference_id, bound.name, bound.identity, bound.source))
    logger.info("%d of %d pairs to add, %d responses to score", len(todo.missing), report.pairs, len(todo.unknown))
    if len(todo.unknown):
        scorer = scorer or _load_scorer(bound, job.numerics, todo.missing, len(todo.unknown))
        report.details |= check_drift(scorer, job.pairs, todo.stored, job.numerics.dtype, accept=job.accept_drift)
    report.pairs_scored = report.responses_scored = 0
    try:
        with control.bar(_label(job.shard), report.pairs, stored=report.pairs_stored_before) as bar:
            _add_units(job, todo, scorer, report, control, bar)
    finally:
        _keep_cost(job, report, began, scorer)
    return report


def plan_precompute(job: Precomputation, promoted: Collection[str] = ()) -> JobReport:
    """What `precompute_ref` would do, without writing anything, once the pairs with the keys `promoted` are there."""
    rest = job.pairs.take((~job.pairs.keys.is_in(list(promoted))).arg_true()) if promoted else job.pairs
    todo = outstanding(rest, job.store, job.shard, damaged="skip")
    report = _report(job, todo)
    report.pairs += len(job.pairs) - len(rest)
    report.status = "dry_run" if len(todo.missing) else "nothing_to_do"
    report.tokens, scored = (int(todo.unknown[name].sum()) for name in ("n_tokens", "n_scored"))
    report.details |= {"disk_bytes": ROW_BYTES * len(todo.missing) + TOKEN_BYTES * scored}
    return report


def settle(job: Precomputation) -> tuple[BoundReference, "Scorer | None"]:
    """The reference with the attention that its model turns out to want, and the scorer that was loaded to see it.

    Raises:
        StoreError: it would have to score more pairs than it may.
    """
    if job.bound.settled:
        return job.bound, None
    _check_budget(job, outstanding(job.pairs, job.store, job.shard, damaged="skip"))
    scorer = _load_scorer(job.bound, job.numerics, job.pairs, len(job.pairs))
    return job.bound.settle(scorer.attention), scorer


def _check_budget(job: Precomputation, todo: Outstanding) -> None:
    """Refuse to add more pairs than `store.max_new_pairs`, and say what moved."""
    most = job.config.max_new_pairs
    if most is None or len(todo.missing) <= most:
        return
    why = why_missing(todo.missing.keys.to_list(), job.store, job.bound, job.origin)
    raise StoreError(
        f"{len(todo.missing)} of {todo.n_pairs} pairs have no reference log-probs under reference {job.bound.name} "
        f"({job.bound.reference_id[:12]}) in {job.store.storage}, more than store.max_new_pairs = {most} lets one job "
        f"add. Nothing was scored.{why} Restore what moved, or raise store.max_new_pairs (--set "
        "store.max_new_pairs=null: no limit), and run the same command again."
    )


def _report(job: Precomputation, todo: Outstanding) -> JobReport:
    report = JobReport(
        "precompute-ref",
        pairs=todo.n_pairs,
        pairs_scored=len(todo.missing),
        responses_scored=len(todo.unknown),
        pairs_stored_before=todo.n_pairs - len(todo.missing),
    )
    report.details |= seconds_spared(job.store, report.pairs_stored_before)
    return report


def _load_scorer(bound: BoundReference, numerics: Numerics, pairs: TokenPairs, n_unknown: int) -> "Scorer":
    if bound.folder is None:
        raise unreachable("reference.model", bound.model)
    if not bound.own:
        raise StoreError(
            f"{n_unknown} responses have no log-probs under the reference {bound.name} ({bound.reference_id[:12]}), "
            f"which reference.id names, and {bound.model} cannot score them: it is not the model that made its rows. "
            "Import the missing rows (pipeline import), or take reference.id out of the configuration."
        )
    from stages.scoring.scorer import load_scorer

    return load_scorer(bound.folder, numerics, both_sides(pairs))


def _label(shard: Shard) -> str:
    return "reference" if shard.count == 1 else f"reference {shard}"


def _add_units(
    job: Precomputation, todo: Outstanding, scorer: "Scorer | None", report: JobReport, control: Control, bar: Bar
) -> None:
    """Score what is unknown of each unit, and commit it."""
    scores = None

    def commit(pairs: list[TokenPair], fresh: dict[str, TokenLogps], seconds: float) -> None:
        new = [response for response in unique_responses(pairs) if response.key in fresh]
        _commit(pairs, new, ChainMap(fresh, todo.known), job, scorer)
        report.pairs_scored += len(pairs)
        report.responses_scored += len(new)
        report.tokens += sum(map(len, new))
        report.seconds += seconds

    for pairs in cut_units(todo.missing, job.config.unit_pairs):
        responses = unknown_responses(pairs, todo.known)
        if scorer is None or not responses:
            commit(pairs, {}, 0.0)
            bar.advance(len(pairs), 0)
            continue
        if scores is None:
            from stages.unit_scores import UnitScores

            scores = UnitScores(scorer, control, bar, lambda unit: commit(unit.pairs, unit.logps, unit.seconds))
        scores.add(pairs, responses)
    if scores is not None:
        scores.finish()


def _commit(
    pairs: list[TokenPair],
    new: list[Response],
    logps: Mapping[str, TokenLogps],
    job: Precomputation,
    scorer: "Scorer | None",
) -> None:
    """Add the rows of a unit to the store: of its pairs, and of the responses that are new."""
    stack = _stack(scorer, reused=len(new) < len(unique_responses(pairs)))
    try:
        job.store.commit(pair_table(pairs, logps), stack, response_table(new, logps))
    except BadLogps as bad:
        raise _no_logps(bad, pairs, {response.key: logps[response.key] for response in new}) from bad


def _stack(scorer: "Scorer | None", *, reused: bool) -> dict[str, str]:
    """What scored a unit; values that were there before may have been scored by anything."""
    stack = {} if scorer is None else scorer.stack()
    return stack | {"reused": "some"} if reused else stack


def _no_logps(bad: BadLogps, unit: Sequence[TokenPair], fresh: dict[str, TokenLogps]) -> PipelineError:
    """The error of a reference whose values are not finite or above 0, with the rows that they belong to."""
    from numpy import isfinite

    keys = {key for key, logps in fresh.items() if not (isfinite(logps) & (logps <= 0)).all()}
    rows = [pair.location for pair in unit if {pair.chosen.key, pair.rejected.key} & keys]
    return PipelineError(
        f"The reference gave log-probs that are not finite or above 0 for {len(keys)} responses (the first "
        f"{bad.example}; rows {', '.join(rows[:_SHOWN])}), so nothing of this unit was stored. The weights or the "
        "dtype are at fault: try reference.dtype: float32, and check that the model generates text."
    )


def _keep_cost(job: Precomputation, report: JobReport, began: datetime, scorer: "Scorer | None") -> None:
    """Add to the store what this job took, if it scored anything."""
    if not report.responses_scored or scorer is None:
        return
    document = {name: getattr(report, name) for name in ("tokens", "seconds")}
    document |= {"pairs": report.pairs_scored, "responses": report.responses_scored, "shard": str(job.shard)}
    job.store.add_cost(began, document | {"stack": scorer.stack(), "origin": job.origin})
