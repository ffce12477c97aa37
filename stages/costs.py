"""The cost ledger: device-seconds that scoring the reference took, and what rows that are stored already saved.

Spared is estimated: two passes a pair, which is what a run without a store would need, at the rate of the last job.
"""

from typing import Any

from data.store.reference_store import ReferenceStore

_PASSES = 2  # a pair


def seconds_spared(store: ReferenceStore, n_pairs: int, times: int = 1) -> dict[str, float]:
    """Seconds that reading `n_pairs` pairs spared, `times` over, for a report; nothing where no job has left a rate."""
    last = store.costs(last=1)
    if not n_pairs or not last or not last[0].get("responses"):
        return {}
    return {"seconds_saved": round(times * _PASSES * n_pairs * _rate(last[0]), 1)}


def ledger(store: ReferenceStore, pairs_wanted: int) -> dict[str, Any]:
    """All that scoring took, the last job, and its share of a full pass over the pairs wanted at the rate of all."""
    costs = [entry for entry in store.costs() if entry.get("responses")]
    if not costs:
        return {}
    total = {name: sum(entry[name] for entry in costs) for name in ("seconds", "pairs", "responses", "tokens")}
    full = _PASSES * pairs_wanted * _rate(total)
    return {
        "jobs": len(costs),
        **total,
        "last": {name: costs[-1].get(name) for name in ("began", *total)},
        "full_pass_seconds": full,
        "last_share": costs[-1]["seconds"] / full if full else 0.0,
    }


def _rate(entry: dict[str, Any]) -> float:
    return float(entry["seconds"] / entry["responses"])
