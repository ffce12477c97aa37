"""The stored reference side of a set of pairs, joined by key; for the jobs that only ever read the store."""

import hashlib
from collections.abc import Collection, Iterable
from sys import intern
from typing import Any, NamedTuple

import polars as pl

from data.errors import StoreError
from data.store.reference_store import ReferenceStore, missing_keys
from data.tokens.token_pairs import TokenPairs
from stages.causes import why_missing
from stages.reference import BoundReference

_SUMS = ("ref_chosen_logps", "ref_rejected_logps")
_SHARED = ("ref_chosen_shared_logps", "ref_rejected_shared_logps")


class ReferenceLogps(NamedTuple):
    """Sums of one pair under the reference, in nats, and the stack that scored them, as JSON."""

    chosen: float
    rejected: float
    stack: str = "{}"
    chosen_shared: float | None = None
    """Over the first min(L+, L-) scored tokens; None where nobody asked for it."""
    rejected_shared: float | None = None


class SplitPairs(NamedTuple):
    """Pairs and their reference side: by pair key, None where the objective reads none."""

    pairs: TokenPairs
    reference: dict[str, ReferenceLogps] | None


def values_digest(reference: dict[str, ReferenceLogps]) -> str:
    """sha256 of keys and sums, whatever their order."""
    digest = hashlib.sha256()
    for key, logps in sorted(reference.items()):
        sums = (logps.chosen, logps.rejected, logps.chosen_shared, logps.rejected_shared)
        digest.update(f"{key} {' '.join(value.hex() for value in sums if value is not None)}\n".encode())
    return digest.hexdigest()


def reference_logps(
    wanted_keys: Iterable[str],
    store: ReferenceStore,
    bound: BoundReference,
    rerun: str,
    origin: dict[str, Any] | None = None,
    only: Collection[str] | None = None,
    *,
    shared: bool = False,
) -> dict[str, ReferenceLogps]:
    """The stored sums of the pairs with these keys, by key.

    `rerun` is the command that scores what is missing; `only` takes no other parts than these; `shared` asks for the
    sums over the shared length, too.

    Raises:
        StoreError: a part is damaged, or a pair has no row.
    """
    columns = [*_SUMS, *(_SHARED if shared else ())]
    rows = store.rows(["pair_key", *columns], only=only)
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
    if shared:
        _check_shared(found, bound)
    sums = [found[name].to_list() if name in columns else [None] * len(wanted) for name in (*_SUMS, *_SHARED)]
    stacks = map(intern, found["stack"])  # shared by all rows of a part
    return {
        key: ReferenceLogps(chosen, rejected, stack, *over_shared)
        for key, stack, chosen, rejected, *over_shared in zip(wanted, stacks, *sums, strict=True)
    }


def _check_shared(found: pl.DataFrame, bound: BoundReference) -> None:
    unknown = found.filter(pl.any_horizontal(pl.col(name).is_null() for name in _SHARED)).height
    if unknown:
        raise StoreError(
            f"train.ld_alpha needs sums over the shared length of each pair, and {unknown} of {found.height} pairs are "
            f"stored without them under reference {bound.name} ({bound.reference_id[:12]}): another program scored "
            "them. Nothing was trained or evaluated. Remove train.ld_alpha, or take a reference that this program "
            "scores (reference.model without reference.id)."
        )
