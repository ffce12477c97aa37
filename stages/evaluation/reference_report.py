"""What the stored scores alone say of the reference: whether it is the tuned model that it should be.

Two tokens of a response tell most: the first, which shows a seam that the model does not know, and the one that ends
the turn, which a base model, or one that was tuned with another template, never expects. docs/generation.md has what
SmolLM2-135M-Instruct comes to under its own and under other templates.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import exp, fsum
from typing import Any, NamedTuple

import polars as pl

from data.errors import StoreError
from data.parquet import as_frame
from data.store.reference_store import ReferenceStore
from data.tokens.token_pairs import TokenPairs
from stages.reference_rows import ReferenceLogps

LOW_END_PROBABILITY = 0.05
HIGH_FIRST_NLL = 10.0
HIGH_NLL = 5.0
_ENOUGH = 10  # responses that a warning needs
_FEW_PARTS, _FEW_PAIRS = 8, 20_000  # of a first look

logger = logging.getLogger(__name__)


class _Edges(NamedTuple):
    """Log-probs of the first and the last token that is scored of each response, by its key."""

    first: dict[str, float]
    last: dict[str, float]


def reference_report(
    pairs: TokenPairs,
    reference: Mapping[str, ReferenceLogps],
    store: ReferenceStore,
    end_ids: Sequence[int],
    most_parts: int | None = None,
) -> dict[str, Any]:
    """Figures of the reference on those of the pairs that `reference` has, and under `warnings` what looks wrong.

    n_pairs; chosen_nll and rejected_nll, nats a token, mean over pairs, and ..._by_token, over all tokens;
    ranking_accuracy. Where the store has single tokens (in `most_parts` of its parts, or in all): first_token_nll, and
    end_probability, the mean probability of the token that ends a turn, over the n_ends responses that have one.
    """
    columns = ("pair_key", "n_chosen", "n_rejected")
    rows = [row for row in pairs.select(*columns).iter_rows() if row[0] in reference]
    report: dict[str, Any] = {"n_pairs": len(rows)} | _likelihoods(
        [(reference[key].chosen, chosen, reference[key].rejected, rejected) for key, chosen, rejected in rows]
    )
    ends = _ends(pairs, end_ids)
    edges = _edges(store, ends, most_parts)
    if edges.first:
        report["first_token_nll"] = _mean([-logp for logp in edges.first.values()])
    ended = [exp(logp) for key, logp in edges.last.items() if ends[key]]
    if ended:
        report |= {"end_probability": _mean(ended), "n_ends": len(ended)}
    return report | {"warnings": list(_warnings(report, len(edges.first)))}


def first_look(pairs: TokenPairs, store: ReferenceStore, end_ids: Sequence[int]) -> dict[str, Any]:
    """The same from a little of the store and of these pairs: it costs next to nothing, however many there are."""
    before, parts = 0, []
    for part in pairs.parts:
        if before < _FEW_PAIRS:
            parts.append(part)
        before += len(part)
    columns = ("pair_key", "ref_chosen_logps", "ref_rejected_logps")
    rows = store.rows(columns, damaged="skip", only=store.part_names()[:_FEW_PARTS])
    reference = {key: ReferenceLogps(chosen, rejected) for key, chosen, rejected in rows.select(columns).iter_rows()}
    return reference_report(TokenPairs(parts), reference, store, end_ids, _FEW_PARTS)


def _likelihoods(rows: Sequence[tuple[float, int, float, int]]) -> dict[str, float]:
    """Of (chosen sum, its tokens, rejected sum, its tokens); the order of the rows is of no consequence."""
    if not rows:
        return {}
    chosen, n_chosen, rejected, n_rejected = zip(*rows, strict=True)
    wins = [1.0 if row[0] > row[2] else 0.5 if row[0] == row[2] else 0.0 for row in rows]
    return {
        "chosen_nll": _mean([-logps / n for logps, n in zip(chosen, n_chosen, strict=True)]),
        "rejected_nll": _mean([-logps / n for logps, n in zip(rejected, n_rejected, strict=True)]),
        "chosen_nll_by_token": -fsum(chosen) / sum(n_chosen),
        "rejected_nll_by_token": -fsum(rejected) / sum(n_rejected),
        "ranking_accuracy": _mean(wins),
    }


def _ends(pairs: TokenPairs, end_ids: Sequence[int]) -> dict[str, bool]:
    """Whether the last token that is scored of each response ends a turn; it does not where the response was cut."""
    ends: dict[str, bool] = {}
    for side in ("chosen", "rejected"):
        last_is_scored = pl.col(f"{side}_mask").list.last().fill_null(1) > 0  # no mask: all is scored
        is_end = pl.col(f"{side}_ids").list.last().is_in(list(end_ids)) & last_is_scored
        ends |= pairs.select(f"{side}_key", is_end.alias("ends")).iter_rows()
    return ends


def _edges(store: ReferenceStore, wanted: Mapping[str, bool], most_parts: int | None) -> _Edges:
    """From one part of the store at a time, until all is found."""
    keys = pl.DataFrame({"response_key": list(wanted)}, schema={"response_key": pl.String})
    edges = _Edges({}, {})
    for name, part in islice(store.checked_parts("tokens"), most_parts):
        if isinstance(part, StoreError):
            logger.warning("%s/tokens/%s is damaged and tells nothing of the reference", store, name)
            continue
        found = as_frame(part.table).join(keys, on="response_key").filter(pl.col("token_logps").list.len() > 0)
        for side, end in ((edges.first, "first"), (edges.last, "last")):
            value = getattr(pl.col("token_logps").list, end)()
            side |= found.select("response_key", value.alias("logp")).iter_rows()
        if len(edges.first) == len(wanted):
            break
    return edges


def _warnings(report: Mapping[str, Any], n_responses: int) -> Iterator[str]:
    if report["n_pairs"] >= _ENOUGH and report["chosen_nll"] > HIGH_NLL:
        yield (
            "The chosen responses are improbable under the reference: "
            f"{report['chosen_nll']:.1f} nats a token, where a model that knows such texts has 1 to 3. Its tokenizer "
            "or its weights may be another model's, or the texts of a language that it was not trained on. Look at the "
            "tokens with `pipeline inspect` and check reference.model."
        )
    if n_responses >= _ENOUGH and report["first_token_nll"] > HIGH_FIRST_NLL:
        yield (
            "The reference does not expect how responses begin: their first token costs "
            f"{report['first_token_nll']:.1f} nats, where a model with its own template has 3 to 7. Mostly the chat "
            "template is another model's, or leaves a space too many between prompt and response. Look at that seam "
            "with `pipeline inspect`, and correct the template in the folder of reference.model."
        )
    if report.get("n_ends", 0) >= _ENOUGH and report["end_probability"] < LOW_END_PROBABILITY:
        yield (
            "The reference does not expect responses to end where they do: the token that ends them has a probability "
            f"of {report['end_probability']:.2g} (mean of {report['n_ends']}), where a model that was tuned on such "
            "responses has 0.3 and more. It is a base model, or the chat template or the end token is not its own, or "
            "its own responses are of another kind; pairs have to teach that first. Take the model that was tuned, "
            "check its template with `pipeline inspect`, or tune it on the chosen responses before "
            "(train.objective: sft)."
        )


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
