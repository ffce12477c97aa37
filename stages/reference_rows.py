"""The stored reference side of a set of pairs, joined by key; for the jobs that only ever read the store."""

import hashlib
from collections.abc import Collection, Iterable
from sys import intern
from typing import Any, NamedTuple

import polars as pl

from data.errors import StoreError
from data.store.reference_store import ReferenceStore, missing_keys
from stages.causes import why_missing
from stages.reference import BoundReference


class ReferenceLogps(NamedTuple):
    """Sums of one pair under the reference, in nats, and the stack that scored them, as JSON."""

    chosen: float
    rejected: float
    stack: str = "{}"


def values_digest(reference: dict[str, ReferenceLogps]) -> str:
    """sha256 of keys and sums, whatever their order."""
    lines = (f"{key} {logps.chosen.hex()} {logps.rejected.hex()}\n" for key, logps in sorted(reference.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def reference_logps(
    wanted_keys: Iterable[str],
    store: ReferenceStore,
    bound: BoundReference,
    rerun: str,
    origin: dict[str, Any] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, ReferenceLogps]:
    """The stored sums of the pairs with these keys, by key.

    `rerun` is the command that scores what is missing; `only` takes no other parts than these.

    Raises:
        StoreError: a part is damaged, or a pair has no row.
    """
    rows = store.rows(["pair_key", "ref_chosen_logps", "ref_rejected_logps"], only=only)
    wanted = list(dict.fromkeys(wanted_keys))
    missing = missing_keys(wanted, rows)
    if missing:
        raise StoreError(
            f"{len(missing)} of {len(wanted)} pairs have no reference log-probs under reference {bound.name} "
            f"({bound.reference_id[:12]}) in {store.storage}. Nothing was trained or evaluated; run: {rerun}."
            + why_missing(missing, store, bound, origin)
        )
    keys = pl.DataFrame({"pair_key": wanted}, schema={"pair_key": pl.String})
    found = keys.join(rows, on="pair_key", how="left", maintain_order="left")
    assert found["pair_key"].equals(keys["pair_key"])
    del rows  # of a million pairs every column counts
    sums = (found[name].to_list() for name in ("ref_chosen_logps", "ref_rejected_logps"))
    stacks = map(intern, found["stack"])  # shared by all rows of a part
    return {key: ReferenceLogps(*row) for key, *row in zip(wanted, *sums, stacks, strict=True)}
