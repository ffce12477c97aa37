"""Several policies on the same held-out pairs, the best first, with what is known of the distances between them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from data.identity import document_key
from stages.metrics.ranks import Contest, contests, rank_range
from stages.metrics.values import pair_values

SCHEMA_VERSION = 1
_SHOWN = ("reward_margin", "loss", "drift", "ranking_accuracy_normalized", "chosen_nll")
_ENDS = ("", "_low", "_high")


class Entry(NamedTuple):
    """A policy that was evaluated."""

    name: str
    folder: str
    """Of its evaluation, relative to the work folder."""
    document: dict[str, Any]
    pairs: pl.DataFrame


class Failure(NamedTuple):
    """A policy that could not be."""

    name: str
    policy_id: str | None
    """None where not even its files could be read."""
    message: str
    exit_code: int


def leaderboard(entries: Sequence[Entry], failures: Sequence[Failure]) -> dict[str, Any]:
    """The document of leaderboard.json; the order in which policies are given is of no consequence.

    By reward accuracy, without a reference by ranking accuracy; of two that are level, by name.
    """
    measure = entries[0].document["measure"]
    metric = "ranking_accuracy" if measure["reference"] is None else "reward_accuracy"
    ordered = sorted(entries, key=lambda entry: (-entry.document["metrics"][metric], entry.name))
    once = [entry.pairs.unique("pair_key", keep="first").sort("pair_key") for entry in ordered]
    assert all(frame["pair_key"].equals(once[0]["pair_key"]) for frame in once)
    values = {entry.name: pair_values(frame, metric) for entry, frame in zip(ordered, once, strict=True)}
    held = contests(values, once[0]["prompt_key"].to_list())
    first = ordered[0].document
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": _identity(entries, failures),
        "metric": metric,
        "reference": _reference(first),
        "objective": None if measure["objective"] is None else first["objective"],
        "beta": None if measure["reference"] is None else first["beta"],
        "n_pairs": first["n_pairs"],
        "n_prompts": first["n_prompts"],
        "models": [_row(entry, metric, rank_range(entry.name, held, len(ordered))) for entry in ordered],
        "tests": [_test(contest) for contest in held],
        "failed": [failure._asdict() for failure in sorted(failures)],
    }


def _identity(entries: Sequence[Entry], failures: Sequence[Failure]) -> str:
    """sha256 over the policies and what their evaluations are of."""
    policies = [*((entry.name, entry.document["policy"]["id"]) for entry in entries), *(each[:2] for each in failures)]
    evaluated = {entry.name: entry.document["identity"] for entry in entries}
    return document_key({"policies": sorted(map(list, policies), key=str), "evaluations": evaluated})


def _reference(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The untrained reference, which ranks too; its rewards are 0, so that it has no reward accuracy."""
    if document["reference"] is None:
        return None
    names = [f"ranking_accuracy{end}" for end in _ENDS]
    return {**document["reference"], "metrics": {name: document["metrics"][f"ref_{name}"] for name in names}}


def _row(entry: Entry, metric: str, ranks: tuple[int, int]) -> dict[str, Any]:
    metrics = entry.document["metrics"]
    names = dict.fromkeys([f"{name}{end}" for name in (metric, "ranking_accuracy") for end in _ENDS] + [*_SHOWN])
    return {
        "name": entry.name,
        "policy_id": entry.document["policy"]["id"],
        "rank_low": ranks[0],
        "rank_high": ranks[1],
        "metrics": {name: metrics[name] for name in names if name in metrics},
        "verdict": entry.document["verdict"],
        "failed_gates": [gate["metric"] for gate in entry.document["gates"] if not gate["passed"]],
        "evaluation": entry.folder,
    }


def _test(contest: Contest) -> dict[str, Any]:
    found = contest.found
    low, high = found.interval()
    bounded = found.n_prompts > 1
    return {
        "first": contest.first,
        "second": contest.second,
        "difference": found.difference,
        "low": low if bounded else None,
        "high": high if bounded else None,
        "gained": found.gained,
        "lost": found.lost,
        "mcnemar_p": found.mcnemar_p(),
        "clustered_p": found.clustered_p(),
        "holm_p": contest.holm_p,
        "better": contest.better,
    }
