"""The stored reference side of a set of pairs, joined by key; for the jobs that only ever read the store."""

from collections.abc import Sequence
from sys import intern
from typing import NamedTuple

from data.errors import StoreError
from data.schema import TokenPair
from data.store import ReferenceStore, missing_keys, other_references
from stages.reference import BoundReference, field_diff


class ReferenceLogps(NamedTuple):
    """Sums of one pair under the reference, in nats, and the stack that scored them, as JSON."""

    chosen: float
    rejected: float
    stack: str = "{}"


def reference_logps(
    pairs: Sequence[TokenPair], store: ReferenceStore, bound: BoundReference, rerun: str
) -> dict[str, ReferenceLogps]:
    """The stored sums of every pair, by pair key.

    `rerun` is the command that scores what is missing.

    Raises:
        StoreError: a part is damaged, or a pair has no row.
    """
    rows = store.rows()
    wanted = list(dict.fromkeys(pair.key for pair in pairs))
    missing = missing_keys(wanted, rows)
    if missing:
        raise StoreError(
            f"{len(missing)} of {len(wanted)} pairs have no reference log-probs under reference "
            f"{bound.reference_id[:12]} in {store.root}. Nothing was trained or evaluated; run: {rerun}."
            + _explained_by_another(missing, store, bound)
        )
    columns = ("pair_key", "ref_chosen_logps", "ref_rejected_logps", "stack")
    # Interned: a stack is shared by all rows of a part.
    by_key = {
        key: ReferenceLogps(chosen, rejected, intern(stack))
        for key, chosen, rejected, stack in rows.select(columns).iter_rows()
    }
    return {key: by_key[key] for key in wanted}


def _explained_by_another(missing: list[str], store: ReferenceStore, bound: BoundReference) -> str:
    """If another reference has the missing pairs: how it differs, so that the user sees a field and not a hash."""
    for reference_id, identity in other_references(store).items():
        try:
            still_missing = missing_keys(missing, ReferenceStore(store.root, reference_id).rows(damaged="skip"))
        except StoreError:
            continue
        if len(still_missing) < len(missing):
            differences = "; ".join(field_diff(identity, bound.identity))
            return (
                f" {len(missing) - len(still_missing)} of them are stored under reference {reference_id[:12]}, which "
                f"differs from the configured one in: {differences}."
            )
    return ""
