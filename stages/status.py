"""What a store holds, for which data, what differs, what it cost; loads no model and writes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.errors import StoreError
from data.field_diff import field_diff
from data.store.reference_store import ReferenceStore, missing_keys
from data.store.references import StoredReference, stored_references
from data.tokens.token_pairs import TokenPairs
from stages.causes import why_missing
from stages.costs import ledger
from stages.reference import BoundReference


def store_status(
    pairs: TokenPairs, store: ReferenceStore, bound: BoundReference, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of `pipeline status`: the configured reference, and the others beside it."""
    wanted = pairs.keys.unique(maintain_order=True).to_list()
    every = {found.reference_id: found for found in stored_references(store.storage)}
    described = every.pop(bound.reference_id, None)
    rows = store.rows(["pair_key"], damaged="skip")
    missing = missing_keys(wanted, rows)
    return {
        "store": str(store.storage),
        "reference": {
            "id": bound.reference_id,
            "name": described.name if described else bound.name,
            "pairs_stored": rows.height,
            "pairs_wanted": len(wanted),
            "pairs_missing": len(missing),
            "why": why_missing(missing, store, bound, dict(origin)).strip() if missing else "",
            "parts": len(store.part_names()),
            "quarantined": len(store.storage.names(f"{bound.reference_id}/quarantine")),
            "cost": ledger(store, len(wanted)),
        },
        "others": [_other(found, wanted, store, bound) for found in every.values()],
    }


def _other(
    found: StoredReference, wanted: Sequence[str], store: ReferenceStore, bound: BoundReference
) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": found.reference_id, "name": found.name}
    entry["differs"] = field_diff(found.identity, bound.identity)
    try:
        rows = ReferenceStore(store.storage, found.reference_id).rows(["pair_key"], damaged="skip")
    except StoreError as error:
        return entry | {"problem": str(error)}
    return entry | {"pairs_stored": rows.height, "pairs_wanted": len(wanted) - len(missing_keys(wanted, rows))}
